package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

const (
	askSubject = "crm.ask."
	askWait    = 2 * time.Second
)

// Answer answers what others ask about a target, until ctx ends; it then returns
// nil. The target's owner runs it beside its lane. f gets a question and returns
// the answer, both JSON by convention, at most 512 KiB; it is called for one
// question after another and should return within two seconds.
func (q *Queue) Answer(ctx context.Context, target string, f func(ctx context.Context, question []byte) []byte) error {
	if err := contact.CheckTarget(target); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	sub, err := q.nc.SubscribeSync(askSubject + target)
	if err != nil {
		return fmt.Errorf("queue: answer for target %s: %w", target, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // nobody waits for more
	for {
		m, err := sub.NextMsgWithContext(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrBadSubscription):
			return fmt.Errorf("queue: answer for target %s: %w", target, err)
		case err != nil:
			sleep(ctx, pause(0)) // a slow consumer: questions were dropped, and will be asked again
			continue
		}
		if err := m.Respond(f(ctx, m.Data)); err != nil {
			q.log.Debug().Err(err).Str("target", target).Msg("an answer could not be sent")
		}
	}
}

// Ask asks the owner of a target. ok is false where no process answers for it; an
// error says that one should have, within two seconds, and did not.
func (q *Queue) Ask(ctx context.Context, target string, question []byte) (answer []byte, ok bool, err error) {
	if err := contact.CheckTarget(target); err != nil {
		return nil, false, fmt.Errorf("queue: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	m, err := q.request(ctx, &nats.Msg{Subject: askSubject + target, Data: question})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("queue: the owner of target %s does not answer: %w", target, err)
	}
	return m.Data, true, nil
}
