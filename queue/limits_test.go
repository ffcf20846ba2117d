package queue

import (
	"errors"
	"slices"
	"testing"
	"time"

	"crmsync/contact"
)

// quiet says that Next has nothing to say for a while.
func quiet(t *testing.T, s *Source, class contact.Class) {
	t.Helper()
	if d := next(t, s, class, 200*time.Millisecond); d != nil {
		t.Fatalf("nothing was due and came: %+v", d.Update)
	}
}

func caughtUp(t *testing.T, s *Source, class contact.Class) {
	t.Helper()
	if d := next(t, s, class, 5*time.Second); d == nil || d.Update != nil {
		t.Fatalf("the word that it caught up was due: %+v", d)
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	q.limits.window = 10
	for i := range 30 {
		publish(t, q, update("office", i, contact.Live, i))
	}
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Live, 10)
	caughtUp(t, s, contact.Live) // as much as may be out
	quiet(t, s, contact.Live)
	settle(t, s, contact.Applied, us[7])
	if got := take(t, s, contact.Live, 1); got[0].Seq != 11 {
		t.Errorf("got %v", seqs(got))
	}
	quiet(t, s, contact.Live)
	caughtUp(t, s, contact.Bulk) // the other class is not held up
}

func TestWindowOfBytes(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	q.limits.bytes = 60
	for i := range 9 {
		publish(t, q, update("office", i, contact.Live, i)) // 18 bytes each
	}
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Live, 4)
	caughtUp(t, s, contact.Live)
	quiet(t, s, contact.Live)
	settle(t, s, contact.Applied, us[0])
	take(t, s, contact.Live, 1)
	quiet(t, s, contact.Live)
}

func TestSpan(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	q.limits.span = 10
	for i := range 30 {
		publish(t, q, update("office", i, contact.Live, i))
	}
	s := own(t, q, "office").source(t)
	us := take(t, s, contact.Live, 10)
	caughtUp(t, s, contact.Live)
	for _, u := range us[1:] {
		settle(t, s, contact.Applied, u)
	}
	quiet(t, s, contact.Live) // the first holds all up
	settle(t, s, contact.Applied, us[0])
	if got := take(t, s, contact.Live, 10); got[9].Seq != 20 {
		t.Errorf("got %v", seqs(got))
	}
	quiet(t, s, contact.Live)
}

// Contacts that were forgotten are known again by their records.
func TestForgottenContacts(t *testing.T) {
	q := setUp(t, "office")
	q.limits.idle = 2
	s := own(t, q, "office").source(t)
	for i := range 30 {
		publish(t, q, update("office", i%6, contact.Live, i))
		settle(t, s, contact.Applied, take(t, s, contact.Live, 1)...)
	}
	s.mu.Lock()
	n := len(s.contacts)
	s.mu.Unlock()
	if n > 3 {
		t.Errorf("%d contacts are kept", n)
	}
	if got := allRecords(t, q, Filter{}); len(got) != 30 {
		t.Errorf("%d records", len(got))
	}
}

// A reading that passes over an update must not make it count as ended.
func TestPassedOverIsNotFinished(t *testing.T) {
	q := setUp(t, "office")
	s := own(t, q, "office").source(t)
	for i := range 5 {
		publish(t, q, update("office", i, contact.Live, i))
	}
	r := &reading{class: contact.Live, stream: streamName("office", contact.Live), items: make(chan item, 10), kick: make(chan struct{}, 1), moved: make(chan struct{})}
	m := inMsg{subject: "crm.update.office.live.9", data: []byte(`{}`), seq: 4}
	if err := s.take(r, m); !errors.Is(err, errBroken) {
		t.Errorf("took 4 while 1 is there: %v", err)
	}
	if r.read != 0 || r.floor.at != 0 {
		t.Errorf("read %d, floor %d", r.read, r.floor.at)
	}
}

func TestReadingRecords(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office", "shop")
	l := own(t, q, "office", "shop")
	byTarget := map[string]*Source{}
	for range 2 {
		s := l.source(t)
		byTarget[s.Target()] = s
	}
	begin := time.Now()
	follow, stop := contextWithCancel(t)
	live := make(chan uint64, 20)
	followed := make(chan error, 1)
	go func() {
		followed <- q.FollowJob(follow, "office", "j", func(r Record) error {
			for _, u := range r.Updates {
				live <- u.Seq
			}
			return nil
		})
	}()
	for i := range 12 {
		target := []string{"office", "shop"}[i%2]
		u := update(target, i/2%3, contact.Bulk, i)
		if i%3 == 0 {
			u.Job, u.Row = "j", int64(i+1)
		}
		publish(t, q, u)
		st := settlement(contact.Applied, take(t, byTarget[target], contact.Bulk, 1)...)
		if i >= 8 {
			st.Ended[0].Ending.Outcome = contact.Dead
			st.Ended[0].Ending.Reason = []contact.Reason{contact.Conflict, contact.Missing}[i%2]
		}
		if err := byTarget[target].Settle(t.Context(), st); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		f    Filter
		want []uint64
	}{
		"all":           {Filter{}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		"target":        {Filter{Target: "office"}, []uint64{1, 3, 5, 7, 9, 11}},
		"contact":       {Filter{Target: "shop", Contact: "1"}, []uint64{4, 10}},
		"outcome":       {Filter{Outcome: contact.Dead}, []uint64{9, 10, 11, 12}},
		"reason":        {Filter{Reason: contact.Conflict}, []uint64{9, 11}},
		"job":           {Filter{Job: "j"}, []uint64{1, 4, 7, 10}},
		"after, limit":  {Filter{After: 5, Limit: 2}, []uint64{6, 7}},
		"since":         {Filter{Since: begin, Target: "shop"}, []uint64{2, 4, 6, 8, 10, 12}},
		"since later":   {Filter{Since: time.Now().Add(time.Hour)}, nil},
		"until":         {Filter{Until: begin}, nil},
		"until later":   {Filter{Until: time.Now().Add(time.Hour), Job: "j", Outcome: contact.Dead}, []uint64{10}},
		"nobody":        {Filter{Contact: "77"}, nil},
		"no such job":   {Filter{Job: "-"}, nil},
		"other outcome": {Filter{Outcome: contact.Cancelled}, nil},
	} {
		var got []uint64
		for _, r := range allRecords(t, q, c.f) {
			got = append(got, r.Seq)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if n, err := q.Count(t.Context(), c.f); err != nil || n != int64(len(c.want)) {
			t.Errorf("%s: counted %d, %v", name, n, err)
		}
	}
	for _, want := range []uint64{1, 4} { // updates of office with the job
		select {
		case got := <-live:
			if got != want {
				t.Errorf("followed %d, want %d", got, want)
			}
		case <-time.After(5 * time.Second):
			t.Error("the job was not followed")
		}
	}
	stop()
	if err := <-followed; err == nil {
		t.Error("following ended without the context's error")
	}
	dead, err := q.Dead(t.Context())
	if err != nil || dead["office"][contact.Conflict] != 2 || dead["shop"][contact.Missing] != 2 || len(dead) != 2 {
		t.Errorf("dead: %v, %v", dead, err)
	}
	failing := errors.New("enough of it")
	if err := q.Records(t.Context(), Filter{}, func(Record) error { return failing }); !errors.Is(err, failing) {
		t.Errorf("yield's error became %v", err)
	}
	if _, err := q.Record(t.Context(), 999); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent record: %v", err)
	}
	if err := q.Records(t.Context(), Filter{Target: "a.b"}, nil); err == nil {
		t.Error("a filter with a bad target")
	}
	st, err := q.Stats(t.Context())
	if err != nil || len(st) != 2 || st[1].Target != "shop" || st[1].Session == "" || st[1].Class[contact.Bulk].Last != 6 {
		t.Errorf("stats %+v, %v", st, err)
	}
}

func TestReadyTellsWhatTheServerRefuses(t *testing.T) {
	q := setUp(t, "office")
	q.complain(errors.New("permissions violation"))
	if err := q.Ready(t.Context()); err == nil {
		t.Error("ready in spite of a refused permission")
	}
	q.complain(nil)
	if err := q.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}
