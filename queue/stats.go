package queue

import (
	"context"
	"slices"
	"strings"
	"time"

	"crmsync/contact"
)

// ClassStats is what lies in the stream of one class of a target.
type ClassStats struct {
	First, Last uint64    // sequences; First is the first update that is not known to have ended
	Messages    uint64    // what is stored, updates included that ended behind one that did not
	Bytes       uint64    // of them
	Oldest      time.Time // when the first was stored; zero where there is none
	MaxMessages int64     // quota; below 1: none
	MaxBytes    int64     // quota; below 1: none
}

// TargetStats is the state of a target's streams.
type TargetStats struct {
	Target  string
	Class   [contact.Classes]ClassStats
	Session string // of the owner; "" where there is none
}

// Stats lists all targets that have streams, by name, also those that no process
// serves. An error wraps [ErrUnled] where a cluster cannot say it of all of them.
func (q *Queue) Stats(ctx context.Context) ([]TargetStats, error) {
	owners, err := q.ownerOf(ctx)
	if err != nil {
		return nil, err
	}
	l, err := q.list(ctx, contact.UpdatePrefix+">")
	if err == nil {
		err = l.whole()
	}
	if err != nil {
		return nil, err
	}
	found := map[string]*TargetStats{}
	for _, info := range l.infos {
		for _, subject := range info.Config.Subjects {
			k, c, _ := contact.ParseSubject(strings.TrimSuffix(subject, "*") + "x")
			if k.Target == "" || info.Config.Name != streamName(k.Target, c) {
				continue
			}
			t := found[k.Target]
			if t == nil {
				t = &TargetStats{Target: k.Target, Session: owners[k.Target]}
				found[k.Target] = t
			}
			st := info.State
			t.Class[c] = ClassStats{
				First: st.FirstSeq, Last: st.LastSeq, Messages: st.Msgs, Bytes: st.Bytes, Oldest: st.FirstTime,
				MaxMessages: info.Config.MaxMsgs, MaxBytes: info.Config.MaxBytes,
			}
			if st.Msgs == 0 {
				t.Class[c].Oldest = time.Time{}
			}
		}
	}
	out := make([]TargetStats, 0, len(found))
	for _, t := range found {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b TargetStats) int { return strings.Compare(a.Target, b.Target) })
	return out, nil
}

// Waiting is how many updates lie in a target's streams, those included that
// ended behind one that did not.
func (q *Queue) Waiting(ctx context.Context, target string) (int64, error) {
	n := uint64(0)
	for c := range contact.Class(contact.Classes) {
		info, err := q.info(ctx, streamName(target, c))
		if err != nil {
			return 0, err
		}
		n += info.State.Msgs
	}
	return int64(n), nil
}
