package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/crm"
)

// landing is a call whose answer never comes and that takes effect so long after it
// was given up.
func landing(after time.Duration) fate {
	f := fails(contact.VerdictUnknown, 0)
	f.apply, f.late = true, after
	return f
}

// nth has one call of a contact meet a fate, every other be fine.
func (w *world) nth(id string, n int, f fate) {
	w.m.plan = func(c *crmCall) fate {
		if c.change.Contact.ID == id && c.n == n {
			return f
		}
		return fine
	}
}

// givenUp publishes an update whose call is given up, as the plan must have it, and
// once it waits for its retry a newer one of the same fields.
func (w *world) givenUp(fields ...string) (r *running, newer *stored) {
	w.o.Retry.Base = time.Millisecond
	w.q.publish("c1", contact.Live, fields...)
	r = w.start()
	time.Sleep(170 * time.Millisecond)
	return r, w.q.publish("c1", contact.Live, fields...)
}

// comesLate starts a lane whose first call is given up and takes effect a minute later.
func (w *world) comesLate(fields ...string) *running {
	w.nth("c1", 0, landing(time.Minute))
	w.q.publish("c1", contact.Live, fields...)
	return w.start()
}

// putRight checks that the contact holds an update for good, though an older one came
// over it.
func (w *world) putRight(u *stored) {
	w.t.Helper()
	time.Sleep(5 * time.Minute)
	w.mended(time.Minute)
	if n := w.m.field("c1", "a"); n != u.n {
		w.t.Errorf("it holds update %d, want %d", n, u.n)
	}
}

// mended checks that one older value was put over a newer one, and for how long.
func (w *world) mended(most time.Duration) {
	w.t.Helper()
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if len(w.m.over) != 1 {
		w.t.Fatalf("%d older values came over newer ones: %+v", len(w.m.over), w.m.over)
	}
	if o := w.m.over[0]; !o.late || o.mended.IsZero() || o.mended.Sub(o.at) > most {
		w.t.Errorf("it stood from %s to %s, %s is allowed", o.at.Format(time.StampMilli), o.mended.Format(time.StampMilli), most)
	}
}

// Whatever becomes of the first repairs, one comes in time, though nothing else
// happens in the lane any more.
func TestRepairIsTriedAgain(t *testing.T) {
	throttled := fails(contact.VerdictThrottled, 429)
	throttled.answer.Wait = 7 * time.Second
	refused := fails(contact.VerdictInvalid, 409)
	refused.answer.Reason = contact.Invalid
	down := fails(contact.VerdictTransient, 503)
	down.answer.Incident = true
	for name, f := range map[string]fate{
		"throttled": throttled, "refused": refused, "down": down,
		"unauthorized": fails(contact.VerdictUnauthorized, 401), "500": fails(contact.VerdictTransient, 500),
	} {
		for _, reads := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " reads ", reads), func(t *testing.T) {
				inBubble(t, func(w *world) {
					born := time.Now()
					w.m.plan = func(c *crmCall) fate {
						switch {
						case c.n == 0:
							return landing(100 * time.Second)
						case c.change.Repair && time.Since(born) < 45*time.Second:
							return f
						}
						return fine
					}
					if reads {
						w.o.Sender = prober{crmModel: w.m, reads: new([]time.Time), read: func() crm.Answer {
							if time.Since(born) < 45*time.Second {
								return f.answer
							}
							return crm.Answer{Verdict: contact.VerdictUnchanged, Status: 200, Requests: 1}
						}}
					}
					w.o.OutageAfter = 3
					r, _ := w.givenUp("a")
					time.Sleep(5 * time.Minute)
					w.mended(time.Minute)
					if st := r.status(); st.Hold != nil {
						t.Errorf("it still holds: %+v", st.Hold)
					}
					if n := len(w.m.callsOf("c1")); n > 20 {
						t.Errorf("%d calls", n)
					}
					r.end()
				})
			})
		}
	}
}

// A repair may come late itself, and then over what is newer than that.
func TestRepairThatComesLate(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			switch {
			case c.n == 0:
				return landing(time.Second)
			case c.change.Repair && c.n == 3: // the second, after a minute
				return landing(100 * time.Second)
			}
			return fine
		}
		r, _ := w.givenUp("a")
		time.Sleep(140 * time.Second) // what the first call may bring is over, the repair still on its way
		last := w.q.publish("c1", contact.Live, "a")
		time.Sleep(10 * time.Minute)
		if n := w.m.field("c1", "a"); n != last.n {
			t.Errorf("it holds update %d, want %d", n, last.n)
		}
		r.end()
	})
}

// A newer update that fails first and is refused then leaves what was written before
// it as what must stand.
func TestRepairBehindARefusedUpdate(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			switch v := flat(c.change.Fields)["a"]; {
			case c.n == 0:
				return landing(100 * time.Second)
			case strings.HasSuffix(v, "#bad") && c.change.Updates > 0 && len(w.m.calls) < 3:
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		r, good := w.givenUp("a")
		time.Sleep(time.Second)
		w.q.publish("c1", contact.Live, "a=bad")
		w.putRight(good)
		r.end()
	})
}

// A request that timed out is carried out long after newer values were written:
// they are put on top again within a minute.
func TestLateRequestIsPutRight(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 20 * time.Second, time.Minute, 110 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.nth("c1", 0, landing(after))
				w.o.Retry = Retry{Base: time.Millisecond}
				w.q.publish("c1", contact.Live, "a", "addr.x")
				r := w.start()
				time.Sleep(170 * time.Millisecond) // it is given up, and will be tried again
				u := w.q.publish("c1", contact.Live, "a", "addr.y")
				r.wait(time.Minute)
				w.putRight(u)
				calls := w.m.callsOf("c1")
				for _, c := range calls[2:] {
					if f := flat(c.change.Fields); !c.change.Repair || len(f) != 1 || number(f["a"]) != u.n {
						t.Errorf("a repair of %v; only a was written twice", f)
					}
				}
				if st := r.status(); st.Counts.Repairs != int64(len(calls)-2) || st.Counts.Repairs < 3 || st.Contacts != 0 {
					t.Errorf("%d repairs of %d calls, %d contacts are left", st.Counts.Repairs, len(calls), st.Contacts)
				}
				time.Sleep(time.Hour)
				if n := len(w.m.callsOf("c1")); n != len(calls) {
					t.Errorf("%d more calls when nothing could come any more", n-len(calls))
				}
				r.end()
				if len(r.l.doubts)+len(r.l.contested)+len(r.l.repairs) > 0 {
					t.Error("something is still in doubt")
				}
			})
		})
	}
}

// The same over a takeover: the call was the former owner's.
func TestLateRequestOfAFormerOwnerIsPutRight(t *testing.T) {
	inBubble(t, func(w *world) {
		r := w.comesLate("a")
		time.Sleep(120 * time.Millisecond)
		r.s.lose()
		r.kill()
		<-r.done
		u := w.q.publish("c1", contact.Live, "a")
		w.o.Inherited = true
		r = w.start()
		r.wait(time.Minute)
		w.putRight(u)
		r.end()
	})
}

// What is only supposed of a former owner is not handed on as known: a third would take
// all that it writes there for contested.
func TestSuppositionIsNotHandedOn(t *testing.T) {
	inBubble(t, func(w *world) {
		w.q.publish("c1", contact.Live, "a")
		w.o.Inherited = true
		r := w.start()
		r.wait(time.Minute)
		r.end()
		if len(r.l.doubts) != 1 || len(r.l.Memory().Late) != 0 {
			t.Errorf("%d doubts, handed on %v", len(r.l.doubts), r.l.Memory().Late)
		}
	})
}

// And over a handover in good order: the former owner says which paths may still be
// written, not what would stand there.
func TestLateRequestOutlivesAHandover(t *testing.T) {
	inBubble(t, func(w *world) {
		r := w.comesLate("a")
		time.Sleep(170 * time.Millisecond)
		r.end()
		raw, err := json.Marshal(r.l.Memory())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(raw), `"late":[{"id":"c1","paths":["a"],"until":`; !strings.Contains(got, want) {
			t.Fatalf("memory %s, want %s in it", got, want)
		}
		w.o.Memory = Memory{}
		if err := json.Unmarshal(raw, &w.o.Memory); err != nil {
			t.Fatal(err)
		}
		w.q.publish("c2", contact.Live, "a")
		u := w.q.publish("c1", contact.Live, "a")
		r = w.start()
		r.wait(time.Minute)
		w.putRight(u)
		calls := len(w.m.callsOf("c1"))
		r.end()
		if late := r.l.Memory().Late; len(late) != 0 {
			t.Errorf("nothing can come any more, and kept is %v", late)
		}
		// What can come no more is not taken over, and not for longer than it may last.
		w.o.Memory.Late = append(w.o.Memory.Late, LateWrite{ID: "c2", Paths: []string{"a"}, Until: time.Now().Add(time.Hour)})
		w.q.publish("c1", contact.Live, "a")
		w.q.publish("c2", contact.Live, "a")
		r = w.start()
		r.wait(time.Minute)
		time.Sleep(30 * time.Minute)
		if n := len(w.m.callsOf("c1")); n != calls+1 {
			t.Errorf("%d calls behind %d", n, calls)
		}
		if n := len(w.m.callsOf("c2")); n < 3 || n > 6 {
			t.Errorf("%d calls of a contact that something may reach for two minutes", n)
		}
		r.end()
	})
}

// Of many only those are kept that can come last.
func TestLateKeptIsBounded(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(*crmCall) fate { return fails(contact.VerdictUnknown, 0) }
		w.o.Quota = Quota{Rate: 1000, Burst: 10, Concurrency: 10}
		w.o.OutageAfter = 10_000
		for i := range 2 * maxLateKept {
			w.q.publish(fmt.Sprintf("c%03d", i), contact.Live, "a")
		}
		r := w.start()
		time.Sleep(time.Minute)
		r.end()
		late := r.l.Memory().Late
		if len(late) != maxLateKept {
			t.Fatalf("%d are kept", len(late))
		}
		for _, d := range r.l.doubts {
			if kept := slices.ContainsFunc(late, func(w LateWrite) bool { return w.ID == d.key.ID }); !kept && d.until().After(late[len(late)-1].Until) {
				t.Fatalf("%s is not kept, though it can come last", d.key.ID)
			}
		}
	})
}

// What nothing older can change is not written again: neither the same values, nor
// other fields, nor anything after an owner who ended in good order.
func TestNoNeedlessRepair(t *testing.T) {
	quiet := func(w *world, calls int) {
		w.t.Helper()
		time.Sleep(10 * time.Minute)
		if n := len(w.m.callsOf("c1")); n != calls {
			w.t.Errorf("%d calls, want %d", n, calls)
		}
	}
	t.Run("same values", func(t *testing.T) {
		inBubble(t, func(w *world) {
			r := w.comesLate("a")
			r.wait(time.Minute)
			quiet(w, 2)
			r.end()
		})
	})
	t.Run("other fields", func(t *testing.T) {
		inBubble(t, func(w *world) {
			r := w.comesLate("a", "addr.x")
			r.wait(time.Minute)
			w.q.publish("c1", contact.Live, "b", "addr.y")
			r.wait(time.Minute)
			quiet(w, 3)
			r.end()
		})
	})
	t.Run("good order", func(t *testing.T) {
		inBubble(t, func(w *world) {
			w.q.publish("c1", contact.Live, "a")
			w.q.publish("c1", contact.Live, "a")
			r := w.start()
			r.wait(time.Minute)
			quiet(w, 1)
			r.end()
		})
	})
	t.Run("a side effect", func(t *testing.T) {
		inBubble(t, func(w *world) {
			r := w.comesLate("mail")
			r.wait(time.Minute)
			w.q.publish("c1", contact.Live, "mail")
			r.wait(time.Minute)
			time.Sleep(10 * time.Minute)
			if st := r.status(); st.Counts.Repairs != 0 {
				t.Errorf("%d repairs", st.Counts.Repairs)
			}
			r.end()
		})
	})
}

// A lane that holds repairs nothing until it may send again, and a repair that
// fails is made again.
func TestRepairsWaitForHolds(t *testing.T) {
	inBubble(t, func(w *world) {
		failed := 0
		w.m.plan = func(c *crmCall) fate {
			switch {
			case c.n == 0:
				return landing(time.Minute)
			case c.change.Repair && failed < 2:
				failed++
				return fails(contact.VerdictTransient, 500)
			}
			return fine
		}
		r, u := w.givenUp("a")
		r.wait(time.Minute)
		r.l.Steer(w.t.Context(), Orders{Hold: true})
		time.Sleep(10 * time.Minute)
		if n := len(w.m.callsOf("c1")); n != 2 {
			t.Errorf("%d calls of a lane that is held", n)
		}
		r.l.Steer(w.t.Context(), Orders{})
		time.Sleep(time.Minute)
		if n := w.m.field("c1", "a"); n != u.n || failed != 2 {
			t.Errorf("it holds update %d, want %d; %d repairs failed", n, u.n, failed)
		}
		r.end()
	})
}

// A repair takes the turn of a contact that waits for its retry, which it then
// waits for again; and it never brings back what the retry may have written.
func TestRepairBesideARetry(t *testing.T) {
	inBubble(t, func(w *world) {
		w.m.plan = func(c *crmCall) fate {
			switch {
			case c.change.Repair:
			case c.n == 0:
				return landing(90 * time.Second)
			case number(flat(c.change.Fields)["b"]) == 2:
				f := fails(contact.VerdictUnknown, 0)
				f.apply = true // at once, and nobody hears of it
				f.answer.Wait = 20 * time.Second
				return f
			}
			return fine
		}
		w.o.Retry.Attempts = 6
		r, _ := w.givenUp("a", "b", "c")
		r.wait(time.Minute)
		u := w.q.publish("c1", contact.Live, "b", "c") // the third, given up in the end
		time.Sleep(2 * time.Second)
		if st := r.status(); st.Retrying != 1 {
			t.Errorf("%d wait for a retry", st.Retrying)
		}
		time.Sleep(15 * time.Second)
		if st := r.status(); st.Counts.Repairs != 0 || st.Retrying != 1 {
			t.Errorf("%d repairs though the CRM wants nothing for this contact", st.Counts.Repairs)
		}
		r.wait(10 * time.Minute)
		if e := w.q.outcome(u); e.Reason != contact.Exhausted || e.Attempts != 6 {
			t.Errorf("%+v", e)
		}
		for _, c := range w.m.callsOf("c1") {
			if f := flat(c.change.Fields); c.change.Repair && (len(f) != 1 || number(f["a"]) != 1) {
				t.Errorf("a repair wrote %v", f)
			}
		}
		if st := r.status(); st.Counts.Repairs == 0 {
			t.Error("nothing was put on top again")
		}
		time.Sleep(5 * time.Minute)
		r.end()
	})
}

// A process that was stopped between deciding on a call and making it makes none
// when it wakes.
func TestNoCallAfterTheLease(t *testing.T) {
	inBubble(t, func(w *world) {
		r := w.start()
		r.end()
		sent := false
		l := r.l
		l.o.Sender = senderFunc(func() []crm.Answer { sent = true; return nil })
		l.o.Source = leaseOf(time.Now().Add(l.o.Timeout - time.Millisecond))
		var res result
		l.send(w.t.Context(), &res, contact.Change{})
		if sent || res.cut == nil || res.ans.Verdict != contact.VerdictTransient {
			t.Errorf("sent %v, %+v", sent, res)
		}
	})
}

// leaseOf is a source that has nothing but a lease.
type leaseOf time.Time

func (l leaseOf) Lease() time.Time { return time.Time(l) }
func (leaseOf) Next(ctx context.Context, _ contact.Class) (contact.Delivery, error) {
	<-ctx.Done()
	return contact.Delivery{}, ctx.Err()
}
func (leaseOf) Settle(context.Context, contact.Settlement) error { return nil }
func (leaseOf) Recall(context.Context, []contact.Ref) ([]contact.Ref, error) {
	return nil, nil
}
func (leaseOf) Fence(string) contact.Fence { return nil }
