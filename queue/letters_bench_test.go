package queue

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

const benchLetters = 100_000

// hundredThousand is a queue with as many dead letters, each of a contact of its
// own, of 100 causes, among twice as many other records.
func hundredThousand(b *testing.B) *Queue {
	b.Helper()
	if testing.Short() {
		b.Skip("100,000 letters")
	}
	q := setUp(b, "office")
	body := fmt.Appendf(nil, `{"fields":{"firstname":"Bob","email":"bob@example.com","phonenumber":%q}}`, "0123456789")
	var msgs []*nats.Msg
	add := func(r *Record) {
		m, err := encodeRecord(r)
		if err != nil {
			b.Fatal(err)
		}
		if msgs = append(msgs, m); len(msgs) == maxBatch {
			if _, err := q.atomic(b.Context(), msgs); err != nil {
				b.Fatal(err)
			}
			msgs = msgs[:0]
		}
	}
	for i := range benchLetters {
		u := []Covered{{Seq: uint64(i) + 1, Stored: time.Now(), Row: int64(i), MsgID: strconv.Itoa(i)}}
		for range 2 {
			add(&Record{Target: "office", Contact: strconv.Itoa(i), Outcome: contact.Applied, Updates: u, Fields: []string{"firstname"}})
		}
		add(&Record{
			Target: "office", Contact: strconv.Itoa(i), Outcome: contact.Dead, Reason: contact.Conflict, Status: 422, Field: fmt.Sprint("f", i%100), Attempts: 1,
			Detail: fmt.Sprintf("the e-mail is taken by contact %d", i), Fields: []string{"firstname", "email", "phonenumber"}, Updates: u, Original: body,
			Tries: []contact.Attempt{{At: time.Now(), Verdict: contact.VerdictInvalid, Status: 422, Detail: "taken"}},
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	return q
}

func BenchmarkGroups100k(b *testing.B) {
	q := hundredThousand(b)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		got, err := q.Groups(b.Context(), Filter{})
		if err != nil || len(got) != 100 {
			b.Fatal(len(got), err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
	}
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/1e6, "MB-kept")
}

func BenchmarkLetterPage100k(b *testing.B) {
	q := hundredThousand(b)
	for _, c := range []struct {
		name string
		f    Filter
		want int
	}{
		{"newest", Filter{Newest: true}, 50},
		{"newest-middle", Filter{Newest: true, After: 3 * benchLetters / 2}, 50},
		{"newest-end", Filter{Newest: true, After: 200}, 50},
		{"oldest", Filter{}, 50},
		{"oldest-middle", Filter{After: 3 * benchLetters / 2}, 50},
		{"contact", Filter{Newest: true, Contact: "5"}, 1},
		{"until", Filter{Newest: true, Until: time.Now()}, 50},
		{"reason", Filter{Newest: true, Reason: contact.Conflict}, 50},
		{"field", Filter{Newest: true, Field: "f7"}, 50},
		{"group", Filter{Newest: true, Fingerprint: contact.Cause{Reason: contact.Conflict, Status: 422, Field: "f7", Message: "the e-mail is taken by contact <n>"}.Fingerprint()}, 50},
		{"scan-reason-none", Filter{Newest: true, Reason: contact.Expired}, 0},
		{"scan-match-one", Filter{Newest: true, Match: "contact 77777"}, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			c.f.Limit = 50
			for b.Loop() {
				n := 0
				if err := q.Letters(b.Context(), c.f, func(l Letter) error { n++; return nil }); err != nil || n != c.want {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkDead100k(b *testing.B) {
	q := hundredThousand(b)
	if _, err := q.Dead(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := q.Dead(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkForesee10k(b *testing.B) {
	q := hundredThousand(b)
	for b.Loop() {
		f, err := q.Foresee(b.Context(), RedrivePlan{Filter: Filter{Limit: 10_000}}, func(string) (contact.Rules, bool) { return contact.Rules{}, true }, nil)
		if err != nil || f.Sendable != 10_000 {
			b.Fatal(f, err)
		}
	}
}
