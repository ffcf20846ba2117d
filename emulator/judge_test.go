package emulator

import (
	"math"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 11, 21, 19, 0, 0, 0, time.UTC)

// at makes entries that arrived at these milliseconds.
func at(ms ...int) []Entry {
	var out []Entry
	for i, m := range ms {
		out = append(out, Entry{N: i + 1, Arrived: epoch.Add(time.Duration(m) * time.Millisecond)})
	}
	return out
}

func TestQuotaJudges(t *testing.T) {
	tests := []struct {
		name        string
		ms          []int
		rate        float64
		burst       int
		tolerance   time.Duration
		over, first int
		maxOver     float64
		peakSecond  int
	}{
		{"none", nil, 1, 1, 0, 0, 0, -1, 0},
		{"exactly on the rate", []int{0, 250, 500, 750, 1000}, 4, 1, 0, 0, 0, 0, 4},
		{"a burst is allowed", []int{0, 0, 0, 1000}, 1, 3, 0, 0, 0, 0, 3},
		{"a burst too many", []int{0, 0, 0, 0}, 1, 3, 0, 1, 4, 1, 4},
		{"one early", []int{0, 999}, 1, 1, 0, 1, 2, 0.001, 2},
		{"one early, forgiven", []int{0, 999}, 1, 1, time.Millisecond, 0, 0, 0.001, 2},
		{"what is refused takes nothing", []int{0, 10, 20, 1000}, 1, 1, 0, 2, 2, 2, 3},
		{"idling saves no more than the burst", []int{0, 10000, 10000, 10000}, 1, 2, 0, 1, 4, 1, 3},
		{"order does not matter", []int{500, 0, 250}, 4, 1, 0, 0, 0, 0, 3},
		{"burst 0 is 1", []int{0, 1000}, 1, 0, 0, 0, 0, 1, 1},
		{"rate 0", []int{0, 1000}, 0, 5, 0, 2, 1, -3, 1},
	}
	for _, tt := range tests {
		entries := at(tt.ms...)
		over, first := OverQuota(entries, tt.rate, tt.burst, tt.tolerance)
		if over != tt.over || first.N != tt.first {
			t.Errorf("%s: OverQuota %d from %d, want %d from %d", tt.name, over, first.N, tt.over, tt.first)
		}
		if got := MaxOver(entries, tt.rate, tt.burst); math.Abs(got-tt.maxOver) > 1e-9 {
			t.Errorf("%s: MaxOver %v, want %v", tt.name, got, tt.maxOver)
		}
		if got := PeakRate(entries, time.Second); got != tt.peakSecond {
			t.Errorf("%s: PeakRate %d, want %d", tt.name, got, tt.peakSecond)
		}
	}
	if PeakRate(at(0, 0), 0) != 0 {
		t.Error("a window of nothing holds nothing")
	}
}

// TestQuotaAgainstDefinition holds OverQuota and MaxOver against the sentence
// they stand for: arrivals in [t, t+w] <= burst + rate*w for all t and w.
func TestQuotaAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom([]float64{0.5, 1, 2, 3, 10}).Draw(t, "rate")
		burst := rapid.IntRange(1, 5).Draw(t, "burst")
		ms, now := []int{}, 0
		for _, gap := range rapid.SliceOfN(rapid.IntRange(0, 1500), 1, 40).Draw(t, "gaps") {
			now += gap
			ms = append(ms, now)
		}
		worst := math.Inf(-1)
		for i := range ms {
			for j := i; j < len(ms); j++ {
				worst = max(worst, float64(j-i+1)-float64(burst)-rate*float64(ms[j]-ms[i])/1000)
			}
		}
		entries := at(ms...)
		if got := MaxOver(entries, rate, burst); math.Abs(got-worst) > 1e-6 {
			t.Fatalf("MaxOver %v, by definition %v", got, worst)
		}
		n, _ := OverQuota(entries, rate, burst, 0)
		if worst > 1e-4 && n == 0 || worst < -1e-9 && n > 0 {
			t.Fatalf("OverQuota %d although the worst window is over by %v", n, worst)
		}
	})
}

// TestBucketIsGCRA: what the CRM's own limit lets through is just what the
// judge finds conforming.
func TestBucketIsGCRA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{Rate: rapid.SampledFrom([]float64{1, 2, 5}).Draw(t, "rate"), Burst: rapid.IntRange(1, 4).Draw(t, "burst")}
		var b bucket
		var entries []Entry
		now, refused := epoch, 0
		for i, gap := range rapid.SliceOfN(rapid.IntRange(0, 700), 1, 60).Draw(t, "gaps") {
			now = now.Add(time.Duration(gap) * time.Millisecond)
			entries = append(entries, Entry{N: i + 1, Arrived: now})
			wait, ok := b.take(l, now)
			if ok {
				continue
			}
			refused++
			if again := b; true {
				if _, ok := again.take(l, now.Add(wait-time.Millisecond)); ok {
					t.Fatalf("the wait of %v is too long", wait)
				}
			}
			if again := b; true {
				if _, ok := again.take(l, now.Add(wait+time.Microsecond)); !ok {
					t.Fatalf("the wait of %v is too short", wait)
				}
			}
		}
		if n, first := OverQuota(entries, l.Rate, l.Burst, 0); n != refused {
			t.Fatalf("refused %d, the judge finds %d from %d", refused, n, first.N)
		}
	})
}

func TestStale(t *testing.T) {
	write := func(n, seq int, contact, field string, v any) Entry {
		return Entry{
			N: n, Operation: OpUpdate, Contact: contact, Applied: true, Seq: seq,
			Changed: []string{field}, Values: map[string]any{field: v},
		}
	}
	tests := []struct {
		name    string
		entries []Entry
		want    []int
	}{
		{"in order", []Entry{write(1, 1, "6", "title", "#1#"), write(2, 2, "6", "title", "#2#")}, nil},
		{"backwards", []Entry{write(1, 1, "6", "title", "#2#"), write(2, 2, "6", "title", "#1#")}, []int{2}},
		{"backwards, and again from there", []Entry{write(1, 1, "6", "title", "#3#"), write(2, 2, "6", "title", "#1#"), write(3, 3, "6", "title", "#2#")}, []int{2}},
		{"the order of applying counts", []Entry{write(1, 2, "6", "title", "#2#"), write(2, 1, "6", "title", "#1#")}, nil},
		{"the order of arrival does not", []Entry{write(1, 2, "6", "title", "#1#"), write(2, 1, "6", "title", "#2#")}, []int{1}},
		{"a repeat", []Entry{write(1, 1, "6", "title", "#2#"), write(2, 2, "6", "title", "again #2#")}, nil},
		{"another field", []Entry{write(1, 1, "6", "title", "#2#"), write(2, 2, "6", "phone", "#1#")}, nil},
		{"another contact", []Entry{write(1, 1, "6", "title", "#2#"), write(2, 2, "7", "title", "#1#")}, nil},
		{"unmarked values are not judged", []Entry{write(1, 1, "6", "title", "#2#"), write(2, 2, "6", "title", nil), write(3, 3, "6", "title", "x"), write(4, 4, "6", "title", "#1#")}, []int{4}},
		{"lists", []Entry{write(1, 1, "6", "tags", []any{"#1#", "#3#"}), write(2, 2, "6", "tags", []string{"#2#"})}, []int{2}},
		{"what was not applied", []Entry{write(1, 1, "6", "title", "#2#"), {N: 2, Contact: "6", Changed: []string{"title"}, Values: map[string]any{"title": "#1#"}}}, nil},
		{"in a batch", []Entry{write(1, 1, "6", "title", "#2#"), {N: 2, Operation: OpBatch, Applied: true, Batch: []Part{
			{Contact: "5", Applied: true, Seq: 2, Changed: []string{"title"}, Values: map[string]any{"title": "#1#"}},
			{Contact: "6", Applied: true, Seq: 3, Changed: []string{"title"}, Values: map[string]any{"title": "#1#"}},
		}}}, []int{2}},
	}
	for _, tt := range tests {
		var got []int
		for _, v := range Stale(tt.entries) {
			got = append(got, v.N)
			if v.Field == "" || v.Contact != "6" {
				t.Errorf("%s: %+v", tt.name, v)
			}
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: entries %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestImpatientAndOverlaps(t *testing.T) {
	e := func(n, arrived, answered int, contact string, wait time.Duration) Entry {
		x := Entry{N: n, Operation: OpUpdate, Contact: contact, Wait: wait, Arrived: epoch.Add(time.Duration(arrived) * time.Second)}
		if answered >= 0 {
			x.Answered = epoch.Add(time.Duration(answered) * time.Second)
		}
		return x
	}
	batch := e(2, 1, 3, "", 0)
	batch.Operation, batch.Batch = OpBatch, []Part{{Contact: "7"}, {Contact: "6"}, {Contact: "6"}}
	late := e(1, 0, 90, "6", 0)
	late.Fault = string(LateApply)
	tests := []struct {
		name                string
		entries             []Entry
		impatient, overlaps []int
	}{
		{"polite", []Entry{e(1, 0, 1, "6", 10*time.Second), e(2, 11, 12, "6", 0)}, nil, nil},
		{"too early", []Entry{e(1, 0, 1, "6", 10*time.Second), e(2, 10, 12, "6", 0)}, []int{2}, nil},
		{"within the grace", []Entry{e(1, 0, 1, "6", 10*time.Second), e(2, 2, 3, "7", 0)}, nil, nil},
		{"a shorter wait does not lift a longer one", []Entry{e(1, 0, 1, "6", 20*time.Second), e(2, 1, 2, "7", time.Second), e(3, 15, 16, "8", 0)}, []int{3}, nil},
		{"side by side", []Entry{e(1, 0, 5, "6", 0), e(2, 1, 2, "7", 0)}, nil, nil},
		{"two at once", []Entry{e(1, 0, 5, "6", 0), e(2, 1, 2, "6", 0), e(3, 3, 4, "6", 0)}, nil, []int{2, 3}},
		{"never answered", []Entry{e(1, 0, -1, "6", 0), e(2, 50, 51, "6", 0)}, nil, []int{2}},
		{"one after the other", []Entry{e(1, 0, 5, "6", 0), e(2, 5, 6, "6", 0)}, nil, nil},
		{"a batch", []Entry{e(1, 0, 2, "6", 0), batch}, nil, []int{2}},
		{"late ones are left out", []Entry{late, e(2, 50, 51, "6", 0)}, nil, nil},
	}
	for _, tt := range tests {
		numbers := func(vs []Violation) (n []int) {
			for _, v := range vs {
				n = append(n, v.N)
			}
			return n
		}
		if got := numbers(Impatient(tt.entries, time.Second)); !reflect.DeepEqual(got, tt.impatient) {
			t.Errorf("%s: impatient %v, want %v", tt.name, got, tt.impatient)
		}
		if got := numbers(Overlaps(tt.entries)); !reflect.DeepEqual(got, tt.overlaps) {
			t.Errorf("%s: overlaps %v, want %v", tt.name, got, tt.overlaps)
		}
	}
}

func TestMarks(t *testing.T) {
	tests := map[string][]int64{
		"":                          nil,
		"plain # text":              nil,
		"#12#":                      {12},
		"c6#12#nonce":               {12},
		"##12##":                    {12},
		"#1##2#":                    {1, 2},
		"#1#2#":                     {1},
		"#x#3#":                     {3},
		"#12":                       {},
		"#99999999999999999999999#": nil,
		"#007#":                     {7},
	}
	for in, want := range tests {
		if got := textMarks(nil, in); len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
	doc := map[string]any{"b": "#3#", "a": []any{"#1#", map[string]any{"c": "#3#x#2#"}}, "n": 5}
	if got := sortedMarks(doc); !reflect.DeepEqual(got, []int64{1, 2, 3}) {
		t.Errorf("%v", got)
	}
}

// TestSharedLimit: the strict bucket refuses with 429 and the ledger agrees
// with the judge, for both vendors and the token endpoint too.
func TestSharedLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]*CRM{
			"perfex": NewPerfex(Options{Contacts: 12, Limits: Limits{Rate: 2, Burst: 3, RetryAfter: RetryDate}}),
			"evance": NewEvance(Options{Contacts: 12, Limits: Limits{Rate: 2, Burst: 3, RetryAfter: RetryDate}}),
		} {
			for i := range 30 {
				if name == "evance" && i%5 == 0 {
					tokenCall(c, nil)
				} else {
					perfexCall(c, "GET", "/api/contacts/1/1", "")
				}
				time.Sleep(200 * time.Millisecond)
			}
			s := c.Stats()
			n, first := OverQuota(c.Ledger(), 2, 3, 0)
			if s.Refused[429] == 0 || s.Refused[429] != n || s.Requests != 30 {
				t.Errorf("%s: stats %+v, the judge finds %d", name, s, n)
			}
			// A date has whole seconds and must not tell a caller to come early.
			if first.Status != 429 || first.Wait < 100*time.Millisecond || first.Wait > 2*time.Second {
				t.Errorf("%s: first refused %+v", name, first)
			}
			if got := c.MaxOver(2, 3); got <= 0 {
				t.Errorf("%s: MaxOver %v", name, got)
			}
		}
	})
}

func TestEvanceHourlyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewEvance(Options{Contacts: 12, Limits: Limits{PerHour: 2, Window: time.Minute, RetryAfter: RetrySeconds}})
		token := evanceToken(t, c)
		get := func() answer { return call1(c, "GET", "/api/contacts/1.json", "", "Authorization", "Bearer "+token) }
		if a, b := get(), get(); a.status != 200 || b.status != 200 || b.header.Get("X-RateLimit-Remaining") != "1" {
			t.Errorf("%v %v", a, b)
		}
		if a := get(); a.status != 429 || a.header.Get("Retry-After") != "60" || lastEntry(t, c).Wait != time.Minute {
			t.Errorf("%d %v", a.status, a.header)
		}
		time.Sleep(time.Minute)
		if a := get(); a.status != 200 {
			t.Errorf("in the next window: %d", a.status)
		}
	})
}
