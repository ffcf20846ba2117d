package worker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"crmsync/contact"
)

func wantOutcome(t *testing.T, w *world, r *stored, o contact.Outcome, reason contact.Reason) {
	t.Helper()
	e := w.q.outcome(r)
	if e.Outcome != o || e.Reason != reason {
		t.Errorf("update %d (%s %s): %s %q, want %s %q", r.n, r.update.Contact.ID, r.update.Class, e.Outcome, e.Reason, o, reason)
	}
}

func TestLateMerge(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota.Rate = 0.1 // a token each 10 s
		r := w.start()
		first := w.q.publish("c1", contact.Live, "a")
		time.Sleep(9 * time.Second)
		last := w.q.publish("c1", contact.Live, "a", "b") // arrives while the token is awaited
		r.settleAll(time.Minute)
		calls := w.m.callsOf("c1")
		if len(calls) != 1 || calls[0].change.Updates != 2 {
			t.Fatalf("calls %+v, want one of two updates", calls)
		}
		wantOutcome(t, w, first, contact.Superseded, contact.NoReason)
		wantOutcome(t, w, last, contact.Applied, contact.NoReason)
		if e := w.q.outcome(last); e.Merged != 2 || e.Attempts != 1 || e.Call == "" || len(e.Tries) != 1 || e.Status != 200 ||
			!slices.Equal(e.Fields, []string{"a", "b"}) || e.Ended.IsZero() {
			t.Errorf("ending %+v", e)
		}
	})
}

func TestWhatArrivesDuringACallGoesWithTheNext(t *testing.T) {
	inBubble(t, func(w *world) {
		r := w.start()
		w.m.plan = func(*crmCall) fate { f := fine; f.latency = 5 * time.Second; return f }
		w.q.publish("c1", contact.Live, "a")
		time.Sleep(time.Second)
		w.q.publish("c1", contact.Live, "a")
		w.q.publish("c1", contact.Bulk, "b")
		r.settleAll(time.Minute)
		if calls := w.m.callsOf("c1"); len(calls) != 2 || calls[1].change.Updates != 2 {
			t.Errorf("calls %+v, want two, the second of two updates", calls)
		}
	})
}

func TestOneBusyContactDelaysNobody(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 100, Concurrency: 8}
		w.o.Window = 50000
		for i := range 10000 {
			w.q.publish("busy", contact.Live, "a")
			w.q.publish(fmt.Sprintf("c%d", i), contact.Live, "a")
		}
		began := time.Now()
		r := w.start()
		r.settleAll(time.Hour)
		if n := len(w.m.callsOf("busy")); n > 3 {
			t.Errorf("%d calls for the busy contact", n)
		}
		if took := time.Since(began); took > 102*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestLiveBeforeBulkWithAFloor(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 100, Concurrency: 1}
		for i := range 100 {
			w.q.publish(fmt.Sprintf("b%d", i), contact.Bulk, "a")
			w.q.publish(fmt.Sprintf("l%d", i), contact.Live, "a")
		}
		r := w.start()
		r.settleAll(time.Hour)
		calls := w.m.callsOf("")
		bulk := 0
		for _, c := range calls[:100] {
			if c.change.Contact.ID[0] == 'b' {
				bulk++
			}
		}
		if bulk != 10 {
			t.Errorf("%d of the first 100 calls are bulk, want 10", bulk)
		}
		for i, c := range calls[:100] { // one in each ten, not ten in a row
			if (i%10 == 9) != (c.change.Contact.ID[0] == 'b') {
				t.Fatalf("call %d is for %s", i, c.change.Contact.ID)
			}
		}
	})
}

func TestLiveOvertakesBulk(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 1, Concurrency: 1}
		// The window is one, so that the older bulk updates of c1 reach the
		// lane only after the newer live one has settled.
		w.o.Window = 1
		w.q.publish("first", contact.Bulk, "a")
		old1 := w.q.publish("c1", contact.Bulk, "a", "b")
		old2 := w.q.publish("c1", contact.Bulk, "a")
		time.Sleep(time.Second)
		live := w.q.publish("c1", contact.Live, "a", "c")
		w.start().settleAll(time.Minute)
		wantOutcome(t, w, live, contact.Applied, contact.NoReason)
		wantOutcome(t, w, old1, contact.Applied, contact.NoReason)
		wantOutcome(t, w, old2, contact.Superseded, contact.NoReason)
		calls := w.m.callsOf("c1")
		if len(calls) != 2 || !slices.Equal(calls[1].change.Fields.Names(), []string{"b"}) {
			t.Errorf("calls %+v: the older bulk update must keep only b, the other needs no call", calls)
		}
		if n := w.m.field("c1", "a"); n != live.n {
			t.Errorf("a is of update %d, want %d", n, live.n)
		}
	})
}

func TestSupersededNeedsNoToken(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota = Quota{Rate: 1, Concurrency: 1}
		w.o.Window = 1
		w.q.publish("first", contact.Bulk, "a")
		w.q.publish("c1", contact.Bulk, "a")
		time.Sleep(time.Second)
		w.q.publish("c1", contact.Live, "a")
		r := w.start()
		r.wait(time.Minute)
		if st := r.status(); st.Counts.Calls != 2 || st.Counts.Outcomes[contact.Superseded] != 1 {
			t.Errorf("counts %+v", st.Counts)
		}
		r.end()
	})
}

func TestVersions(t *testing.T) {
	inBubble(t, func(w *world) {
		r := w.start()
		v5 := w.q.publishVersion("c1", contact.Live, 5, "a", "b")
		r.wait(time.Minute)
		v3 := w.q.publishVersion("c1", contact.Live, 3, "a", "c") // late
		r.wait(time.Minute)
		v2 := w.q.publishVersion("c1", contact.Live, 2, "a")
		v6 := w.q.publishVersion("c1", contact.Live, 6, "b")
		r.settleAll(time.Minute)
		for _, x := range []struct {
			r *stored
			o contact.Outcome
		}{{v5, contact.Applied}, {v3, contact.Applied}, {v2, contact.Superseded}, {v6, contact.Applied}} {
			wantOutcome(t, w, x.r, x.o, contact.NoReason)
		}
		for path, want := range map[string]int{"a": v5.n, "b": v6.n, "c": v3.n} {
			if got := w.m.field("c1", path); got != want {
				t.Errorf("%s is of update %d, want %d", path, got, want)
			}
		}
	})
}

func TestBadUpdateKeepsItsPlace(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Check = func(u *contact.Update) *contact.BadUpdate {
			if _, ok := u.Fields.Get("never"); ok {
				return &contact.BadUpdate{Reason: contact.Invalid, Field: "never", Detail: "not here"}
			}
			return nil
		}
		u1 := w.q.publish("c1", contact.Live, "a")
		u2 := w.q.publish("c1", contact.Live) // malformed
		u3 := w.q.publish("c1", contact.Live, "never", "a")
		u4 := w.q.publish("c1", contact.Live, "b")
		lone := w.q.publish("c2", contact.Live)
		r := w.start()
		r.settleAll(time.Minute)
		wantOutcome(t, w, u1, contact.Applied, contact.NoReason)
		wantOutcome(t, w, u2, contact.Dead, contact.Malformed)
		wantOutcome(t, w, u3, contact.Dead, contact.Invalid)
		wantOutcome(t, w, u4, contact.Applied, contact.NoReason)
		wantOutcome(t, w, lone, contact.Dead, contact.Malformed)
		if calls := w.m.callsOf(""); len(calls) != 1 {
			t.Errorf("%d calls, want 1", len(calls))
		}
		if e := w.q.outcome(u3); e.Detail == "" || e.Call != "" || !slices.Equal(e.Fields, []string{"a", "never"}) {
			t.Errorf("ending %+v", e)
		}
	})
}

func TestEmptyObjectEndsUnchanged(t *testing.T) {
	inBubble(t, func(w *world) {
		u := contact.Update{Contact: contact.Key{Target: "shop", ID: "c1"}}
		r := w.q.publishUpdate(u, "x")
		p, err := contact.ParsePatch([]byte(`{"addr":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		r.update.Fields = p
		w.start().settleAll(time.Minute)
		wantOutcome(t, w, r, contact.Unchanged, contact.NoReason)
		if n := len(w.m.callsOf("")); n != 0 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestUnchanged(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(*crmCall) fate { return fails(contact.VerdictUnchanged, 200) }
		u := w.q.publish("c1", contact.Live, "a")
		w.m.contacts["c1"] = &crmContact{fields: map[string]string{"a": "c1#0#"}}
		w.start().settleAll(time.Minute)
		wantOutcome(t, w, u, contact.Unchanged, contact.NoReason)
	})
}
