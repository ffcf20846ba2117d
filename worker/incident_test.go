package worker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crmsync/contact"
	"crmsync/crm/evance"
	"crmsync/crm/perfex"
	"crmsync/emulator"
)

// badDay is a lane with a real client before an emulated CRM, in virtual
// time: what it did on a bad day stands in the CRM's own ledger.
type badDay struct {
	*world
	crm       *emulator.CRM
	born      time.Time
	producers sync.WaitGroup
}

const incidentTimeout = 10 * time.Second

// onABadDay runs a test with each vendor's client.
func onABadDay(t *testing.T, o emulator.Options, f func(w *badDay)) {
	for _, vendor := range []string{"perfex", "evance"} {
		t.Run(vendor, func(t *testing.T) { withCRM(t, vendor, o, f) })
	}
}

func withCRM(t *testing.T, vendor string, o emulator.Options, f func(w *badDay)) {
	synctest.Test(t, func(t *testing.T) {
		// A bubble begins in 2000, when what X-RateLimit-Reset says was still too small
		// to be taken for a time.
		time.Sleep(time.Until(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)))
		o.Contacts, o.Seed = 10_000, 1
		if vendor != "perfex" {
			o.Mode = ""
		}
		w := &badDay{world: newWorld(t), born: time.Now()}
		w.crm = map[string]func(emulator.Options) *emulator.CRM{"perfex": emulator.NewPerfex, "evance": emulator.NewEvance}[vendor](o)
		link := emulator.Serve(w.crm)
		tr := &http.Transport{DialContext: link.Dial, DisableCompression: true, IdleConnTimeout: 4 * time.Second, MaxIdleConnsPerHost: 16}
		defer func() {
			w.killAll()
			tr.CloseIdleConnections()
			w.crm.Close()
			link.Close()
		}()
		w.o.Sender, w.o.Rules = vendorClient(t, vendor, tr)
		w.o.Timeout = incidentTimeout
		w.o.Quota = Quota{Rate: 10, Burst: 2, Concurrency: 4}
		f(w)
		w.killAll()
		for _, v := range emulator.Stale(w.crm.Ledger()) {
			t.Errorf("stale: %s", v)
		}
		if o.Limits.PerHour > 0 {
			return // a sliding window claims its whole length and frees requests all the time (crm-apis A7)
		}
		for _, v := range emulator.Impatient(w.crm.Ledger(), 0) {
			t.Errorf("impatient: %s", v)
		}
	})
}

func vendorClient(t *testing.T, vendor string, tr http.RoundTripper) (Sender, contact.Rules) {
	base := &url.URL{Scheme: "http", Host: "crm.test"}
	if vendor == "perfex" {
		c, err := perfex.New(perfex.Options{
			Base: base, Permissions: []int{1}, Timeout: incidentTimeout, Transport: tr,
			Token: func() (string, error) { return emulator.DefaultToken, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		return c, c.Rules()
	}
	c, err := evance.New(evance.Options{
		Base: base, API: evance.API1, Timeout: incidentTimeout, Transport: tr,
		Credentials: func() (evance.Credentials, error) {
			return evance.Credentials{
				Account: emulator.DefaultAccount, ClientID: emulator.DefaultClientID, PrivateKey: emulator.DefaultPrivateKey,
			}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, c.Rules()
}

// send publishes an update of the contact's first name that says its number.
func (w *badDay) send(id int, class contact.Class, more ...string) *stored {
	doc := map[string]any{}
	for _, f := range more {
		doc[f] = "1"
	}
	w.q.mu.Lock()
	n := len(w.q.byNumber)
	w.q.mu.Unlock()
	doc["firstname"] = fmt.Sprintf("Bob #%d#", n+1)
	raw, err := json.Marshal(doc)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.q.publishRaw(contact.Update{Contact: contact.Key{Target: "shop", ID: strconv.Itoa(id)}, Class: class}, raw)
}

// trickle publishes an update of another contact each time, in the background.
func (w *badDay) trickle(first, n int, every time.Duration) {
	w.producers.Go(func() {
		for i := range n {
			w.send(first+i, contact.Live)
			time.Sleep(every)
		}
	})
}

// over waits until everything is published and has its outcome.
func (w *badDay) over(r *running, within time.Duration) {
	w.t.Helper()
	w.producers.Wait()
	r.settleAll(within)
}

// calm checks what every incident promises: nobody is dead for it, no attempt
// was burnt.
func (w *badDay) calm() {
	w.t.Helper()
	for _, u := range w.q.byNumber {
		e := w.q.outcome(u)
		if u.again != nil {
			continue
		}
		if e.Outcome != contact.Applied && e.Outcome != contact.Unchanged {
			w.t.Fatalf("update %d ended %s %s: %s", u.n, e.Outcome, e.Reason, e.Detail)
		}
		if e.Attempts > 1 {
			w.t.Errorf("update %d: %d attempts were burnt", u.n, e.Attempts)
		}
	}
}

// requests counts what arrived in a span counted from birth.
func (w *badDay) requests(from, to time.Duration) []emulator.Entry {
	var out []emulator.Entry
	for _, e := range w.crm.Ledger() {
		if d := e.Arrived.Sub(w.born); d >= from && d < to {
			out = append(out, e)
		}
	}
	return out
}

const greedyOf = "9999" // the contact that somebody else asks about

// greedy is somebody else who spends the CRM's quota, n times, refused or not.
func (w *badDay) greedy(n int, every time.Duration) {
	link := emulator.Serve(w.crm)
	client := link.Client()
	w.producers.Go(func() {
		defer link.Close()
		defer client.CloseIdleConnections()
		for range n {
			req, err := http.NewRequest(http.MethodGet, "http://crm.test/api/contacts/1/"+greedyOf, http.NoBody)
			if err != nil {
				w.t.Error(err)
				return
			}
			req.Header.Set("authtoken", emulator.DefaultToken)
			if resp, err := client.Do(req); err == nil {
				resp.Body.Close()
			}
			time.Sleep(every)
		}
	})
}

// ours is what of it was not somebody else's.
func ours(entries []emulator.Entry) []emulator.Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e emulator.Entry) bool { return e.Contact == greedyOf })
}

// refused counts our requests, and those that the CRM refused for its quota.
func (w *badDay) refused() (refused, total int) {
	all := ours(w.crm.Ledger())
	for _, e := range all {
		if e.Status == http.StatusUnauthorized || e.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	return refused, len(all)
}

func writes(entries []emulator.Entry) (n int) {
	for _, e := range entries {
		if e.Operation == emulator.OpUpdate {
			n++
		}
	}
	return n
}

// healed checks that from an instant on the lane came back by itself: its first
// success soon, 25 of them and its full rate within two minutes. It tells the
// incident's figures, of which begins is where the lane had noticed it.
func (w *badDay) healed(begins, at, first time.Duration) {
	w.t.Helper()
	var applied []time.Duration
	for _, e := range w.requests(at, at+time.Hour) {
		if e.Applied {
			applied = append(applied, e.Arrived.Sub(w.born)-at)
		}
	}
	if len(applied) < 25 {
		w.t.Fatalf("%d applied in the hour after the healing", len(applied))
	}
	full, during := w.fullRate(at), w.requests(begins, at)
	w.tell("%d requests of which %d writes in %s of it; first success %s after the healing, 25th %s, full rate %s",
		len(during), writes(during), at-begins, round(applied[0]), round(applied[24]), round(full))
	if applied[0] > first {
		w.t.Errorf("the first success came %s after the healing, want %s at most", applied[0], first)
	}
	if applied[24] > 2*time.Minute || full > 2*time.Minute {
		w.t.Errorf("the 25th success came %s after the healing, the full rate %s", applied[24], full)
	}
}

// fullRate is how long after an instant ten seconds began in which nine tenths of
// the rate were used.
func (w *badDay) fullRate(at time.Duration) time.Duration {
	const span = 10 * time.Second
	entries := w.requests(at, 24*time.Hour)
	want := int(0.9 * w.o.Quota.Rate * span.Seconds())
	for i := range entries {
		if j := i + want - 1; j < len(entries) && entries[j].Arrived.Sub(entries[i].Arrived) < span {
			return entries[i].Arrived.Sub(w.born) - at
		}
	}
	return 24 * time.Hour
}

// tell logs what an incident cost; `make incidents` lists these lines.
func (w *badDay) tell(format string, args ...any) {
	w.t.Helper()
	ended, dead, recalled, burnt := 0, 0, 0, 0
	for _, u := range w.q.byNumber {
		if u.again != nil {
			recalled++
			continue
		}
		e := w.q.outcome(u)
		ended++
		burnt += max(0, e.Attempts-1)
		if e.Outcome == contact.Dead {
			dead++
		}
	}
	w.t.Logf("figures: %s: %d updates, %d dead, %d recalled, %d attempts burnt; %s", w.t.Name(), ended, dead, recalled, burnt, fmt.Sprintf(format, args...))
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }

func TestIncidentOutage(t *testing.T) {
	for name, fault := range map[string]emulator.Fault{
		"dropped":  {Kind: emulator.Outage},
		"503":      {Kind: emulator.Outage, Status: 503},
		"redirect": {Kind: emulator.Redirect, URL: "https://elsewhere.test/login"},
		"login":    {Kind: emulator.Garbage, Body: emulator.LoginPage},
		"black":    {Kind: emulator.Latency, Min: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			onABadDay(t, emulator.Options{}, func(w *badDay) {
				const begins, ends = time.Minute, 31 * time.Minute
				fault.From, fault.To = begins, ends
				w.crm.SetFaults(emulator.Faults{fault})
				r := w.start()
				w.trickle(1, 1000, 2*time.Second)
				time.Sleep(30 * time.Minute)
				st := r.status()
				if st.Hold == nil || st.Hold.Reason != HoldOutage || len(st.Hold.Evidence) != maxEvidence {
					t.Fatalf("hold %+v", st.Hold)
				}
				w.over(r, 2*time.Hour)
				w.calm()
				during := w.requests(begins+2*time.Minute, ends)
				// A probe each 15 s on average, less its own time-out.
				if len(during) > 29*60/8 || len(during) < 29 {
					t.Errorf("%d requests in the last 29 minutes of the outage", len(during))
				}
				if n := writes(during); n != 0 {
					t.Errorf("%d of the probes were writes", n)
				}
				w.healed(begins+2*time.Minute, ends, probeOutageMax+incidentTimeout)
				if n := r.l.stats.Holds[HoldOutage]; n != 1 {
					t.Errorf("%d holds for one outage", n)
				}
			})
		})
	}
}

func TestIncidentDeadToken(t *testing.T) {
	for _, newSecret := range []bool{false, true} {
		t.Run(fmt.Sprintf("new secret %v", newSecret), func(t *testing.T) {
			onABadDay(t, emulator.Options{}, func(w *badDay) {
				const begins, ends = time.Minute, 11 * time.Minute
				w.crm.SetFaults(emulator.Faults{{Kind: emulator.DeadToken, From: begins, To: ends}})
				var changed atomic.Bool
				w.o.SecretChanged = func() bool { return changed.Swap(false) }
				r := w.start()
				w.trickle(1, 1000, time.Second)
				first := probeCredentials + time.Second
				if newSecret {
					time.Sleep(ends)
					changed.Store(true)
					first = 2 * time.Second
				}
				w.over(r, 2*time.Hour)
				w.calm()
				during := w.requests(begins+10*time.Second, ends)
				if n := len(during); n < 15 || n > 100 || writes(during) != 0 {
					t.Errorf("%d requests, %d of them writes, during 10 min of a dead token", n, writes(during))
				}
				w.healed(begins+10*time.Second, ends, first)
			})
		})
	}
}

func TestIncidentForbidden(t *testing.T) {
	onABadDay(t, emulator.Options{}, func(w *badDay) {
		const begins, ends = time.Minute, 31 * time.Minute
		w.crm.SetFaults(emulator.Faults{{Kind: emulator.Forbidden, Operation: emulator.OpUpdate, From: begins, To: ends}})
		r := w.start()
		w.trickle(1, 1000, time.Second)
		w.over(r, 3*time.Hour)
		w.calm()
		if n := writes(w.requests(begins+10*time.Second, ends)); n > 7 {
			t.Errorf("%d writes during 30 min of a missing permission: the CRM blocks the address at 20 in 15 min", n)
		}
		w.healed(begins+10*time.Second, ends, probeForbidden+time.Second)
	})
}

// A base address that leads to nothing of ours is an outage, whatever page it
// answers with; one that leads to another installation is a storm.
func TestIncidentWrongAddress(t *testing.T) {
	t.Run("no such page", func(t *testing.T) {
		onABadDay(t, emulator.Options{}, func(w *badDay) {
			w.crm.SetFaults(emulator.Faults{{Kind: emulator.ServerError, Status: 404, To: 10 * time.Minute}})
			r := w.start()
			w.trickle(1, 1000, time.Second)
			w.over(r, 2*time.Hour)
			w.calm()
			w.healed(time.Minute, 10*time.Minute, probeOutageMax+time.Second)
		})
	})
	for name, kind := range map[string]emulator.Kind{"no such contact": emulator.NoContacts, "refused": emulator.Refusing} {
		t.Run(name, func(t *testing.T) {
			onABadDay(t, emulator.Options{}, func(w *badDay) {
				const ends = 10 * time.Minute
				w.crm.SetFaults(emulator.Faults{{Kind: kind, To: ends}})
				r := w.start()
				w.trickle(1, 1000, time.Second)
				time.Sleep(ends - time.Second)
				st := r.status()
				if st.Hold == nil || st.Hold.Reason != HoldStorm || st.Hold.Cause == nil || st.Hold.Contacts != DefaultStormAfter {
					t.Fatalf("hold %+v", st.Hold)
				}
				if dead := st.Counts.Outcomes[contact.Dead]; dead > DefaultStormAfter || int(dead) != len(st.Hold.Letters) {
					t.Errorf("%d dead letters, %d to be recalled", dead, len(st.Hold.Letters))
				}
				if n := writes(w.requests(time.Minute, ends)); n > 40 {
					t.Errorf("%d writes during the storm", n)
				}
				w.producers.Wait()
				r.wait(2 * time.Hour)
				if got := r.status().Counts; got.Recalled == 0 || got.Holds[HoldStorm] != 1 {
					t.Errorf("counts %+v", got)
				}
				r.end()
				w.calm()
				w.healed(time.Minute, ends, probeStormMax+time.Second)
			})
		})
	}
}

// Perfex's hourly quota is spent, by us or by somebody else.
func TestIncidentQuotaSpent(t *testing.T) {
	for name, headers := range map[string]bool{"said": true, "hidden": false} {
		t.Run(name, func(t *testing.T) {
			withCRM(t, "perfex", emulator.Options{Limits: emulator.Limits{PerHour: 500, NoHeaders: !headers}}, func(w *badDay) {
				w.o.Quota = Quota{Rate: 4, Burst: 2, Concurrency: 4}
				r := w.start()
				w.trickle(1, 1000, time.Second) // needs 2,000 requests: four hours
				w.over(r, 12*time.Hour)
				w.calm()
				refused, total := w.refused()
				w.tell("%d of %d requests refused, done after %s", refused, total, round(time.Since(w.born)))
				if headers && refused > 0 || refused*20 > total {
					t.Errorf("%d of %d requests were refused", refused, total)
				}
			})
		})
	}
}

func TestIncidentQuotaEatenByAnother(t *testing.T) {
	withCRM(t, "perfex", emulator.Options{Limits: emulator.Limits{PerHour: 1000}}, func(w *badDay) {
		w.o.Quota = Quota{Rate: 4, Burst: 2, Concurrency: 4, Windows: []WindowLimit{{Span: time.Hour, Limit: 1000}}}
		w.greedy(800, 2*time.Second)
		r := w.start()
		w.trickle(1, 600, time.Second)
		w.over(r, 12*time.Hour)
		w.calm()
		refused, total := w.refused()
		w.tell("%d of our %d requests refused, done after %s", refused, total, round(time.Since(w.born)))
		if refused*20 > total {
			t.Errorf("%d of %d requests were refused", refused, total)
		}
	})
}

// Somebody else spends all of a quota by the minute that the CRM tells of. What it
// refuses then says nothing of our rate: once the other is gone all is used at once.
func TestIncidentMinuteEatenByAnother(t *testing.T) {
	for name, fixed := range map[string]bool{"sliding": false, "fixed": true} {
		t.Run(name, func(t *testing.T) {
			withCRM(t, "perfex", emulator.Options{Limits: emulator.Limits{PerHour: 60, Window: time.Minute, FixedWindow: fixed}}, func(w *badDay) {
				w.o.Quota = Quota{Rate: 4, Burst: 2, Concurrency: 4}
				const gone = 5 * time.Minute
				w.greedy(4*300, time.Second/4)
				for i := range 600 {
					w.send(1+i, contact.Live)
				}
				r := w.start()
				w.over(r, 2*time.Hour)
				w.calm()
				used := len(ours(w.requests(gone+time.Minute, gone+6*time.Minute)))
				refused, total := w.refused()
				w.tell("%d of our %d requests refused; %d of 300 used in the five minutes from one after the other was gone", refused, total, used)
				if used < 285 {
					t.Errorf("%d of 300 were used", used)
				}
				if refused > 6 {
					t.Errorf("%d of our requests were refused", refused)
				}
			})
		})
	}
}

// Of twenty answers one is lost: nobody is dead for it, and no mail goes out
// twice.
func TestIncidentLostAnswers(t *testing.T) {
	onABadDay(t, emulator.Options{}, func(w *badDay) {
		w.crm.SetFaults(emulator.Faults{{Kind: emulator.LostAnswer, Operation: emulator.OpUpdate, Probability: 0.05}})
		_, perfexs := w.o.Sender.(*perfex.Client)
		r := w.start()
		for i := range 1000 {
			var more []string
			if perfexs && i%5 == 0 {
				more = []string{"send_set_password_email"}
			}
			w.send(1+i, contact.Live, more...)
		}
		w.over(r, time.Hour)
		lost, resolved := 0, 0
		for _, e := range w.crm.Ledger() {
			if e.Fault == string(emulator.LostAnswer) {
				lost++
			}
		}
		for _, u := range w.q.byNumber {
			e := w.q.outcome(u)
			if e.Outcome != contact.Applied && e.Outcome != contact.Unchanged {
				t.Errorf("update %d ended %s %s: %s", u.n, e.Outcome, e.Reason, e.Detail)
			}
			if e.Resolved != contact.Unlost {
				resolved++
			}
		}
		if lost < 25 || resolved != lost {
			t.Errorf("%d answers were lost, %d outcomes say how that was resolved", lost, resolved)
		}
		mails := map[string]int{}
		for _, m := range w.crm.Mails() {
			if mails[m.Contact]++; mails[m.Contact] > 1 {
				t.Errorf("contact %s was sent %d mails", m.Contact, mails[m.Contact])
			}
		}
		if perfexs && len(mails) != 200 {
			t.Errorf("%d contacts were sent a mail, want 200", len(mails))
		}
		w.tell("%d answers lost, all resolved; %d mails, none twice", lost, len(w.crm.Mails()))
	})
}

// A contact that alone fails with 500 for ever comes to its end, and nobody
// else is slower for it.
func TestIncidentPoison(t *testing.T) {
	onABadDay(t, emulator.Options{}, func(w *badDay) {
		const poison = 9000
		p99 := map[bool]time.Duration{}
		for _, sick := range []bool{false, true} {
			plan := emulator.Faults{{Kind: emulator.Latency, Min: 20 * time.Millisecond, Max: 400 * time.Millisecond}}
			if sick {
				plan = append(plan, emulator.Fault{Kind: emulator.PoisonContact, Contact: strconv.Itoa(poison)})
			}
			w.crm.SetFaults(plan)
			from := len(w.q.byNumber)
			r := w.start()
			bad := w.send(poison, contact.Live)
			w.trickle(1+len(w.q.byNumber), 3000, 300*time.Millisecond)
			w.over(r, time.Hour)
			var took []time.Duration
			for _, u := range w.q.byNumber[from:] {
				if u != bad {
					took = append(took, w.q.outcome(u).Ended.Sub(u.update.Stored))
				}
			}
			slices.Sort(took)
			p99[sick] = took[len(took)*99/100]
			if e := w.q.outcome(bad); sick && (e.Outcome != contact.Dead || e.Reason != contact.Exhausted || e.Attempts != DefaultAttempts) {
				t.Errorf("the contact that fails for ever ended %s %s after %d attempts", e.Outcome, e.Reason, e.Attempts)
			}
		}
		w.tell("p99 of the others %s, %s without the contact that fails", p99[true].Round(time.Millisecond), p99[false].Round(time.Millisecond))
		if p99[true] > p99[false]*11/10 {
			t.Errorf("p99 of the others is %s, %s without the contact that fails", p99[true], p99[false])
		}
	})
}
