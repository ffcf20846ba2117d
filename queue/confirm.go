package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
)

// streamState is how far a stream is, as its server says.
type streamState struct {
	first, last uint64
	deleted     int // sequences between that hold nothing
}

func (s streamState) mark() mark { return mark{First: s.first, Last: s.last} }

// streamStates asks for all streams at once. unled are those of which nothing is
// known at the moment.
func (q *Queue) streamStates(ctx context.Context) (states map[string]streamState, unled []string, err error) {
	l, err := q.list(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	states = map[string]streamState{}
	for _, info := range l.infos {
		st := info.State
		states[info.Config.Name] = streamState{first: st.FirstSeq, last: st.LastSeq, deleted: st.NumDeleted}
	}
	return states, l.unled, nil
}

// ours says that a stream is one of crmsync's. What else an operator keeps on the
// same servers is none of our business.
func ours(stream string) bool {
	return strings.HasPrefix(stream, "CRM_") || strings.HasPrefix(stream, "KV_crm_")
}

// holesOf lists the sequences of a stream that hold nothing, between its first and
// its last.
func (q *Queue) holesOf(ctx context.Context, stream string) (spans, error) {
	var out struct {
		State struct {
			Deleted []uint64 `json:"deleted"`
		} `json:"state"`
	}
	if err := q.ask(ctx, "STREAM.INFO."+stream, map[string]bool{"deleted_details": true}, &out); err != nil {
		return nil, fmt.Errorf("queue: stream %s: %w", stream, err)
	}
	slices.Sort(out.State.Deleted)
	var holes spans
	for _, seq := range out.State.Deleted {
		holes = holes.add(seq, seq)
	}
	return holes, nil
}

// confirm holds what the server has loaded against the marks, settles what the
// examination of the files suspected, and notes both.
func (q *Queue) confirm(ctx context.Context, states map[string]streamState) error {
	st := q.srv.store
	known := st.marks.read()
	var gone []Loss
	for name, m := range known.Streams {
		if s, ok := states[name]; ok && !m.Gone && s.last < m.Last {
			gone = append(gone, Loss{Stream: name, From: s.last + 1, To: m.Last, Why: lossRegressed})
		}
	}
	if err := st.refuse(gone); err != nil {
		return err
	}
	losses := q.settleSuspicions(ctx, st.open)
	st.open = nil
	for _, l := range losses {
		q.log.Error().Str("stream", l.Stream).Uint64("from", l.From).Uint64("to", l.To).Str("why", l.Why).Str("contact", l.Contact).
			Msg("what was confirmed is missing from the store")
	}
	if st.accept {
		st.accepted = append(known.Losses, losses...)
	}
	return st.marks.change(func(m *marks) {
		m.Clean, m.At = false, time.Now().UTC()
		m.Losses = append(m.Losses, losses...)
		for _, l := range losses {
			if was := m.Streams[l.Stream]; l.Why == lossGone {
				was.Gone = true
				m.Streams[l.Stream] = was
			}
		}
		if st.accept {
			m.Losses = nil
		}
	})
}

// settleSuspicions makes losses of what is suspected. An update whose end a record
// tells of is not missed.
func (q *Queue) settleSuspicions(ctx context.Context, all []suspicion) []Loss {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var out []Loss
	seen := map[string]spans{}
	now := time.Now().UTC()
	for _, s := range all {
		if s.why == lossUnproven {
			out = append(out, Loss{Why: s.why, Found: now})
			continue
		}
		seqs := s.seqs.minus(seen[s.stream])
		seen[s.stream] = seen[s.stream].union(seqs)
		if target, class, ok := targetOf(s.stream); ok && s.why != lossGone {
			ended, err := q.endedAmong(ctx, target, class, seqs)
			if err != nil {
				q.log.Warn().Err(err).Str("stream", s.stream).Msg("records cannot be asked whether what is missing had ended; it is taken for lost")
			}
			if len(ended) > 0 {
				q.log.Warn().Str("stream", s.stream).Str("sequences", ended.String()).Msg("updates that had ended are missing; nothing is lost with them")
			}
			seqs = seqs.minus(ended)
		}
		for _, p := range seqs {
			out = append(out, Loss{Stream: s.stream, From: p.From, To: p.To, Why: s.why, Contact: s.contact, Found: now})
		}
	}
	return out
}

// endedAmong finds which updates have a record.
func (q *Queue) endedAmong(ctx context.Context, target string, class contact.Class, seqs spans) (spans, error) {
	var ended spans
	if len(seqs) == 0 {
		return nil, nil
	}
	err := q.Records(ctx, Filter{Target: target}, func(r Record) error {
		for _, u := range r.Updates {
			if u.Class == class && seqs.has(u.Seq) {
				ended = ended.add(u.Seq, u.Seq)
			}
		}
		return nil
	})
	return ended, err
}

// stopped notes exactly how far each stream is, after its server has stopped in
// order.
func (s *store) stopped() error {
	names, err := streamDirs(s.streams())
	if err != nil {
		return err
	}
	exact := map[string]mark{}
	for _, name := range slices.DeleteFunc(names, func(n string) bool { return !ours(n) }) {
		m, ok, err := s.exact(name)
		if err != nil || !ok {
			return err // the marks stay as they are
		}
		exact[name] = m
	}
	return s.marks.change(func(m *marks) {
		m.Clean, m.At = true, time.Now().UTC()
		for name, now := range exact {
			if was := m.Streams[name]; !was.Gone && now.Last < was.Last {
				m.Clean = false
				continue
			}
			m.Streams[name] = now
		}
	})
}

// exact reads how far a stream is from its files; false where they do not say.
func (s *store) exact(name string) (m mark, ok bool, err error) {
	path := s.path(name)
	if x, ok := readIndex(path, name); ok && x.holds(path) {
		m = mark{First: x.first, Last: x.last}
		if isUpdates(name) && x.first <= x.last {
			live := spans{}
			for _, b := range x.blocks {
				live = live.union(spans{}.add(b.first, b.last).minus(b.deleted))
			}
			m.Gaps = spans{}.add(x.first, x.last).minus(live)
		}
		return m, true, nil
	}
	if folderSize(path) > smallStore {
		return m, false, nil
	}
	d, err := readStream(path, name, nil)
	if err != nil || d.opaque || d.bad() > 0 {
		return m, false, err
	}
	m = mark{First: d.last + 1, Last: d.last}
	if len(d.live) > 0 {
		m.First = d.live[0].From
	}
	if isUpdates(name) && m.First <= m.Last {
		m.Gaps = spans{}.add(m.First, m.Last).minus(d.live)
	}
	return m, true, nil
}
