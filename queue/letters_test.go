package queue

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

// library stores records of many kinds, most of them dead letters, and returns
// the letters in the order in which they were stored.
func library(t testing.TB, q *Queue, n int, r *rand.Rand) []Record {
	t.Helper()
	var out []Record
	var msgs []*nats.Msg
	reasons := []contact.Reason{contact.Invalid, contact.Missing, contact.Conflict}
	for i := range n {
		rec := &Record{
			Target: []string{"office", "shop"}[r.IntN(2)], Contact: fmt.Sprint("c", r.IntN(20)), Outcome: contact.Dead,
			Reason: reasons[r.IntN(3)], Status: []int{0, 404, 422}[r.IntN(3)], Field: []string{"", "email", "phone"}[r.IntN(3)],
			Detail: fmt.Sprintf("%s of %d", []string{"Taken", "unknown"}[r.IntN(2)], i), Fields: []string{[]string{"email", "name"}[r.IntN(2)]},
			Job: []string{"", "", "j1", "j 2"}[r.IntN(4)], Updates: []Covered{{Seq: uint64(i) + 1, Stored: time.Now(), Row: int64(i)}}, Original: []byte(`{"fields":{"a":1}}`),
		}
		if r.IntN(3) == 0 { // runs of what is no letter
			rec.Outcome, rec.Original = contact.Applied, nil
		}
		m, err := encodeRecord(rec)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Outcome == contact.Dead && r.IntN(20) == 0 { // as an earlier version stored it
			for _, h := range []string{headerStatus, headerField, headerCause, headerPrint} {
				m.Header.Del(h)
			}
		}
		rec.Seq = uint64(i) + 1
		if rec.Outcome == contact.Dead {
			out = append(out, *rec)
		}
		if msgs = append(msgs, m); len(msgs) == 50 || i == n-1 {
			if a, err := q.atomic(t.Context(), msgs); err != nil || a.Seq != rec.Seq {
				t.Fatal(a, err)
			}
			msgs = nil
		}
	}
	at := map[uint64]time.Time{}
	if err := q.Records(t.Context(), Filter{}, func(r Record) error { at[r.Seq] = r.Time; return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range out {
		out[i].Time = at[out[i].Seq]
	}
	return out
}

// chosen is what a filter should choose, said plainly.
func chosen(all []Record, f Filter) []uint64 {
	var out []uint64
	for _, r := range all {
		text := strings.ToLower(r.Detail + "\n" + r.Contact + "\n" + r.Field + "\n" + strings.Join(r.Fields, "\n"))
		if (f.Target == "" || r.Target == f.Target) && (f.Contact == "" || r.Contact == f.Contact) && (f.Job == "" || r.Job == f.Job) &&
			(f.Reason == 0 || r.Reason == f.Reason) && (f.Status == 0 || r.Status == f.Status) &&
			(f.Fingerprint == "" || r.Cause().Fingerprint() == f.Fingerprint) && (f.Match == "" || strings.Contains(text, strings.ToLower(f.Match))) &&
			(f.Field == "" || r.Field == f.Field) &&
			(f.Since.IsZero() || !r.Time.Before(f.Since)) && (f.Until.IsZero() || r.Time.Before(f.Until)) {
			out = append(out, r.Seq)
		}
	}
	if f.Newest {
		slices.Reverse(out)
	}
	if f.After > 0 {
		out = slices.DeleteFunc(out, func(id uint64) bool { return f.Newest && id >= f.After || !f.Newest && id <= f.After })
	}
	if f.Limit > 0 {
		out = out[:min(len(out), f.Limit)]
	}
	return out
}

func TestLettersEqualTheModel(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office", "shop")
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	all := library(t, q, 900, r)
	pick := func() Record { return all[r.IntN(len(all))] }
	maybe := func(n int) bool { return r.IntN(n) == 0 }
	for range 100 {
		var f Filter
		if maybe(2) {
			f.Target = pick().Target
		}
		if maybe(5) {
			f.Contact = pick().Contact
		}
		if maybe(4) {
			f.Job = pick().Job
		}
		if maybe(3) {
			f.Reason = pick().Reason
		}
		if maybe(4) {
			f.Status = pick().Status
		}
		if maybe(5) {
			p := pick()
			f.Fingerprint = p.Cause().Fingerprint()
		}
		if maybe(6) {
			f.Field = []string{"email", "phone", "name"}[r.IntN(3)]
		}
		if maybe(6) {
			f.Match = []string{"TAKEN", "c1", "of 1", "nothing"}[r.IntN(4)]
		}
		if maybe(4) {
			f.Since = pick().Time
		}
		if maybe(4) {
			f.Until = pick().Time
		}
		if maybe(3) {
			f.After = pick().Seq
		}
		if maybe(2) {
			f.Limit = 1 + r.IntN(60)
		}
		f.Newest = maybe(2)
		if got, want := ids(letters(t, q, f)), chosen(all, f); !slices.Equal(got, want) {
			t.Fatalf("%+v\ngot  %v\nwant %v", f, got, want)
		}
		f.Outcome, f.Newest, f.After, f.Limit = contact.Dead, false, 0, 0
		if n, err := q.Count(t.Context(), f); err != nil || int(n) != len(chosen(all, f)) {
			t.Fatalf("%+v: %d counted, %v, want %d", f, n, err, len(chosen(all, f)))
		}
	}
	// Pages meet without a gap or an overlap.
	for _, newest := range []bool{false, true} {
		var got []uint64
		f := Filter{Newest: newest, Limit: 77, Target: "office"}
		for {
			page := ids(letters(t, q, f))
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			f.After = page[len(page)-1]
		}
		if want := chosen(all, Filter{Newest: newest, Target: "office"}); !slices.Equal(got, want) {
			t.Errorf("pages hold %d letters, want %d", len(got), len(want))
		}
	}
	stop := errors.New("stop")
	if err := q.Letters(t.Context(), Filter{Newest: true}, func(Letter) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("yield's error: %v", err)
	}
	if err := q.Letters(t.Context(), Filter{Target: "a.b"}, nil); err == nil {
		t.Error("a target that cannot be")
	}
	groupsOfLibrary(t, q, all)
}

// groupsOfLibrary counts groups plainly.
func groupsOfLibrary(t *testing.T, q *Queue, all []Record) {
	t.Helper()
	count, last := map[string]int64{}, map[string]uint64{}
	for _, r := range all {
		k := r.Target + " " + r.Cause().Fingerprint()
		count[k]++
		last[k] = r.Seq
	}
	now := all[len(all)-1].Time
	for _, ago := range []time.Duration{0, 90 * time.Minute, 3 * time.Hour} {
		got, err := q.groups(t.Context(), Filter{}, now.Add(ago))
		if err != nil || len(got) != len(count) {
			t.Fatalf("%d groups, want %d: %v", len(got), len(count), err)
		}
		for i, g := range got {
			k := g.Target + " " + g.Fingerprint
			hour, before := g.Count, int64(0)
			if ago > time.Hour {
				hour, before = 0, g.Count*int64(b2i(ago < 2*time.Hour))
			}
			if g.Count != count[k] || g.Samples[0] != last[k] || len(g.Samples) != int(min(3, g.Count)) || g.LastHour != hour || g.HourBefore != before || g.Other {
				t.Errorf("group %+v, want %d, last %d", g, count[k], last[k])
			}
			if g.Cause.Fingerprint() != g.Fingerprint || g.First.After(g.Last) || !slices.IsSortedFunc(g.Samples, func(a, b uint64) int { return int(b) - int(a) }) {
				t.Errorf("group %+v", g)
			}
			if i > 0 && got[i-1].Count < g.Count {
				t.Error("the largest do not come first")
			}
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestGroupsAreBounded(t *testing.T) {
	q := setUp(t, "office")
	var msgs []*nats.Msg
	for i := range MaxGroups + 50 {
		// A cause's field may be anything, so causes have no end.
		r := &Record{Target: "office", Contact: strconv.Itoa(i), Outcome: contact.Dead, Reason: contact.Invalid, Field: fmt.Sprint("f", i), Updates: []Covered{{Seq: uint64(i)}}}
		m, err := encodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, m)
	}
	for part := range slices.Chunk(msgs, maxBatch) {
		if _, err := q.atomic(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	got, err := q.Groups(t.Context(), Filter{})
	if err != nil || len(got) != MaxGroups+1 {
		t.Fatalf("%d groups, %v", len(got), err)
	}
	if o := got[0]; !o.Other || o.Count != 50 || o.Fingerprint != "" || o.Cause != (contact.Cause{}) || len(o.Samples) != 3 {
		t.Errorf("the others %+v", o)
	}
}

func TestHeadersOfALetterAreBoundedLines(t *testing.T) {
	r := &Record{
		Target: "office", Contact: "7", Outcome: contact.Dead, Reason: contact.Invalid, Status: 422, Field: "a\r\nNats-Expected-Stream: x\x00",
		Detail: strings.Repeat("é\n", 5000), RedriveOf: "5\r\n\r\nx", Updates: []Covered{{Seq: 1}},
	}
	m, err := encodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range m.Header {
		if len(v[0]) > 300 || strings.ContainsAny(v[0], "\r\n\x00") {
			t.Errorf("header %s is %q", name, v[0])
		}
	}
	if m.Header.Get(headerPrint) != r.Cause().Fingerprint() {
		t.Error("the fingerprint is of something else")
	}
}

func TestDeadIsKept(t *testing.T) {
	q := setUp(t, "office", "shop")
	counts := func() map[string]map[contact.Reason]int64 {
		t.Helper()
		got, err := q.Dead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := func(what string, want map[string]map[contact.Reason]int64) {
		t.Helper()
		if got := counts(); quoted(got) != quoted(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	add := func(target, id string, reason contact.Reason) uint64 {
		return oldLetter(t, q, contact.Key{Target: target, ID: id}, time.Now(), func(r *Record) { r.Reason, r.Updates[0].Seq = reason, 0 })
	}
	want("none", map[string]map[contact.Reason]int64{})
	a := add("office", "1", contact.Invalid)
	add("office", "2", contact.Invalid)
	add("shop", "1", contact.Missing)
	want("three", map[string]map[contact.Reason]int64{"office": {contact.Invalid: 2}, "shop": {contact.Missing: 1}})
	if err := q.Discard(t.Context(), a, alice, "x"); err != nil {
		t.Fatal(err)
	}
	read := q.tally.last
	want("one was discarded", map[string]map[contact.Reason]int64{"office": {contact.Invalid: 1}, "shop": {contact.Missing: 1}})
	if q.tally.last <= read {
		t.Error("all was read again")
	}
	b := add("office", "3", contact.Conflict)
	if err := q.Discard(t.Context(), b, alice, "x"); err != nil { // it came and went between two looks
		t.Fatal(err)
	}
	want("came and went", map[string]map[contact.Reason]int64{"office": {contact.Invalid: 1}, "shop": {contact.Missing: 1}})
	if _, err := q.Forget(t.Context(), alice, contact.Key{Target: "office", ID: "2"}); err != nil {
		t.Fatal(err)
	}
	want("one was forgotten", map[string]map[contact.Reason]int64{"shop": {contact.Missing: 1}})
	counts()["shop"][contact.Missing] = 99
	want("the caller's copy was changed", map[string]map[contact.Reason]int64{"shop": {contact.Missing: 1}})
}

func TestStory(t *testing.T) {
	q := setUp(t, "office")
	l := dead(t, q, fields("office", "7", contact.Live, `{"a":"secret-value"}`))[0]
	if _, err := q.EditLetter(t.Context(), l.Seq, alice, []byte(`{"fields":{"a":"secret-value"}}`), 0, nil); err != nil {
		t.Fatal(err)
	}
	redrive(t, q, l.Seq, RedriveOptions{})
	publish(t, q, fields("office", "8", contact.Live, `{"a":1}`), fields("office", "7", contact.Live, `{"b":"secret-value","c":2}`))
	got, err := q.Story(t.Context(), contact.Key{Target: "office", ID: "7"})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for i, e := range got {
		kinds = append(kinds, string(e.Kind))
		if i > 0 && e.At.Before(got[i-1].At) || e.At.IsZero() {
			t.Errorf("event %d is out of order", i)
		}
	}
	if want := "record edit redrive update update"; strings.Join(kinds, " ") != want {
		t.Fatalf("%v, want %s", kinds, want)
	}
	if strings.Contains(quoted(got), "secret-value") {
		t.Error("a story holds a value")
	}
	if r := got[0].Record; r.Outcome != contact.Dead || r.Seq != l.Seq || r.Original != nil || r.Updates[0].Stored.IsZero() {
		t.Errorf("record %+v", r)
	}
	if e := got[1].Edit; e.Letter != l.Seq || e.By != alice.By {
		t.Errorf("edit %+v", e)
	}
	if c := got[2].Claim; c.Letter != l.Seq || c.By != alice.By || c.Body != nil {
		t.Errorf("claim %+v", c)
	}
	if u := got[3].Update; u.RedriveOf != fmt.Sprint(l.Seq) || u.Class != contact.Bulk || u.Redrive.Edited != alice.By || u.Ended {
		t.Errorf("redrive %+v", u)
	}
	if u := got[4].Update; !slices.Equal(u.Fields, []string{"b", "c"}) || u.Class != contact.Live || u.Seq == 0 {
		t.Errorf("update %+v", u)
	}
	if none, err := q.Story(t.Context(), contact.Key{Target: "office", ID: "9"}); err != nil || len(none) != 0 {
		t.Errorf("%v %v", none, err)
	}
	if _, err := q.Story(t.Context(), contact.Key{Target: "gone", ID: "9"}); !errors.Is(err, ErrNotSetUp) {
		t.Errorf("of no target: %v", err)
	}
}

// A letter that goes while a page is read takes no place on it, and each is shown
// as it stands, on a small page as on a large one.
func TestPageIsFullThoughALetterGoes(t *testing.T) {
	q := setUp(t, "office")
	var of []uint64
	for i := range 6 {
		of = append(of, oldLetter(t, q, contact.Key{Target: "office", ID: fmt.Sprint(i)}, time.Now(), nil))
	}
	redrive(t, q, of[4], RedriveOptions{})
	if _, err := q.EditLetter(t.Context(), of[5], alice, []byte(`{"fields":{"a":2}}`), 0, nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range []Filter{{Limit: 4}, {Limit: maxLookUps + 1}, {Limit: 4, Newest: true}, {}} {
		for _, l := range letters(t, q, f) {
			if (l.State == LetterRedriven) != (l.Seq == of[4]) || (l.Edit != nil) != (l.Seq == of[5]) {
				t.Errorf("%+v: letter %+v", f, l)
			}
		}
	}
	var got []uint64
	err := q.Letters(t.Context(), Filter{Limit: 4}, func(l Letter) error {
		if got = append(got, l.Seq); len(got) == 1 {
			return q.Discard(t.Context(), of[1], alice, "")
		}
		return nil
	})
	if want := []uint64{of[0], of[2], of[3], of[4]}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v, want %v", got, err, want)
	}
}
