package worker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crmsync/contact"
	"crmsync/crm"
)

func TestUnmergeFindsTheCulprit(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota.Rate = 100
		var all []*stored
		for i := range 16 {
			f := fmt.Sprintf("f%d", i)
			if i == 11 {
				f += "=bad"
			}
			all = append(all, w.q.publish("c1", contact.Live, f, "shared"))
		}
		r := w.start()
		r.wait(time.Minute)
		for i, u := range all {
			if i == 11 {
				wantOutcome(t, w, u, contact.Dead, contact.Invalid)
			} else {
				wantOutcome(t, w, u, contact.Applied, contact.NoReason)
			}
		}
		if n := len(w.m.callsOf("c1")); n > 10 {
			t.Errorf("%d calls to find one of 16", n)
		}
		if st := r.status(); st.Counts.Unmerged != 4 || st.Counts.Dead[contact.Invalid] != 1 {
			t.Errorf("counts %+v", st.Counts)
		}
		r.end()
	})
}

func TestUnmergeFindsSeveralCulprits(t *testing.T) {
	inBubble(t, func(w *world) {
		w.o.Quota.Rate = 100
		bad := map[int]string{0: "=bad", 5: "=taken", 6: "=bad", 15: "=bad"}
		var all []*stored
		for i := range 16 {
			all = append(all, w.q.publish("c1", contact.Live, fmt.Sprintf("f%d%s", i, bad[i]), "shared"))
		}
		w.start().settleAll(time.Minute)
		for i, u := range all {
			switch bad[i] {
			case "":
				wantOutcome(t, w, u, contact.Applied, contact.NoReason)
			case "=taken":
				wantOutcome(t, w, u, contact.Dead, contact.Conflict)
			default:
				wantOutcome(t, w, u, contact.Dead, contact.Invalid)
			}
		}
		if got := w.m.field("c1", "shared"); got != all[14].n {
			t.Errorf("shared is of update %d, want that of the newest that counts, %d", got, all[14].n)
		}
	})
}

// The newest update is refused, and its path falls to one that was accepted
// with another path before.
func TestPathFallsToAnUpdateThatWasThroughAlready(t *testing.T) {
	inBubble(t, func(w *world) {
		u1 := w.q.publish("c1", contact.Live, "a", "b")
		u2 := w.q.publish("c1", contact.Live, "b", "x=bad")
		u3 := w.q.publish("c1", contact.Live, "c")
		w.start().settleAll(time.Minute)
		wantOutcome(t, w, u1, contact.Applied, contact.NoReason)
		wantOutcome(t, w, u2, contact.Dead, contact.Invalid)
		wantOutcome(t, w, u3, contact.Applied, contact.NoReason)
		for path, want := range map[string]int{"a": u1.n, "b": u1.n, "c": u3.n, "x": -1} {
			if got := w.m.field("c1", path); got != want {
				t.Errorf("%s is of update %d, want %d", path, got, want)
			}
		}
	})
}

func TestAllRefused(t *testing.T) {
	inBubble(t, func(w *world) {
		u1 := w.q.publish("c1", contact.Live, "a=bad")
		u2 := w.q.publish("c1", contact.Bulk, "a=bad", "b")
		u3 := w.q.publish("c1", contact.Live, "a=taken")
		w.start().settleAll(time.Minute)
		wantOutcome(t, w, u1, contact.Dead, contact.Invalid)
		wantOutcome(t, w, u2, contact.Dead, contact.Invalid)
		wantOutcome(t, w, u3, contact.Dead, contact.Conflict)
	})
}

func TestMissingKillsTheWholeTake(t *testing.T) {
	inBubble(t, func(w *world) {
		var all []*stored
		for i := range 5 {
			all = append(all, w.q.publish("c1", contact.Live, fmt.Sprintf("f%d=gone", i)))
		}
		w.start().settleAll(time.Minute)
		for _, u := range all {
			wantOutcome(t, w, u, contact.Dead, contact.Missing)
		}
		if n := len(w.m.callsOf("c1")); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
	})
}

func TestAloneIsNeverMerged(t *testing.T) {
	inBubble(t, func(w *world) {
		w.q.publish("c1", contact.Live, "a")
		w.q.publish("c1", contact.Live, "b")
		w.q.publish("c1", contact.Live, "mail", "a")
		w.q.publish("c1", contact.Live, "mail")
		w.q.publish("c1", contact.Live, "a")
		w.q.publish("c1", contact.Live) // bad: takes its place, is no reason to part
		w.q.publish("c1", contact.Live, "b")
		w.start().settleAll(time.Minute)
		calls := w.m.callsOf("c1")
		var got []int
		for _, c := range calls {
			got = append(got, c.change.Updates)
			if _, mail := c.change.Fields.Get("mail"); mail && c.change.Updates != 1 {
				t.Errorf("%d updates with a side effect in one call", c.change.Updates)
			}
		}
		if fmt.Sprint(got) != "[2 1 1 2]" {
			t.Errorf("calls of %v updates", got)
		}
	})
}

func TestSideEffectIsNotRepeatedAfterUnknown(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			f := fine
			switch c.n {
			case 0:
				f.answer = crm.Answer{Verdict: contact.VerdictTransient, Status: 503}
			case 1:
				f.answer, f.apply = crm.Answer{Verdict: contact.VerdictUnknown}, true
			case 2:
				f.answer = crm.Answer{Verdict: contact.VerdictThrottled, Status: 429}
			}
			return f
		}
		mail := w.q.publish("c1", contact.Live, "mail", "a")
		next := w.q.publish("c1", contact.Live, "mail")
		w.start().settleAll(time.Hour)
		calls := w.m.callsOf("c1")
		var maybe []bool
		for _, c := range calls {
			maybe = append(maybe, c.change.MaybeSent)
		}
		// Not after the clean failure, ever after the unknown one, and not for the next update.
		if fmt.Sprint(maybe) != "[false false true true false]" {
			t.Errorf("MaybeSent by call: %v", maybe)
		}
		if w.m.mailsOf(mail) != 1 || w.m.mailsOf(next) != 1 {
			t.Errorf("mails %v, want one each", w.m.mails)
		}
	})
}

// A refusal of the first owner's merge must not lead to less in the CRM than a
// crashed owner had written: the new owner's calls start from the newest.
func TestUnmergeAfterTakeover(t *testing.T) {
	inBubble(t, func(w *world) {
		for range 8 {
			w.q.publish("c1", contact.Live, "a", "b")
		}
		w.q.delay = time.Hour // applied, not stored
		r := w.start()
		time.Sleep(2 * time.Second)
		r.s.lose()
		<-r.done
		w.q.delay = 0
		w.q.publish("c1", contact.Live, "c=bad", "a")
		if w.m.field("c1", "a") != 7 {
			t.Fatal("the first owner was to have written")
		}
		w.start().settleAll(time.Minute)
		if w.m.field("c1", "a") != 7 || len(w.m.over) > 0 {
			t.Errorf("a is of update %d; %v", w.m.field("c1", "a"), w.m.over)
		}
	})
}

// What must go alone parts the updates before it from those behind it at the
// same place for every owner, however live and bulk arrive.
func TestOrderAcrossClasses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type key struct {
			class contact.Class
			seq   uint64
		}
		var streams [contact.Classes][]*contact.Update
		at := time.Unix(1000, 0)
		for range rapid.IntRange(1, 12).Draw(t, "n") {
			at = at.Add(time.Duration(rapid.IntRange(0, 1).Draw(t, "gap")) * time.Second)
			c := contact.Class(rapid.IntRange(0, 1).Draw(t, "class"))
			streams[c] = append(streams[c], &contact.Update{Class: c, Seq: uint64(len(streams[c]) + 1), Stored: at})
		}
		arrive := func(name string) (out []key) {
			var s slot
			rest := streams
			for len(rest[0])+len(rest[1]) > 0 {
				c := rapid.IntRange(0, 1).Draw(t, name)
				if len(rest[c]) == 0 {
					c = 1 - c
				}
				s.insert(rest[c][0])
				rest[c] = rest[c][1:]
			}
			for i, u := range s.pending {
				if i > 0 && !u.Mark().After(s.pending[i-1].Mark()) {
					t.Fatalf("update %d is not newer than the one before", i)
				}
				out = append(out, key{u.Class, u.Seq})
			}
			return out
		}
		if a, b := arrive("a"), arrive("b"); !slices.Equal(a, b) {
			t.Fatalf("%v, and %v", a, b)
		}
	})
}

// A culprit stays found, though what is left of its take fails and is retried.
func TestDeadStaysDeadOverARetry(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			if c.n == 1 {
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		good := w.q.publish("c1", contact.Live, "a")
		bad := w.q.publish("c1", contact.Live, "a=bad")
		w.start().settleAll(time.Hour)
		wantOutcome(t, w, good, contact.Applied, contact.NoReason)
		wantOutcome(t, w, bad, contact.Dead, contact.Invalid)
		if n := len(w.m.callsOf("c1")); n != 3 {
			t.Errorf("%d calls, want 3: refused, failed, applied", n)
		}
	})
}
