package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// How often the store is looked after.
const (
	lookEach  = time.Second     // folder, disk and high-water marks
	trialEach = 5 * time.Second // a trial message is stored
	scrubEach = time.Minute     // every message file is read
	// maxMisses is after how many trial messages in a row that were not stored
	// the embedded server is started again, whatever it says itself.
	maxMisses = 6
	maxHeal   = 10 * time.Second // between attempts to start it again
)

// keeper looks after the store for as long as the queue is open: it proves that
// nothing vanishes, tries whether anything can be stored, watches the disk, and
// starts an embedded server again that gave up.
type keeper struct {
	q     *Queue
	srv   *embedded  // nil: the servers are elsewhere
	marks *marksFile // of the embedded server's store; nil as above
	look  time.Duration
	hurry chan struct{} // the watch has something to do
	rub   chan struct{} // read the message files now

	mu     sync.Mutex
	now    Health
	failed string // why the store was given up; "" while it is trusted
	full   bool   // because the disk is full: what is stored can be read
	trial  error  // why the last trial message was not stored
	misses int    // in a row
	known  map[string]mark
	holes  map[string]knownHoles
}

// knownHoles are the sequences that hold nothing of a stream in that state.
type knownHoles struct {
	at   streamState
	seqs spans
}

// keep begins to look after the store; once is enough.
func (q *Queue) keep() {
	k := &keeper{
		q: q, srv: q.srv, look: lookEach, hurry: make(chan struct{}, 1), rub: make(chan struct{}, 1),
		known: map[string]mark{}, holes: map[string]knownHoles{},
	}
	if q.srv != nil {
		k.marks = q.srv.store.marks
		k.now.Dir = q.srv.conf.Dir
		k.now.Losses = k.marks.read().Losses
		if q.srv.conf.Look > 0 {
			k.look = q.srv.conf.Look
		}
		k.space()
	} else {
		k.look = trialEach
	}
	if !q.keeper.CompareAndSwap(nil, k) {
		return
	}
	k.answer()
	q.run(func() { k.watch(q.life) })
	q.run(func() { k.try(q.life) })
	if q.srv != nil {
		q.run(func() { k.scrubAll(q.life) })
	}
}

// health is how the store is now.
func (k *keeper) health() Health {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.now
	h.Losses = slices.Clone(h.Losses)
	failure := k.failed
	if failure == "" && k.trial != nil {
		failure = "a trial message could not be stored: " + k.trial.Error()
	}
	h.sum(failure)
	return h
}

// fail gives the store up until it has been started again and proved whole.
func (k *keeper) fail(why string, full bool) {
	k.mu.Lock()
	first := k.failed == ""
	if first {
		k.failed, k.full = why, full
	}
	k.mu.Unlock()
	if first {
		k.q.log.Error().Str("why", why).Msg("the store cannot be trusted any more; it is started again as soon as that can be done")
		poke(k.hurry)
	}
}

func (k *keeper) down() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failed != ""
}

// watch looks at everything that is quick to look at, and mends.
func (k *keeper) watch(ctx context.Context) {
	t := time.NewTimer(k.look)
	defer t.Stop()
	var fault chan string
	if k.srv != nil {
		fault = k.srv.fault
	}
	for n := 0; ; {
		select {
		case text := <-fault:
			k.fail(text, isFull(text))
			continue
		case <-k.hurry:
		case <-t.C:
		case <-ctx.Done():
			return
		}
		wait := k.look
		if k.srv != nil {
			k.space()
			if err := k.srv.intact(); err != nil {
				k.fail(err.Error(), false)
			}
		}
		if !k.down() {
			began := time.Now()
			k.prove(ctx)
			wait = max(wait, 50*time.Since(began)) // many streams take their time
			n = 0
		} else if k.heal(ctx) {
			wait, n = 0, 0
		} else {
			wait, n = min(k.look<<min(n, 10), maxHeal), n+1
		}
		t.Reset(wait)
	}
}

// isFull says of an error's text that the disk has no more space.
func isFull(text string) bool {
	return slices.ContainsFunc([]string{"no space left", "quota exceeded", "file too large"}, func(s string) bool {
		return strings.Contains(strings.ToLower(text), s)
	})
}

// space looks at the disk.
func (k *keeper) space() {
	free, size, err := diskSpace(k.srv.conf.Dir)
	if err != nil {
		return // it is not known, or the folder is gone, which is noticed
	}
	c := k.srv.conf
	least := c.MinFree
	switch {
	case least < 0:
		least = 0
	case least == 0 && c.MinFreeShare > 0:
		least = int64(float64(size) * c.MinFreeShare)
	case least == 0:
		least = min(DefaultMinFree, size/10)
	}
	k.mu.Lock()
	was := k.now
	k.now.Free, k.now.Size, k.now.MinFree = free, size, least
	now := k.now
	k.mu.Unlock()
	if before, after := was.room() != nil, now.room() != nil; before != after && was.Size > 0 || after && was.Size == 0 {
		if after {
			k.q.log.Error().Int64("free", free).Int64("min_free", least).Str("dir", c.Dir).Msg("the disk is nearly full: updates are not taken until there is space; what is stored goes on being worked on")
		} else {
			k.q.log.Info().Int64("free", free).Msg("there is space on the disk again")
		}
	}
}

// prove holds every stream against what was there a moment ago, and notes how far
// they are. What is noted is one look old: by then it is certainly on the disk.
func (k *keeper) prove(ctx context.Context) {
	states, unled, err := k.q.streamStates(ctx)
	if err != nil {
		return // asked again in a moment
	}
	now := map[string]mark{}
	for _, name := range unled {
		if m, ok := k.known[name]; ok {
			now[name] = m // how far it is now, nobody can say
		}
	}
	for name, s := range states {
		if !ours(name) {
			continue
		}
		m := s.mark()
		if isUpdates(name) && s.deleted > 0 {
			if m.Gaps, err = k.gaps(ctx, name, s); err != nil {
				return // asked again in a moment
			}
		}
		now[name] = m
	}
	k.mu.Lock()
	before := k.known
	k.known = now
	k.mu.Unlock()
	var lost []Loss
	for name, m := range before {
		s, ok := now[name]
		switch {
		case !ok && worthKeeping(name):
			lost = append(lost, Loss{Stream: name, From: m.First, To: m.Last, Why: lossGone, Found: time.Now().UTC()})
		case ok && s.Last < m.Last && worthKeeping(name):
			lost = append(lost, Loss{Stream: name, From: s.Last + 1, To: m.Last, Why: lossRegressed, Found: time.Now().UTC()})
		}
	}
	err = k.keepConfigs(now)
	if err == nil {
		err = k.write(before, lost)
	}
	if err != nil {
		k.q.log.Warn().Err(err).Msg("the high-water marks cannot be written; trying on")
		return
	}
	k.mu.Lock()
	k.now.Proved = time.Now().UTC()
	k.mu.Unlock()
}

// gaps lists what holds nothing in a stream of updates.
func (k *keeper) gaps(ctx context.Context, name string, s streamState) (spans, error) {
	key := s
	key.last = 0 // what is added at the end leaves no gap
	if h, ok := k.holes[name]; ok && h.at == key {
		return h.seqs, nil
	}
	seqs, err := k.q.holesOf(ctx, name)
	if err == nil {
		k.holes[name] = knownHoles{at: key, seqs: seqs}
	}
	return seqs, err
}

// write stores the marks, and what was found to be lost.
func (k *keeper) write(before map[string]mark, lost []Loss) error {
	for _, l := range lost {
		k.q.log.Error().Str("stream", l.Stream).Uint64("from", l.From).Uint64("to", l.To).Str("why", l.Why).Msg("what was confirmed is gone")
	}
	k.mu.Lock()
	k.now.Losses = append(k.now.Losses, lost...)
	k.mu.Unlock()
	if k.marks == nil {
		return nil
	}
	return k.marks.change(func(m *marks) {
		m.At = time.Now().UTC()
		m.Losses = append(m.Losses, lost...)
		if len(before) > 0 {
			m.Clean = false
		}
		for name, now := range before {
			m.Streams[name] = now
		}
		for _, l := range lost {
			was := m.Streams[l.Stream]
			was.Gone = l.Why == lossGone // through the server, and told
			m.Streams[l.Stream] = was
		}
	})
}

// keepConfigs keeps a copy of the configuration of each stream whose file agrees
// with its checksum.
func (k *keeper) keepConfigs(streams map[string]mark) error {
	if k.srv == nil {
		return nil
	}
	st := k.srv.store
	changed := maps.Clone(st.configs)
	some := false
	for name := range streams {
		meta, err := os.ReadFile(filepath.Join(st.path(name), metaFile))
		if err != nil || encrypted(st.path(name)) || string(meta) == string(changed[name]) {
			continue
		}
		sum, err := os.ReadFile(filepath.Join(st.path(name), metaSum))
		if err == nil && string(sum) == metaChecksum(meta, name) {
			changed[name], some = meta, true
		}
	}
	if !some {
		return nil
	}
	if err := writeSealed(st.dir+configsSuffix, changed); err != nil {
		return fmt.Errorf("queue: copies of the configurations: %w", err)
	}
	st.configs = changed
	return nil
}

// try stores a trial message again and again.
func (k *keeper) try(ctx context.Context) {
	for sleep(ctx, trialEach) {
		if k.down() {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, min(k.q.timeout, trialEach))
		_, err := k.q.publish(limited, nats.NewMsg(canarySubject))
		cancel()
		if errors.Is(err, nats.ErrNoResponders) {
			if _, absent := k.q.info(ctx, canaryStream); errors.Is(absent, ErrNotSetUp) {
				err = nil // there is nothing to try yet
			}
		} else if err == nil {
			k.mu.Lock()
			k.now.Stored = time.Now().UTC()
			k.mu.Unlock()
		}
		if ctx.Err() != nil {
			return
		}
		k.tried(err)
	}
}

func (k *keeper) tried(err error) {
	k.mu.Lock()
	before := k.trial
	k.trial = err
	k.misses++
	if err == nil {
		k.misses = 0
	}
	n := k.misses
	k.mu.Unlock()
	switch {
	case err != nil && before == nil:
		k.q.log.Error().Err(err).Msg("a trial message could not be stored")
	case err == nil && before != nil:
		k.q.log.Info().Msg("trial messages are stored again")
	}
	if n >= maxMisses && k.srv != nil {
		k.fail(fmt.Sprintf("%d trial messages in a row could not be stored: %v", n, err), false)
	}
}
