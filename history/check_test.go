package history

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func load(t testing.TB, path string) []Event {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	events, err := Read(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return events
}

// A history in which all is well breaks nothing, and gives every promise something
// to be held against.
func TestGoodHistory(t *testing.T) {
	r := Check(load(t, "testdata/good.jsonl"))
	if b := r.Violations(); len(b) > 0 {
		t.Errorf("%s", r)
	}
	for _, v := range r.Verdicts {
		if v.Checked == 0 {
			t.Errorf("%s: nothing was checked", v.Invariant)
		}
	}
}

// Each bad history breaks one promise and no other.
func TestBadHistories(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	proven := map[Invariant]bool{}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".jsonl")
		t.Run(name, func(t *testing.T) {
			want, _, _ := strings.Cut(name, "-")
			r := Check(load(t, f))
			broken := r.Broken()
			if len(broken) != 1 || !strings.HasPrefix(string(broken[0]), want+" ") {
				t.Fatalf("broken: %q, want %s alone\n%s", broken, want, r)
			}
			proven[broken[0]] = true
			v := r.Violations()[0]
			if v.Text == "" || v.At.IsZero() {
				t.Errorf("%+v", v)
			}
			text := r.String()
			if !strings.Contains(text, "BROKEN  "+string(broken[0])) || !strings.Contains(text, v.Text) {
				t.Errorf("%s", text)
			}
		})
	}
	for _, i := range invariants {
		if !proven[i.name] {
			t.Errorf("no history breaks %s", i.name)
		}
	}
}

// A violation is told with what happened about it to its contact, and no more.
func TestAround(t *testing.T) {
	r := Check(load(t, "testdata/bad/I4-stale.jsonl"))
	v := r.Violations()[0]
	es := r.Around(v)
	if len(es) < 10 || len(es) > 2*around || !slices.ContainsFunc(es, func(e Event) bool { return e.Kind == Apply && e.Request == 2 && e.At.Equal(v.At) }) {
		t.Errorf("%d events around %+v: %v", len(es), v, es)
	}
	var many []Event
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 100 {
		many = append(many, Event{At: at.Add(time.Duration(i) * time.Second), Kind: Arrive, Target: "shop", Contact: "7", Request: i + 1})
	}
	r.events = many
	if es := r.Around(Violation{At: at.Add(50 * time.Second), Target: "shop", Contact: "7"}); len(es) != 2*around || es[0].Request != 42 || es[19].Request != 61 {
		t.Errorf("%d events, %d to %d", len(es), es[0].Request, es[len(es)-1].Request)
	}
}

// What is written is read again, event by event.
func TestWriteAndRead(t *testing.T) {
	events := load(t, "testdata/good.jsonl")
	for i := range events {
		if i%3 == 0 {
			n := int64(i)
			events[i].Version = &n
		}
	}
	var b bytes.Buffer
	if err := Write(&b, events); err != nil {
		t.Fatal(err)
	}
	again, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(events, again, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}

func TestReadRefuses(t *testing.T) {
	ok := `{"at":"2026-01-01T00:00:00Z","kind":"calm"}`
	for name, c := range map[string]struct{ text, want string }{
		"no JSON":         {ok + "\n{", "line 2: "},
		"unknown member":  {`{"at":"2026-01-01T00:00:00Z","kind":"calm","colour":1}`, `line 1: json: unknown field "colour"`},
		"unknown kind":    {ok + "\n\n" + `{"at":"2026-01-01T00:00:00Z","kind":"party"}`, `line 3: kind "party" is not known`},
		"two on one line": {ok + ok, "line 1: more than one event"},
		"too long":        {ok + "\n" + `{"name":"` + strings.Repeat("x", maxLine) + `"}`, fmt.Sprint("line 2: longer than ", maxLine)},
	} {
		if _, err := Read(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMark(t *testing.T) {
	for value, want := range map[string]int64{
		"ann #17#": 17, "#1#": 1, "ann": 0, "": 0, "a # b": 0, "#x#": 0, "#-3#": 0, "#0#": 0, Mark(1 << 40): 1 << 40, `["x #5#"]`: 5,
	} {
		if n := Marked(value); n != want {
			t.Errorf("%q: %d, want %d", value, n, want)
		}
	}
}

func TestRecorder(t *testing.T) {
	var r Recorder
	at := time.Now().Add(-time.Hour)
	r.Note(Event{Kind: Calm})
	r.Note(Event{Kind: Fault, At: at})
	r.Note(Event{Kind: Heal, At: at})
	if es := r.Events(); len(es) != 3 || es[0].Kind != Fault || es[1].Kind != Heal || es[2].At.IsZero() {
		t.Errorf("%v", es)
	}
}

// BenchmarkCheck is a history of a million events: 100,000 updates of 10,000
// contacts, each with its call.
func BenchmarkCheck(b *testing.B) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	events := []Event{{At: at, Kind: World, Rules: &Rules{Targets: map[string]Limits{"shop": {Rate: 1000, Burst: 10}}}}}
	const updates, contacts = 100_000, 10_000
	for i := range int64(updates) {
		id, n := fmt.Sprint(i%contacts), i+1
		call := fmt.Sprint("c", n)
		f := map[string]string{"firstname": "ann " + Mark(n), "title": "dr " + Mark(n)}
		at = at.Add(10 * time.Millisecond)
		add := func(e Event) {
			at = at.Add(time.Millisecond)
			e.At, e.Target, e.Contact = at, "shop", id
			events = append(events, e)
		}
		add(Event{Kind: Offer, Update: n, Class: "live", Fields: f})
		add(Event{Kind: Stored, Update: n, Seq: uint64(n)})
		add(Event{Kind: Receive, Update: n, Class: "live", Seq: uint64(n), Placed: at})
		add(Event{Kind: Call, Call: call, Fields: f, Merged: 1, Actor: "p"})
		add(Event{Kind: Arrive, Request: int(n), Operation: "update", Updates: []int64{n}})
		add(Event{Kind: Apply, Request: int(n), Order: int(n), Fields: f})
		add(Event{Kind: Reply, Request: int(n), Status: 200})
		add(Event{Kind: Answer, Call: call, Verdict: "applied", Status: 200, Actor: "p"})
		add(Event{Kind: Settle, Update: n, Class: "live", Seq: uint64(n), Outcome: "applied", Record: uint64(n)})
	}
	b.ReportAllocs()
	for b.Loop() {
		if r := Check(events); len(r.Violations()) > 0 {
			b.Fatal(r)
		}
	}
	b.ReportMetric(float64(len(events)*b.N)/b.Elapsed().Seconds(), "events/s")
}
