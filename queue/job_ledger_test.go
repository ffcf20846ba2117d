package queue

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"crmsync/contact"
)

// rowModel is a row as somebody who saw everything would tell it.
type rowModel struct {
	row     int64 // 0: it has none
	place   uint64
	queued  bool
	outcome contact.Outcome
	letter  uint64   // where it is dead
	gone    []uint64 // letters whose discarding will be told yet
}

// TestJobLedger tells a ledger what happens to rows, in every order that the
// queue allows, and from the beginning as one who begins to count later reads it:
// with the letters gone that were removed meanwhile. Both must agree with who saw
// everything.
func TestJobLedger(t *testing.T) { rapid.Check(t, checkJobLedger) }

type ledgerEvent struct {
	wait   *jobEnd
	again  bool
	ending jobEnding
	erased bool
}

func checkJobLedger(t *rapid.T) {
	rows := make([]*rowModel, rapid.IntRange(1, 12).Draw(t, "rows"))
	for i := range rows {
		rows[i] = &rowModel{place: uint64(i + 1)}
		if rapid.Bool().Draw(t, "has a row") {
			rows[i].row = int64(i)*3000 + 1
		}
	}
	var events []*ledgerEvent
	byRecord := map[uint64]*ledgerEvent{}
	repeats := map[uint64]uint64{} // a letter: the one before it
	seq := uint64(0)
	tell := func(r *rowModel, e jobEnding) uint64 {
		seq++
		e.seq, e.ends = seq, []jobEnd{{row: r.row, class: contact.Bulk, seq: r.place}}
		ev := &ledgerEvent{ending: e}
		events = append(events, ev)
		byRecord[seq] = ev
		return seq
	}
	remove := func(letter uint64) { byRecord[letter].erased = true }
	t.Repeat(map[string]func(*rapid.T){
		"queue": func(t *rapid.T) {
			r := rapid.SampledFrom(rows).Draw(t, "row")
			if r.queued {
				t.Skip()
			}
			r.queued = true
			events = append(events, &ledgerEvent{wait: &jobEnd{row: r.row, class: contact.Bulk, seq: r.place}})
		},
		"end": func(t *rapid.T) {
			r := rapid.SampledFrom(rows).Draw(t, "row")
			if !r.queued || r.outcome != contact.Pending {
				t.Skip()
			}
			o := rapid.SampledFrom([]contact.Outcome{contact.Applied, contact.Superseded, contact.Dead, contact.Cancelled}).Draw(t, "outcome")
			r.outcome = o
			if n := tell(r, jobEnding{outcome: o, reason: reasonOf(o)}); o == contact.Dead {
				r.letter = n
			}
		},
		"send again": func(t *rapid.T) {
			r := rapid.SampledFrom(rows).Draw(t, "row")
			if r.outcome != contact.Dead {
				t.Skip()
			}
			events = append(events, &ledgerEvent{wait: &jobEnd{row: r.row, class: contact.Bulk, seq: r.place + 1000}, again: true})
			o := rapid.SampledFrom([]contact.Outcome{contact.Applied, contact.Dead, contact.Cancelled}).Draw(t, "outcome")
			n := tell(r, jobEnding{outcome: o, reason: reasonOf(o), again: r.letter})
			if o == contact.Cancelled {
				return
			}
			r.gone = append(r.gone, r.letter)
			r.outcome = o
			if o == contact.Dead {
				repeats[n], r.letter = r.letter, n
			}
		},
		"remove what was sent again": func(t *rapid.T) {
			r := rapid.SampledFrom(rows).Draw(t, "row")
			if len(r.gone) == 0 {
				t.Skip()
			}
			i := rapid.IntRange(0, len(r.gone)-1).Draw(t, "which")
			l := r.gone[i]
			r.gone = slices.Delete(r.gone, i, i+1)
			tell(r, jobEnding{outcome: contact.Discarded, reason: contact.Invalid, letter: l, again: repeats[l]})
			remove(l)
		},
		"discard": func(t *rapid.T) {
			r := rapid.SampledFrom(rows).Draw(t, "row")
			if r.outcome != contact.Dead {
				t.Skip()
			}
			r.outcome = contact.Discarded
			tell(r, jobEnding{outcome: contact.Discarded, reason: contact.Invalid, letter: r.letter, again: repeats[r.letter]})
			remove(r.letter)
		},
		"": func(t *rapid.T) {
			compare(t, "who followed", follow(events, false), rows)
			compare(t, "who came later", follow(events, true), rows)
		},
	})
}

func reasonOf(o contact.Outcome) contact.Reason {
	if o == contact.Dead {
		return contact.Invalid
	}
	return contact.NoReason
}

// follow tells a ledger the events: one who comes later reads the streams first,
// and not what has been erased.
func follow(events []*ledgerEvent, later bool) *jobLedger {
	l := newJobLedger()
	for _, e := range events {
		if e.wait != nil {
			l.waiting(*e.wait, e.again)
		}
		if e.wait == nil && !later {
			l.ended(e.ending)
		}
	}
	for _, e := range events {
		if later && e.wait == nil && !e.erased {
			l.ended(e.ending)
		}
	}
	return l
}

func compare(t *rapid.T, who string, l *jobLedger, rows []*rowModel) {
	var want [outcomes]int64
	waits, dead := int64(0), int64(0)
	for _, r := range rows {
		switch {
		case r.outcome != contact.Pending:
			want[r.outcome]++
		case r.queued:
			waits++
		}
		if r.outcome == contact.Dead {
			dead++
		}
	}
	if l.count != want || l.waits != waits || l.reason[contact.Invalid] != dead {
		t.Fatalf("%s counts %v and %d waiting, reasons %v; want %v and %d", who, l.count, l.waits, l.reason, want, waits)
	}
	told := map[int64]contact.Outcome{}
	l.each(func(row int64, o contact.Outcome, letter uint64) bool {
		told[row] = o
		if (o == contact.Dead) != (letter > 0) {
			t.Fatalf("%s: row %d is %s with letter %d", who, row, o, letter)
		}
		return true
	})
	for _, r := range rows {
		if o, ok := told[r.row]; r.row > 0 && (ok != r.queued || o != r.outcome) {
			t.Fatalf("%s tells row %d as %s, %v; it is %s", who, r.row, o, ok, r.outcome)
		}
	}
}

// A record that comes before its update was seen in the stream, as for one who
// follows both: it has ended, not begun.
func TestJobLedgerRecordFirst(t *testing.T) {
	l := newJobLedger()
	for _, e := range []jobEnd{{row: 4}, {class: contact.Live, seq: 9}} {
		l.ended(jobEnding{seq: 1, outcome: contact.Applied, ends: []jobEnd{e}})
		l.waiting(e, false)
	}
	if l.waits != 0 || l.count[contact.Applied] != 2 {
		t.Errorf("%d wait, %v", l.waits, l.count)
	}
}

func FuzzParseRows(f *testing.F) {
	f.Add("5")
	f.Add("5,7,bulk9,live1")
	f.Add("0,-1,bulk0,bulk,18446744073709551616")
	f.Fuzz(func(t *testing.T, s string) {
		ends, ok := parseRows(s)
		if !ok {
			return
		}
		covered := make([]Covered, len(ends))
		for i, e := range ends {
			covered[i] = Covered{Class: e.class, Seq: e.seq, Row: e.row}
		}
		again, ok := parseRows(rowsHeader(covered))
		if len(ends) > maxRowsNamed {
			return
		}
		if !ok || len(again) != len(ends) {
			t.Fatalf("%q becomes %q", s, rowsHeader(covered))
		}
		for i := range again {
			if again[i] != ends[i] {
				t.Fatalf("%q becomes %q", s, rowsHeader(covered))
			}
		}
	})
}
