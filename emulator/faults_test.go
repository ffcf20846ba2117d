package emulator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs f against a Perfex of 12 contacts over real HTTP in virtual
// time. put sends one update of contact 6 and gives the client a minute.
func bubble(t *testing.T, o Options, f func(t *testing.T, c *CRM, put func(title string) (answer, error))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.Contacts = 12
		c := NewPerfex(o)
		link := Serve(c)
		defer link.Close()
		defer c.Close()
		client := link.Client()
		f(t, c, func(title string) (answer, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, "PUT", "http://crm.test/api/contacts/6", strings.NewReader(putBody(6, `"title":"`+title+`"`)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("authtoken", DefaultToken)
			res, err := client.Do(r)
			if err != nil {
				return answer{}, err
			}
			defer res.Body.Close()
			b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
			return answer{res.StatusCode, res.Header, string(b)}, err
		})
	})
}

// TestFaults is the table of kinds: what the caller sees and whether the
// update was applied.
func TestFaults(t *testing.T) {
	const noErr, dropped = "", "EOF"
	tests := []struct {
		name    string
		fault   Fault
		err     string
		status  int // in the ledger: 0 when the caller got no whole answer
		applied bool
		check   func(t *testing.T, a answer, took time.Duration)
	}{
		{"server error", Fault{Kind: ServerError}, noErr, 500, false, isHTML},
		{"server error of a kind", Fault{Kind: ServerError, Status: 504, RetryAfter: RetrySeconds, RetryIn: 7 * time.Second}, noErr, 504, false, hasHeader("Retry-After", "7")},
		{"server error after the work", Fault{Kind: ServerError, Status: 502, Apply: true}, noErr, 502, true, isHTML},
		{"too many", Fault{Kind: TooMany}, noErr, 429, false, hasHeader("Retry-After", "")},
		{"too many, seconds", Fault{Kind: TooMany, RetryAfter: RetrySeconds}, noErr, 429, false, hasHeader("Retry-After", "30")},
		{"too many, date", Fault{Kind: TooMany, RetryAfter: RetryDate, RetryIn: time.Minute}, noErr, 429, false, hasHeader("Retry-After", "Sat, 01 Jan 2000 00:01:00 GMT")},
		{"too many, garbage", Fault{Kind: TooMany, RetryAfter: RetryGarbage}, noErr, 429, false, hasHeader("Retry-After", "in a while")},
		{"lost answer", Fault{Kind: LostAnswer}, dropped, 0, true, nil},
		{"reset before", Fault{Kind: ResetBefore}, dropped, 0, false, nil},
		{"dead token", Fault{Kind: DeadToken}, noErr, 404, false, hasText("Token is not found")},
		{"forbidden", Fault{Kind: Forbidden}, noErr, 403, false, hasText("necessay")},
		{"module off", Fault{Kind: ModuleOff}, noErr, 401, false, hasText("API Module is not active")},
		{"no contacts", Fault{Kind: NoContacts}, noErr, 409, false, hasText("Doesn't Not Exist")},
		{"refusing", Fault{Kind: Refusing}, noErr, 409, false, hasText("valid email")},
		{"refusing reads nothing", Fault{Kind: Refusing, Operation: OpRead}, noErr, 200, true, nil},
		{"noise", Fault{Kind: Garbage}, noErr, 200, false, hasText("garbage")},
		{"login page", Fault{Kind: Garbage, Body: LoginPage}, noErr, 200, false, isHTML},
		{"truncated JSON", Fault{Kind: Garbage, Body: Truncated}, noErr, 200, false, hasText(`"mess`)},
		{"empty", Fault{Kind: Garbage, Body: Empty, Status: 202}, noErr, 202, false, hasText("")},
		{"wrong JSON", Fault{Kind: Garbage, Body: WrongJSON}, noErr, 200, false, hasText("weather")},
		{"a failure that says success", Fault{Kind: Garbage, Body: Failure}, noErr, 200, false, hasText(`"status":false`)},
		{"garbage after the work", Fault{Kind: Garbage, Apply: true}, noErr, 200, true, nil},
		{"slow body", Fault{Kind: SlowBody, Interval: 100 * time.Millisecond}, noErr, 200, true, tookAbout(100 * time.Millisecond * 56)},
		{"cut body", Fault{Kind: CutBody}, "unexpected EOF", 0, true, nil},
		{"outage", Fault{Kind: Outage}, dropped, 0, false, nil},
		{"outage with a page", Fault{Kind: Outage, Status: 503}, noErr, 503, false, isHTML},
		{"redirect", Fault{Kind: Redirect, URL: "https://evil.test/"}, noErr, 302, false, hasHeader("Location", "https://evil.test/")},
		{"redirect of a kind", Fault{Kind: Redirect, URL: "https://evil.test/", Status: 307}, noErr, 307, false, nil},
		{"poison", Fault{Kind: PoisonContact, Contact: "6"}, noErr, 500, false, isHTML},
		{"poison of another", Fault{Kind: PoisonContact, Contact: "7"}, noErr, 200, true, nil},
		{"lie", Fault{Kind: Lie}, noErr, 200, false, hasText("Contact Updated Successfully")},
		{"latency", Fault{Kind: Latency, Min: 5 * time.Second}, noErr, 200, true, tookAbout(5 * time.Second)},
		{"another operation", Fault{Kind: Outage, Operation: OpRead}, noErr, 200, true, nil},
		{"this operation", Fault{Kind: Outage, Operation: OpUpdate, Status: 503}, noErr, 503, false, nil},
		{"not yet", Fault{Kind: Outage, From: time.Second}, noErr, 200, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, c *CRM, put func(string) (answer, error)) {
				c.SetFaults(Faults{tt.fault})
				start := time.Now()
				a, err := put("#1#")
				took := time.Since(start)
				synctest.Wait()
				if tt.err == noErr && err != nil || tt.err != noErr && (err == nil || !strings.HasSuffix(err.Error(), tt.err)) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				e := lastEntry(t, c)
				if err == nil && a.status != tt.status {
					t.Errorf("answered %d, want %d", a.status, tt.status)
				}
				stored := contact(t, c, "6")["title"] == "#1#"
				hit := map[bool]string{true: string(tt.fault.Kind)}[tt.name != "poison of another" && tt.name != "another operation" && tt.name != "not yet" && tt.name != "refusing reads nothing"]
				if e.Status != tt.status || e.Applied != tt.applied || stored != tt.applied || e.Fault != hit || e.Answered.IsZero() {
					t.Errorf("stored %v, ledger %+v", stored, e)
				}
				if tt.check != nil {
					tt.check(t, a, took)
				}
			})
		})
	}
}

func isHTML(t *testing.T, a answer, _ time.Duration) {
	if !strings.HasPrefix(a.body, "<!DOCTYPE html>") || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("no HTML page: %q", a.body)
	}
}

func hasText(want string) func(*testing.T, answer, time.Duration) {
	return func(t *testing.T, a answer, _ time.Duration) {
		if !strings.Contains(a.body, want) || want == "" && a.body != "" {
			t.Errorf("body %q, want %q", a.body, want)
		}
	}
}

func hasHeader(name, want string) func(*testing.T, answer, time.Duration) {
	return func(t *testing.T, a answer, _ time.Duration) {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func tookAbout(want time.Duration) func(*testing.T, answer, time.Duration) {
	return func(t *testing.T, _ answer, took time.Duration) {
		if took < want || took > want+want/10 {
			t.Errorf("took %v, want about %v", took, want)
		}
	}
}

// TestLateApply is the zombie: the caller gives up, a newer update lands, and
// then the old one.
func TestLateApply(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, c *CRM, put func(string) (answer, error)) {
		c.SetFaults(Faults{{Kind: LateApply, Delay: 90 * time.Second, Count: 1}})
		if _, err := put("#1#"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v, want the caller's own time-out", err)
		}
		if a, err := put("#2#"); err != nil || a.status != 200 {
			t.Fatal(a, err)
		}
		if s := c.Stats(); s.Pending != 1 {
			t.Errorf("stats %+v", s)
		}
		if len(Stale(c.Ledger())) != 0 {
			t.Error("nothing is stale yet")
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if got := contact(t, c, "6")["title"]; got != "#1#" {
			t.Errorf("title %v: the late one must win", got)
		}
		l := c.Ledger()
		if l[0].Seq != 2 || l[1].Seq != 1 || l[0].Status != 0 || !l[0].Applied {
			t.Errorf("ledger %+v", l)
		}
		v := Stale(l)
		if len(v) != 1 || v[0].N != 1 || v[0].Contact != "6" || v[0].Field != "title" {
			t.Errorf("violations %v", v)
		}
	})
}

func TestCloseEndsWaits(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, c *CRM, put func(string) (answer, error)) {
		c.SetFaults(Faults{{Kind: LateApply, Delay: 24 * time.Hour}})
		if _, err := put("#1#"); err == nil {
			t.Fatal("answered")
		}
		c.Close()
		c.Close()
		synctest.Wait()
		if e := lastEntry(t, c); e.Applied || e.Answered.IsZero() {
			t.Errorf("ledger %+v", e)
		}
	})
}

// TestAnswerToNobody: the work is done although the caller has gone, and the
// ledger says that the answer reached no one.
func TestAnswerToNobody(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, c *CRM, put func(string) (answer, error)) {
		c.SetFaults(Faults{{Kind: Latency, Min: 5 * time.Minute}})
		if _, err := put("#1#"); err == nil {
			t.Fatal("answered")
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if e := lastEntry(t, c); !e.Applied || e.Status != 0 || e.Fault != string(Latency) {
			t.Errorf("ledger %+v", e)
		}
	})
}

func TestFaultWindowsAndCounts(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, c *CRM, put func(string) (answer, error)) {
		c.SetFaults(Faults{
			{Kind: ServerError, From: 10 * time.Second, To: 20 * time.Second},
			{Kind: TooMany, From: 30 * time.Second, Count: 2},
		})
		var got []int
		for range 5 {
			a, err := put("T")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, a.status)
			time.Sleep(10 * time.Second)
		}
		// 0 s, 10 s (from counts), 20 s (to does not), 30 s, 40 s
		if !reflect.DeepEqual(got, []int{200, 500, 404, 429, 429}) {
			t.Errorf("statuses %v", got)
		}
		if f := c.Faults(); len(f) != 1 || f[0].Kind != ServerError {
			t.Errorf("the spent rule is still there: %+v", f)
		}
		c.SetFaults(Faults{{Kind: TooMany, Count: 5}})
		if a, _ := put("T"); a.status != 429 || c.Faults()[0].Count != 4 {
			t.Errorf("%d, left %+v", a.status, c.Faults())
		}
		c.SetFaults(nil)
		if a, _ := put("U"); a.status != 200 {
			t.Errorf("on a good day: %d", a.status)
		}
	})
}

func TestFaultsAreSeeded(t *testing.T) {
	run := func(seed uint64) (statuses []int) {
		c := NewPerfex(Options{Contacts: 12, Seed: seed})
		c.SetFaults(Faults{{Kind: ServerError, Probability: 0.3}, {Kind: TooMany, Probability: 0.5}})
		for range 400 {
			statuses = append(statuses, perfexCall(c, "GET", "/api/contacts/2/6", "").status)
		}
		return statuses
	}
	a := run(1)
	if !reflect.DeepEqual(a, run(1)) {
		t.Error("one seed gave two histories")
	}
	if reflect.DeepEqual(a, run(2)) {
		t.Error("two seeds gave one history")
	}
	n := map[int]int{}
	for _, s := range a {
		n[s]++
	}
	// 0.3 and 0.7*0.5 of 400, give or take four standard deviations.
	if n[500] < 84 || n[500] > 156 || n[429] < 102 || n[429] > 178 || n[200] == 0 {
		t.Errorf("frequencies %v", n)
	}
}

func TestLatencyAddsUp(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, c *CRM, put func(string) (answer, error)) {
		c.SetFaults(Faults{{Kind: Latency, Min: time.Second, Max: 2 * time.Second}, {Kind: LostAnswer}, {Kind: Latency, Min: 10 * time.Second}})
		start := time.Now()
		if _, err := put("#1#"); err == nil {
			t.Fatal("answered")
		}
		if took := time.Since(start); took < 11*time.Second || took > 12*time.Second {
			t.Errorf("took %v", took)
		}
		if e := lastEntry(t, c); e.Fault != string(LostAnswer) || !e.Applied {
			t.Errorf("ledger %+v", e)
		}
	})
}

func TestBodiesWithoutEnd(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, c *CRM, put func(string) (answer, error)) {
		c.SetFaults(Faults{{Kind: HugeBody}})
		a, err := put("#1#") // reads one MiB of 64 and closes
		if err != nil || len(a.body) != 1<<20 || a.header.Get("Content-Length") != "" {
			t.Errorf("%d bytes, %v, %v", len(a.body), a.header, err)
		}
		synctest.Wait()
		if e := lastEntry(t, c); e.Status != 0 || !e.Applied {
			t.Errorf("ledger %+v", e)
		}
		c.SetFaults(Faults{{Kind: HugeBody, Size: 1000}})
		if a, err := put("#2#"); err != nil || len(a.body) != 1000 {
			t.Errorf("%d bytes, %v", len(a.body), err)
		}
		c.SetFaults(Faults{{Kind: GzipBomb, Size: 8 << 20}})
		a, err = put("#3#")
		if err != nil || a.header.Get("Content-Encoding") != "gzip" || len(a.body) > 100_000 || !bytes.HasPrefix([]byte(a.body), []byte{0x1f, 0x8b}) {
			t.Errorf("%d bytes, %v, %v", len(a.body), a.header, err)
		}
	})
}

// TestOutageTakesNoQuota: what does not reach the CRM uses up nothing, and
// what the limits refuse does not reach the planned fault.
func TestOutageTakesNoQuota(t *testing.T) {
	bubble(t, Options{Limits: Limits{Rate: 0.01, Burst: 1, RetryAfter: RetrySeconds}}, func(t *testing.T, c *CRM, put func(string) (answer, error)) {
		c.SetFaults(Faults{{Kind: Outage, Count: 3}})
		for range 3 {
			if _, err := put("T"); err == nil {
				t.Fatal("answered")
			}
		}
		c.SetFaults(Faults{{Kind: ServerError}})
		if a, _ := put("T"); a.status != 500 {
			t.Errorf("the first that reaches it: %d", a.status)
		}
		a, _ := put("T")
		if e := lastEntry(t, c); a.status != 429 || e.Fault != "" || e.Wait != 100*time.Second || a.header.Get("Retry-After") != "100" {
			t.Errorf("%d, ledger %+v", a.status, e)
		}
	})
}

func TestValidateFaults(t *testing.T) {
	tests := map[string]string{
		`[{"kind":"outage"},{"kind":"outrage"}]`:              `faults[1]: unknown kind "outrage", want one of latency,`,
		`[{"kind":"outage","probability":1.5}]`:               `faults[0]: probability 1.5 is not within 0..1`,
		`[{"kind":"outage","from":"-1s"}]`:                    `faults[0]: from -1s is negative`,
		`[{"kind":"outage","from":"2s","to":"2s"}]`:           `faults[0]: to 2s is not after from 2s`,
		`[{"kind":"outage","operation":"write"}]`:             `faults[0]: unknown operation "write"`,
		`[{"kind":"outage","count":-1}]`:                      `faults[0]: count -1 is negative`,
		`[{"kind":"outage","status":99}]`:                     `faults[0]: status 99 is not within`,
		`[{"kind":"huge-body","size":-1}]`:                    `faults[0]: size -1 is negative`,
		`[{"kind":"too-many","retry_after":"soon"}]`:          `faults[0]: unknown retry_after "soon"`,
		`[{"kind":"garbage","body":"junk"}]`:                  `faults[0]: unknown body "junk"`,
		`[{"kind":"poison-contact"}]`:                         `faults[0]: kind poison-contact needs a contact`,
		`[{"kind":"latency"}]`:                                `faults[0]: kind latency needs min or max`,
		`[{"kind":"redirect"}]`:                               `faults[0]: kind redirect needs a url`,
		`[{"kind":"redirect","url":"http://x","status":200}]`: `faults[0]: kind redirect needs a 3xx status`,
		`[{"kind":"redirect","url":"http://[x"}]`:             `faults[0]: url: `,
		`[{"kind":"outage","probabilty":1}]`:                  `faults[0]: json: unknown field "probabilty"`,
		`[{"kind":"outage","from":"2 s"}]`:                    `faults[0]: time: unknown unit`,
		`[{"kind":"outage","from":2}]`:                        `faults[0]: `,
		`{"kind":"outage"}`:                                   `faults: want a JSON array`,
		`[] []`:                                               `faults: want a JSON array of rules: data after the end`,
		``:                                                    `faults: want a JSON array`,
	}
	for in, want := range tests {
		if _, err := ParseFaults([]byte(in)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("SetFaults took a plan that Validate refuses")
		}
	}()
	NewPerfex(Options{}).SetFaults(Faults{{Kind: "x"}})
}
