package queue

import (
	"context"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

const (
	// partSize is how many messages a batch has. The server's work for a message
	// grows with its batch, since it adds up all that are in it; but for each batch it
	// makes files and syncs them, and on a slow disk that is most of the time.
	partSize = maxBatch
	// handParts is how many such batches are passed on together.
	handParts = 4
)

// commit stores one batch and meanwhile sends the next one but for its last
// message, which is what has it stored: the server then has it at hand when its
// turn comes. Nothing of it counts before that, so that what is stored is the
// beginning of what was added, whatever happens.
func (b *Batch) commit(ctx context.Context, msgs []*nats.Msg) (pubAck, error) {
	ahead := b.ahead
	b.ahead = sentAhead{}
	if ahead != (sentAhead{msgs[0], len(msgs)}) {
		stage(msgs)
		if err := b.q.sendAllButLast(msgs); err != nil {
			return pubAck{}, err
		}
	}
	following := b.following(len(msgs))
	if len(following) < 2 {
		return b.q.commitStaged(ctx, msgs)
	}
	var ack pubAck
	done := make(chan error, 1)
	go func() {
		var err error
		ack, err = b.q.commitStaged(ctx, msgs)
		done <- err
	}()
	stage(following)
	sent := b.q.sendAllButLast(following)
	err := <-done
	if err == nil && sent == nil {
		b.ahead = sentAhead{following[0], len(following)}
	}
	return ack, err
}

// sentAhead is a batch that was sent but for its last message.
type sentAhead struct {
	first *nats.Msg
	n     int
}

// following is the batch behind the first n messages, where it is worth sending
// ahead: not while something is wrong, since the server keeps only so many
// batches that nobody ends, each for 10 seconds.
func (b *Batch) following(n int) []*nats.Msg {
	if b.troubled || b.limit < maxBatch {
		return nil
	}
	rest := b.msgs[n:]
	return rest[:b.fits(rest, partSize)]
}

// fits is how many of the first messages go into one batch of at most most.
func (b *Batch) fits(msgs []*nats.Msg, most int) int {
	n, size := 0, 0
	if b.ids == nil {
		b.ids = make(map[string]bool, maxBatch)
	}
	clear(b.ids)
	for n < len(msgs) && n < most {
		m := msgs[n]
		id := m.Header.Get(contact.HeaderMsgID)
		size += sizeOf(m)
		if n > 0 && (size > maxBatchBytes || b.ids[id]) {
			break // one id twice in a batch would have all of it refused
		}
		b.ids[id] = true
		n++
	}
	return n
}

// sizeOf is about what a message takes.
func sizeOf(m *nats.Msg) int { return len(m.Data) + len(m.Subject) + 200 }
