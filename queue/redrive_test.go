package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crmsync/contact"
)

func TestRedriveThatIsApplied(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	u := fields("office", "7", contact.Live, `{"a":"1"}`)
	u.Job, u.Row, u.TraceParent = "j", 3, "00-x"
	l := dead(t, q, u)[0]
	if l.Place().Seq != u.Seq || l.Place().Stored.IsZero() || l.State != LetterDead || l.Claim != nil {
		t.Fatalf("letter %+v", l)
	}
	r := redrive(t, q, l.Seq, RedriveOptions{})
	if r.Class != contact.Bulk || r.Letter != l.Seq {
		t.Errorf("redriven %+v", r)
	}
	if got, err := q.Letter(t.Context(), l.Seq); err != nil || got.State != LetterRedriven || got.Claim.By != alice.By || got.Claim.At.IsZero() || string(got.Original) != string(u.Raw) {
		t.Errorf("in hand %+v %v", got, err)
	}
	c := newCRM()
	c.serve(t, q, "office")
	settled(t, q, "office")
	if got := c.get("office", "7"); got["a"] != `"1"` {
		t.Errorf("the CRM holds %v", got)
	}
	if _, err := q.Letter(t.Context(), l.Seq); !errors.Is(err, ErrNotFound) {
		t.Errorf("the letter: %v", err)
	}
	recs := allRecords(t, q, Filter{Target: "office", Contact: "7"})
	if len(recs) != 2 || recs[0].Outcome != contact.Applied || recs[1].Outcome != contact.Discarded {
		t.Fatalf("records %+v", recs)
	}
	if a := recs[0]; a.RedriveOf != fmt.Sprint(l.Seq) || a.Redrive.By != alice.By || a.Redrive.Root != fmt.Sprint(l.Seq) || a.Redrive.Order != l.Place() ||
		a.Job != "j" || a.Updates[0].Row != 3 || a.TraceParent != "00-x" {
		t.Errorf("the redrive's record %+v %+v", a, a.Redrive)
	}
	want := fmt.Sprintf("sent again by %s: applied, record %d", alice.By, recs[0].Seq)
	if d := recs[1]; d.Letter != l.Seq || d.Detail != want || d.Original != nil || d.Updates[0].Seq != u.Seq || len(d.Tries) != len(l.Tries) || d.Status != 422 {
		t.Errorf("what took the letter's place %+v", d)
	}
	if got := audited(t, q, AuditFilter{}); len(got) != 1 || got[0].Action != "redrive" || got[0].By != alice.By || got[0].Contact != "7" || !slices.Equal(got[0].IDs, []uint64{l.Seq}) || got[0].At.IsZero() {
		t.Errorf("audit %+v", got)
	}
}

func TestDeadAgainKeepsTheChain(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	l := dead(t, q, fields("office", "7", contact.Live, `{"a":"1"}`))[0]
	c := newCRM()
	c.refuse = func(*contact.Update) bool { return true }
	c.serve(t, q, "office")
	root := l.Seq
	for range 3 {
		redrive(t, q, l.Seq, RedriveOptions{})
		settled(t, q, "office")
		all := letters(t, q, Filter{})
		if len(all) != 1 {
			t.Fatalf("letters %+v", all)
		}
		next := all[0]
		if next.RedriveOf != fmt.Sprint(l.Seq) || next.Redrive.Root != fmt.Sprint(root) || next.Place() != l.Place() || string(next.Original) != string(l.Original) {
			t.Fatalf("letter %+v of %+v", next, l)
		}
		l = next
	}
}

func TestTwoOperatorsRedriveOnce(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	var us []*contact.Update
	for i := range 500 {
		us = append(us, update("office", i, contact.Live, i))
	}
	ls := dead(t, q, us...)
	other := peerOf(t, q, &link{})
	var mu sync.Mutex
	sent, inHand := 0, 0
	var wg sync.WaitGroup
	for _, who := range []*Queue{q, other} {
		wg.Go(func() {
			for _, l := range ls {
				_, err := who.Redrive(t.Context(), l.Seq, RedriveOptions{Actor: alice})
				mu.Lock()
				switch {
				case err == nil:
					sent++
				case errors.Is(err, ErrInHand):
					inHand++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if sent != 500 || inHand != 500 {
		t.Errorf("%d sent, %d refused", sent, inHand)
	}
	info, err := q.info(t.Context(), streamName("office", contact.Bulk))
	if err != nil || info.State.Msgs != 500 {
		t.Errorf("%d updates, %v", info.State.Msgs, err)
	}
	c := newCRM()
	c.serve(t, q, "office")
	settled(t, q, "office")
	if c.applied != 500 || len(letters(t, q, Filter{})) != 0 {
		t.Errorf("%d applied, %d letters left", c.applied, len(letters(t, q, Filter{})))
	}
}

// A second operator may have read the letter before the first one's redrive
// ended, and claim it only then.
func TestRedriveOfALetterThatWentBetweenReadingAndClaim(t *testing.T) {
	q := setUp(t, "office")
	l := dead(t, q, fields("office", "7", contact.Live, `{"a":"1"}`))[0]
	letter, err := q.deadLetter(t.Context(), l.Seq)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Discard(t.Context(), l.Seq, alice, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := q.redrive(t.Context(), &letter, RedriveOptions{Actor: alice}); !errors.Is(err, ErrNotFound) {
		t.Errorf("redrive: %v", err)
	}
	c := newCRM()
	c.serve(t, q, "office")
	settled(t, q, "office")
	if c.applied != 0 {
		t.Error("a letter that was given up was sent")
	}
}

func TestWhatCannotBeSentAgain(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	k := contact.Key{Target: "office", ID: "7"}
	fresh := time.Now().Add(-time.Hour)
	errGone := fmt.Errorf("no such target: %w", ErrNotSetUp)
	cases := []struct {
		name   string
		stored time.Time
		change func(*Record)
		o      RedriveOptions
		want   error
	}{
		{"too old", time.Now().Add(-RedriveLimit - time.Minute), nil, RedriveOptions{}, ErrTooOld},
		{"old enough", time.Now().Add(-RedriveLimit + time.Minute), nil, RedriveOptions{}, nil},
		{"too old but forced", time.Now().Add(-RedriveLimit - time.Minute), nil, RedriveOptions{Force: true}, nil},
		{"of unknown age", time.Time{}, nil, RedriveOptions{}, ErrTooOld},
		{"not JSON", fresh, func(r *Record) { r.Original = []byte("{") }, RedriveOptions{}, ErrUnsendable},
		{"not JSON but edited", fresh, func(r *Record) { r.Original = []byte("{") }, RedriveOptions{Body: []byte(`{"fields":{"a":1}}`)}, nil},
		{"edited to nonsense", fresh, nil, RedriveOptions{Body: []byte(`{"fields":{}}`)}, ErrUnsendable},
		{"refused by the CRM's rules", fresh, nil, RedriveOptions{Check: func(u *contact.Update) error {
			if _, ok := u.Fields.Get("a"); ok && u.Contact == k {
				return &contact.BadUpdate{Reason: contact.Invalid, Field: "a", Detail: "is not allowed"}
			}
			return nil
		}}, ErrUnsendable},
		{"of a target that is not known any more", fresh, nil, RedriveOptions{Check: func(*contact.Update) error { return errGone }}, errGone},
		{"of a contact that cannot be", fresh, func(r *Record) { r.Contact = " 7" }, RedriveOptions{}, ErrUnsendable},
		{"of a target without a stream", fresh, func(r *Record) { r.Target = "gone" }, RedriveOptions{}, ErrNotSetUp},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			id := oldLetter(t, q, k, c.stored, c.change)
			c.o.Actor = alice
			_, err := q.Redrive(t.Context(), id, c.o)
			if !errors.Is(err, c.want) || c.want == nil && err != nil || c.want == errGone && errors.Is(err, ErrUnsendable) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			l, e := q.Letter(t.Context(), id)
			if e != nil || (l.State == LetterRedriven) != (c.want == nil) {
				t.Errorf("the letter is %s, %v", l.State, e)
			}
			if err != nil && !strings.Contains(err.Error(), fmt.Sprint("letter ", id)) {
				t.Errorf("%q does not name the letter", err)
			}
		})
	}
	if _, err := q.Redrive(t.Context(), 99999, RedriveOptions{Actor: alice}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such letter: %v", err)
	}
}

func TestNothingIsDoneWithoutAnAudit(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	id := oldLetter(t, q, contact.Key{Target: "office", ID: "7"}, time.Now(), nil)
	if err := q.js.DeleteStream(t.Context(), auditStream); err != nil {
		t.Fatal(err)
	}
	_, err := q.Redrive(t.Context(), id, RedriveOptions{Actor: alice})
	if !errors.Is(err, ErrNotSetUp) {
		t.Errorf("redrive: %v", err)
	}
	if _, err := q.EditLetter(t.Context(), id, alice, []byte(`{"fields":{"a":1}}`), 0, nil); err == nil {
		t.Error("edited without an audit")
	}
	if _, err := q.StartRedrive(t.Context(), alice, RedrivePlan{}); err == nil {
		t.Error("an operation began without an audit")
	}
	if _, err := q.Forget(t.Context(), alice, contact.Key{Target: "office", ID: "7"}); err == nil {
		t.Error("forgotten without an audit")
	}
	l, err := q.Letter(t.Context(), id)
	if err != nil || l.State != LetterDead || l.Edit != nil {
		t.Errorf("letter %+v %v", l, err)
	}
	if ops, err := q.Operations(t.Context()); err != nil || len(ops) != 0 {
		t.Errorf("operations %v %v", ops, err)
	}
}

// The fence: what of a letter is older than newer data is left out.
func TestRedrivesAreAsOldAsTheirOriginals(t *testing.T) {
	t.Parallel()
	version := func(u *contact.Update, v int64) *contact.Update {
		u.Version, u.Versioned, u.Raw = v, true, nil
		return u
	}
	cases := []struct {
		name    string
		letters []*contact.Update
		newer   []*contact.Update // applied before the letters are sent again
		order   []int             // of the redrives; nil: as they are
		o       RedriveOptions
		want    string
		ends    []contact.Outcome // of the redrives
		class   contact.Class
	}{
		{
			name: "nothing newer", letters: []*contact.Update{fields("office", "7", contact.Live, `{"a":"old","b":"old"}`)},
			want: `{"a":"old","b":"old"}`, ends: []contact.Outcome{contact.Applied}, class: contact.Bulk,
		},
		{
			name: "a newer field stays", letters: []*contact.Update{fields("office", "7", contact.Live, `{"a":"old","b":"old"}`)},
			newer: []*contact.Update{fields("office", "7", contact.Live, `{"b":"new"}`)},
			want:  `{"a":"old","b":"new"}`, ends: []contact.Outcome{contact.Applied}, class: contact.Bulk,
		},
		{
			name: "all is newer", letters: []*contact.Update{fields("office", "7", contact.Bulk, `{"a":"old"}`)},
			newer: []*contact.Update{fields("office", "7", contact.Live, `{"a":"new"}`)},
			want:  `{"a":"new"}`, ends: []contact.Outcome{contact.Superseded}, class: contact.Bulk,
		},
		{
			name: "forced", letters: []*contact.Update{fields("office", "7", contact.Live, `{"a":"old"}`)},
			newer: []*contact.Update{fields("office", "7", contact.Live, `{"a":"new"}`)}, o: RedriveOptions{Force: true},
			want: `{"a":"old"}`, ends: []contact.Outcome{contact.Applied}, class: contact.Bulk,
		},
		{
			name: "in its own class", letters: []*contact.Update{fields("office", "7", contact.Live, `{"a":"old"}`)},
			newer: []*contact.Update{fields("office", "7", contact.Bulk, `{"a":"new"}`)}, o: RedriveOptions{OriginalClass: true},
			want: `{"a":"new"}`, ends: []contact.Outcome{contact.Superseded}, class: contact.Live,
		},
		{
			name:    "two letters keep their order",
			letters: []*contact.Update{fields("office", "7", contact.Live, `{"a":"1","b":"1"}`), fields("office", "7", contact.Live, `{"a":"2"}`)},
			order:   []int{1, 0}, want: `{"a":"2","b":"1"}`, ends: []contact.Outcome{contact.Applied, contact.Applied}, class: contact.Bulk,
		},
		{
			name:    "of two letters the older has nothing left",
			letters: []*contact.Update{fields("office", "7", contact.Live, `{"a":"1"}`), fields("office", "7", contact.Live, `{"a":"2"}`)},
			order:   []int{1, 0}, want: `{"a":"2"}`, ends: []contact.Outcome{contact.Applied, contact.Superseded}, class: contact.Bulk,
		},
		{
			name: "edited, and a newer field stays", letters: []*contact.Update{fields("office", "7", contact.Live, `{"a":"old"}`)},
			newer: []*contact.Update{fields("office", "7", contact.Live, `{"b":"new"}`)}, o: RedriveOptions{Body: []byte(`{"fields":{"a":"fixed","b":"fixed"}}`)},
			want: `{"a":"fixed","b":"new"}`, ends: []contact.Outcome{contact.Applied}, class: contact.Bulk,
		},
		{
			name: "a higher version is the newer, whatever came first", letters: []*contact.Update{version(fields("office", "7", contact.Live, `{"a":"v9"}`), 9)},
			newer: []*contact.Update{version(fields("office", "7", contact.Live, `{"a":"v5"}`), 5)},
			want:  `{"a":"v9"}`, ends: []contact.Outcome{contact.Applied}, class: contact.Bulk,
		},
		{
			name: "a lower version is the older", letters: []*contact.Update{version(fields("office", "7", contact.Live, `{"a":"v5"}`), 5)},
			newer: []*contact.Update{version(fields("office", "7", contact.Live, `{"a":"v9"}`), 9)},
			want:  `{"a":"v9"}`, ends: []contact.Outcome{contact.Superseded}, class: contact.Bulk,
		},
		{
			name: "a lower version is forced", letters: []*contact.Update{version(fields("office", "7", contact.Live, `{"a":"v5"}`), 5)},
			newer: []*contact.Update{version(fields("office", "7", contact.Live, `{"a":"v9"}`), 9)}, o: RedriveOptions{Force: true},
			want: `{"a":"v5"}`, ends: []contact.Outcome{contact.Applied}, class: contact.Bulk,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			q := setUp(t, "office")
			ls := dead(t, q, c.letters...)
			crm := newCRM()
			crm.serve(t, q, "office")
			publish(t, q, c.newer...)
			settled(t, q, "office")
			if c.order == nil {
				c.order = []int{0}
			}
			for i, at := range c.order {
				l := ls[at]
				if r := redrive(t, q, l.Seq, c.o); r.Class != c.class {
					t.Errorf("class %s", r.Class)
				}
				settled(t, q, "office")
				var got []Record
				for _, r := range allRecords(t, q, Filter{Target: "office", Contact: "7"}) {
					if r.RedriveOf == fmt.Sprint(l.Seq) {
						got = append(got, r)
					}
				}
				if len(got) != 1 || got[0].Outcome != c.ends[i] {
					t.Fatalf("redrive %d: %+v", i, got)
				}
				if got[0].Outcome == contact.Superseded && got[0].Reason != contact.StaleRedrive {
					t.Errorf("reason %q", got[0].Reason)
				}
			}
			if got := quoted(unquoted(crm.get("office", "7"))); got != c.want {
				t.Errorf("the CRM holds %s, want %s", got, c.want)
			}
			if n := len(letters(t, q, Filter{})); n != 0 {
				t.Errorf("%d letters are left", n)
			}
		})
	}
}

func unquoted(raw map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range raw {
		out[k] = strings.Trim(v, `"`)
	}
	return out
}

// A letter that is given back at the moment at which somebody takes it is in one
// hand or the other, and no error of the server's.
func TestTakeWhileItIsGivenBack(t *testing.T) {
	q := setUp(t, "office")
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for n := range 60 {
				c := &Claim{Letter: 4, Target: "office", Contact: "1", By: "kim", MsgID: fmt.Sprint(w, "-", n)}
				err := q.take(t.Context(), c)
				if err == nil {
					err = q.drop(t.Context(), c)
				}
				if err != nil && !errors.Is(err, ErrInHand) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
