package queue

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"crmsync/contact"
)

func drawRecord(t *rapid.T) *Record {
	text := rapid.StringN(0, 20, 60)
	r := &Record{
		Target:   rapid.StringMatching(`[a-z0-9-]{1,32}`).Draw(t, "target"),
		Contact:  string(rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "contact")),
		Outcome:  rapid.SampledFrom(contact.Outcomes()).Draw(t, "outcome"),
		Job:      text.Draw(t, "job"),
		Call:     text.Draw(t, "call"),
		Merged:   rapid.IntRange(0, 9).Draw(t, "merged"),
		Status:   rapid.IntRange(0, 999).Draw(t, "status"),
		Attempts: rapid.IntRange(0, 9).Draw(t, "attempts"),
		Detail:   text.Draw(t, "detail"),
		Fields:   rapid.SliceOfN(text, 1, 4).Draw(t, "fields"),
		Ended:    time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "ended"), 0).UTC(),
		Updates:  []Covered{{Class: contact.Bulk, Seq: rapid.Uint64().Draw(t, "seq"), Row: 7, MsgID: text.Draw(t, "id")}},
		Covers:   [2]uint64{rapid.Uint64().Draw(t, "live"), rapid.Uint64().Draw(t, "bulk")},
		Fence:    contact.Fence{"address.city": contact.Mark{Class: contact.Bulk, Seq: 3, Stored: 5, Version: 9, Versioned: true}},
		Owner:    rapid.StringMatching(`[A-Z0-9]{22}\.[0-9]{1,5}`).Draw(t, "owner"),
		Tries:    []contact.Attempt{{At: time.Unix(9, 0).UTC(), Verdict: contact.VerdictTransient, Status: 500}},
	}
	if r.Outcome == contact.Dead {
		r.Reason = rapid.SampledFrom(contact.Reasons()).Draw(t, "reason")
		r.Original = rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "original")
		r.OriginalHeader = map[string][]string{"A": {text.Draw(t, "header")}}
	}
	return r
}

func TestRecordCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawRecord(t)
		m, err := encodeRecord(want)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(m.Subject, "."); n != 5 || len(m.Subject) > 1000 || strings.ContainsAny(m.Subject, " *>\r\n") {
			t.Fatalf("subject %q", m.Subject)
		}
		at := time.Unix(100, 0).UTC()
		got, err := decodeRecord(m.Subject, 42, at, m.Header, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		if len(want.Contact) > contact.MaxID {
			got.Contact = want.Contact // only as well as JSON can say it
		}
		want.Seq, want.Time = 42, at
		if d := cmp.Diff(want, &got, cmp.Comparer(func(a, b contact.Fence) bool {
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			return string(x) == string(y)
		})); d != "" {
			t.Fatal(d)
		}
		if (m.Header.Get(headerTTL) == "") != (want.Outcome == contact.Dead) {
			t.Fatalf("%s with TTL %q", want.Outcome, m.Header.Get(headerTTL))
		}
	})
}

// The subject of a contact's outcomes is its own: no two contacts share one, or
// they would share a watermark.
func TestContactTokensAreOneToOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.SliceOfN(rapid.SampledFrom([]byte("a%2.~- \xff")), 1, 160)
		a, b := string(id.Draw(t, "a")), string(id.Draw(t, "b"))
		if (contactToken(a) == contactToken(b)) != (a == b) {
			t.Fatalf("%q and %q: %q", a, b, contactToken(a))
		}
		if (jobToken(a) == jobToken(b)) != (a == b) || jobToken(a) == "-" {
			t.Fatalf("job %q and %q: %q", a, b, jobToken(a))
		}
		if len(a) <= contact.MaxID && unescape(contactToken(a)) != a {
			t.Fatalf("%q comes back as %q", a, unescape(contactToken(a)))
		}
	})
	if jobToken("") != "-" {
		t.Error("no job is not a dash")
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add("crm.outcome.office.1.dead.-", "1,2", []byte(`{"updates":[{"class":"live","seq":1}]}`))
	f.Add("crm.outcome.office.~ab.applied.j%2D", "", []byte(`{}`))
	f.Add("crm.outcome.x", "9", []byte(`[]`))
	f.Fuzz(func(t *testing.T, subject, covers string, body []byte) {
		h := nats.Header{headerCovers: {covers}}
		r, err := decodeRecord(subject, 1, time.Time{}, h, body)
		if err != nil {
			return
		}
		if r.Outcome == contact.Pending && !strings.Contains(subject, ".pending.") {
			t.Errorf("%q has no outcome", subject)
		}
		_ = r.Update()
	})
}

func TestSettlementParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ended []contact.Ended
		for i := range rapid.IntRange(1, 300).Draw(t, "updates") {
			u := &contact.Update{Contact: contact.Key{Target: "office", ID: "1"}, Seq: uint64(i + 1)}
			o := contact.Applied
			if rapid.IntRange(0, 2).Draw(t, "dead") == 0 {
				o = contact.Dead
				u.Raw = make([]byte, rapid.SampledFrom([]int{10, 10, 10, 10, 10, 10, 10, 60_000}).Draw(t, "size"))
			}
			u.Job = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "job")
			ended = append(ended, contact.Ended{Update: u, Ending: contact.Ending{Outcome: o}})
		}
		var back []contact.Ended
		for _, part := range settlementParts(ended) {
			before := standing{covers: [2]uint64{uint64(len(back)), 0}}
			rs := records(ended[0].Update.Contact, part, before, standing{covers: covering(before.covers, part)})
			size := 0
			covered := map[uint64]bool{}
			for i, r := range rs {
				m, err := encodeRecord(r)
				if err != nil {
					t.Fatal(err)
				}
				size += m.Size()
				if len(m.Data) > minPayload {
					t.Fatalf("a record of %d bytes", len(m.Data))
				}
				if last := i == len(rs)-1; last != (r.Covers[0] == part[len(part)-1].Update.Seq) {
					t.Fatalf("record %d of %d covers %v", i, len(rs), r.Covers)
				}
				for _, u := range r.Updates {
					if covered[u.Seq] {
						t.Fatalf("update %d twice", u.Seq)
					}
					covered[u.Seq] = true
				}
			}
			if len(covered) != len(part) || len(rs) > maxBatch || size > 2*maxBatchBytes {
				t.Fatalf("%d updates, %d covered, %d records, %d bytes", len(part), len(covered), len(rs), size)
			}
			back = append(back, part...)
		}
		if !slices.EqualFunc(back, ended, func(a, b contact.Ended) bool { return a.Update == b.Update }) {
			t.Fatal("the parts are not the settlement")
		}
	})
}
