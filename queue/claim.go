package queue

import (
	"context"
	"encoding/json"
	"sync"
	"time"
)

// hold claims a target, runs its lane and releases it.
func (o *ownership) hold(target string, h *holding, cur claim) {
	var once sync.Once
	claimed := func() { once.Do(func() { <-o.slots }) }
	defer func() {
		claimed()
		o.mu.Lock()
		delete(o.held, target)
		o.mu.Unlock()
		poke(o.kick)
	}()
	log := o.q.log.With().Str("target", target).Logger()
	rev, err := o.claim(ownKey+target, h.sess, cur)
	if err != nil || rev == 0 {
		if err != nil && h.sess.ctx.Err() == nil {
			log.Debug().Err(err).Msg("claim failed")
		}
		o.later(target)
		return
	}
	s, err := openSource(h.sess.ctx, o.q, h.sess, target, rev)
	if err != nil {
		if h.sess.ctx.Err() == nil {
			log.Error().Err(err).Msg("target cannot be opened")
		}
		o.letGo(ownKey+target, h.sess, rev)
		o.later(target)
		return
	}
	claimed()
	ctx, release := context.WithCancel(s.ctx)
	defer release()
	o.mu.Lock()
	h.release = release
	o.mu.Unlock()
	poke(o.kick)
	log.Info().Str("session", h.sess.id).Msg("target taken")
	o.lane(ctx, s)
	wanted := ctx.Err() != nil && s.ctx.Err() == nil
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.q.timeout)
	defer cancel()
	s.close(closing)
	if h.sess.ctx.Err() == nil && !s.abandoned.Load() {
		o.letGo(ownKey+target, h.sess, rev)
	}
	if !wanted {
		o.later(target)
	}
	log.Info().Bool("graceful", wanted).Msg("target released")
}

// giveBack frees a target that our session owns and does not run. One that leaves
// gives nothing back in this way: its claims end with it.
func (o *ownership) giveBack(target string, h *holding, cur claim) {
	o.letGo(ownKey+target, h.sess, cur.rev)
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.held, target)
	o.notBefore[target] = time.Now().Add(afterFailed)
	poke(o.kick)
}

func (o *ownership) later(target string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notBefore[target] = time.Now().Add(afterFailed)
}

// claim writes our session as the owner, by compare-and-set; 0 where another was
// faster or the present owner lives.
func (o *ownership) claim(key string, sess *session, cur claim) (uint64, error) {
	if cur.Session != "" && cur.Session != sess.id {
		// That we have not heard of the session proves nothing.
		e, err := o.q.sessions.get(sess.ctx, cur.Session)
		if err != nil || !e.gone {
			return 0, err
		}
	}
	rev, err := o.q.owners.put(sess.ctx, key, ownerValue(sess.id), int64(cur.rev))
	switch {
	case err == nil:
		return rev, nil
	case apiErrorOf(err).ErrCode == errWrongLast:
		return 0, nil
	}
	e, again := o.q.owners.get(sess.ctx, key)
	if again != nil || e.gone {
		return 0, err
	}
	var c claim
	if json.Unmarshal(e.value, &c) == nil && c.Session == sess.id && e.rev != cur.rev {
		return e.rev, nil // it was stored and the answer lost
	}
	return 0, err
}

func ownerValue(session string) []byte {
	b, err := json.Marshal(claim{Session: session})
	if err != nil {
		panic(err) // one string
	}
	return b
}

// letGo frees what the key stands for. Where it fails, the others wait for the
// session's end or for our next claim.
func (o *ownership) letGo(key string, sess *session, rev uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), min(sess.lease, o.q.timeout))
	defer cancel()
	for n := 0; n < 3; n++ {
		_, err := o.q.owners.put(ctx, key, ownerValue(""), int64(rev))
		if err == nil || apiErrorOf(err).ErrCode == errWrongLast || !sleep(ctx, pause(n)) {
			return
		}
	}
}
