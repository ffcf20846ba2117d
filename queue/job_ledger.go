package queue

import (
	"strconv"
	"strings"
	"time"

	"crmsync/contact"
)

// jobLedger adds up what is stored of a job's rows: each row once, by the newest
// of its records. It takes some bytes a row, whatever the rows went through.
//
// Records are told in the order in which they were stored, updates that lie in
// their stream before the records: a row that ends in between counts as ended.
type jobLedger struct {
	pages  map[int64]*jobPage // of rows, by row/pageRows
	loose  [contact.Classes]looseUpdates
	count  [outcomes]int64
	reason map[contact.Reason]int64
	waits  int64 // rows and loose updates that were seen waiting, with no outcome
	// Of letters without a row: the update that each belongs to, and which were
	// sent again, whose being discarded is no news.
	loosely map[uint64]*looseEnd
	again   map[uint64]bool
}

// looseEnd is how an update without a row stands, through all the letters that
// it became.
type looseEnd struct {
	outcome contact.Outcome
	reason  contact.Reason
	into    *looseEnd // it turned out to be an earlier part of that one
}

// outcomes is how many outcomes there are, contact.Pending among them.
const outcomes = int(contact.Cancelled) + 1

const (
	pageRows = 4096
	// maxJobRow is the highest row that is told apart; beyond it a number is
	// no row of any file that could be read here.
	maxJobRow = 1 << 30
)

// jobPage is what is known of some rows.
type jobPage struct {
	state  [pageRows]byte // contact.Outcome, and rowWaits
	letter *[pageRows]uint64
	reason *[pageRows]contact.Reason
}

const rowWaits = 0x80 // an update of the row was seen in its stream

// looseUpdates are updates without a row, by their place.
type looseUpdates struct {
	waiting map[uint64]bool
	ended   map[uint64]bool // of which a record was seen before the update
	scanned uint64
}

// jobEnding is what a record tells of a job's rows.
type jobEnding struct {
	seq     uint64
	at      time.Time
	outcome contact.Outcome
	reason  contact.Reason
	ends    []jobEnd
	again   uint64 // the letter that the update repeated
	letter  uint64 // the letter whose place this discarded record took
}

// jobEnd is one update that ended: its row, or its place where it has none.
type jobEnd struct {
	row   int64
	class contact.Class
	seq   uint64
}

func newJobLedger() *jobLedger {
	l := &jobLedger{
		pages: map[int64]*jobPage{}, reason: map[contact.Reason]int64{},
		loosely: map[uint64]*looseEnd{}, again: map[uint64]bool{},
	}
	for c := range l.loose {
		l.loose[c] = looseUpdates{waiting: map[uint64]bool{}, ended: map[uint64]bool{}}
	}
	return l
}

func (l *jobLedger) page(row int64) (*jobPage, int) {
	p := l.pages[row/pageRows]
	if p == nil {
		p = &jobPage{}
		l.pages[row/pageRows] = p
	}
	return p, int(row % pageRows)
}

// waiting notes an update that lies in its stream. One that repeats a letter is
// none of the job's own: its row has ended, and will have ended otherwise.
func (l *jobLedger) waiting(e jobEnd, again bool) {
	if lo := &l.loose[e.class]; e.seq > lo.scanned {
		lo.scanned = e.seq
	}
	if again {
		return
	}
	if e.row > 0 {
		p, i := l.page(e.row)
		if p.state[i] == 0 {
			l.waits++
		}
		p.state[i] |= rowWaits
		return
	}
	lo := &l.loose[e.class]
	if lo.ended[e.seq] {
		delete(lo.ended, e.seq)
		return
	}
	if !lo.waiting[e.seq] {
		lo.waiting[e.seq] = true
		l.waits++
	}
}

// scannedTo says up to where a class's stream has been looked through.
func (l *jobLedger) scannedTo(c contact.Class, seq uint64) {
	lo := &l.loose[c]
	lo.scanned = max(lo.scanned, seq)
	for n := range lo.ended {
		if n <= lo.scanned {
			delete(lo.ended, n)
		}
	}
}

// ended notes a record; it returns how many rows have ended by it for the first
// time.
func (l *jobLedger) ended(r jobEnding) (n int64) {
	for _, e := range r.ends {
		before := l.total()
		if e.row > 0 {
			l.endRow(e.row, r)
		} else {
			l.endLoose(e, r)
		}
		n += l.total() - before
	}
	return n
}

// total is how many rows have ended.
func (l *jobLedger) total() (n int64) {
	for _, k := range l.count {
		n += k
	}
	return n
}

func (l *jobLedger) endRow(row int64, r jobEnding) {
	p, i := l.page(row)
	was := contact.Outcome(p.state[i] &^ rowWaits)
	switch {
	case r.letter > 0:
		// It stands for a letter: where the row has gone on from that, or the
		// row's newest record was one that has expired, nothing changes. An
		// older letter of the row may still be there, which is no newer.
		if was != contact.Pending && (was != contact.Dead || p.letter[i] > r.letter) {
			return
		}
	case r.again > 0 && r.outcome == contact.Cancelled:
		return // the letter was given back
	}
	if was == contact.Pending && p.state[i]&rowWaits != 0 {
		l.waits--
	}
	if was != contact.Pending {
		l.count[was]--
	}
	if was == contact.Dead {
		l.reasoned(p.reason[i], -1)
	}
	l.count[r.outcome]++
	p.state[i] = p.state[i]&rowWaits | byte(r.outcome)
	if r.outcome == contact.Dead {
		if p.letter == nil {
			p.letter, p.reason = new([pageRows]uint64), new([pageRows]contact.Reason)
		}
		p.letter[i], p.reason[i] = r.seq, r.reason
		l.reasoned(r.reason, 1)
	}
}

func (l *jobLedger) reasoned(r contact.Reason, n int64) {
	if l.reason[r] += n; l.reason[r] == 0 {
		delete(l.reason, r)
	}
}

// endLoose notes the end of an update without a row. Records name the letter that
// they repeat, so the letters of one update are known to be one, in whatever part
// they are still there.
func (l *jobLedger) endLoose(e jobEnd, r jobEnding) {
	switch {
	case r.letter > 0:
		l.endPlace(e) // its own record may have gone with the letter
		of := l.looseOf(r.letter)
		if r.again > 0 {
			l.sentAgain(r.again, of)
		}
		if !l.again[r.letter] {
			l.setLoose(of, r)
		}
	case r.again > 0 && r.outcome == contact.Cancelled: // the letter was given back
	case r.again > 0:
		of := l.looseOf(r.again)
		l.again[r.again] = true
		l.setLoose(of, r)
	default:
		l.endPlace(e)
		l.setLoose(&looseEnd{}, r)
	}
}

// looseOf is the update that a letter belongs to.
func (l *jobLedger) looseOf(letter uint64) *looseEnd {
	of := l.loosely[letter]
	if of == nil {
		of = &looseEnd{}
	}
	for of.into != nil {
		of = of.into
	}
	l.loosely[letter] = of
	return of
}

// sentAgain says that a letter was sent again and became what of stands for.
func (l *jobLedger) sentAgain(letter uint64, of *looseEnd) {
	l.again[letter] = true
	if was := l.looseOf(letter); was != of {
		l.countLoose(was, -1)
		was.into = of
	}
}

func (l *jobLedger) setLoose(of *looseEnd, r jobEnding) {
	l.countLoose(of, -1)
	of.outcome, of.reason = r.outcome, r.reason
	l.countLoose(of, 1)
	if r.outcome == contact.Dead {
		l.loosely[r.seq] = of
	}
}

func (l *jobLedger) countLoose(of *looseEnd, n int64) {
	if of.outcome == contact.Pending {
		return
	}
	l.count[of.outcome] += n
	if of.outcome == contact.Dead {
		l.reasoned(of.reason, n)
	}
}

// endPlace notes that the update at a place waits no more.
func (l *jobLedger) endPlace(e jobEnd) {
	lo := &l.loose[e.class]
	if lo.waiting[e.seq] {
		delete(lo.waiting, e.seq)
		l.waits--
	} else if e.seq > lo.scanned {
		lo.ended[e.seq] = true
	}
}

// row is what is known of one row.
func (l *jobLedger) row(n int64) (o contact.Outcome, letter uint64, known bool) {
	p := l.pages[n/pageRows]
	if p == nil || p.state[n%pageRows] == 0 {
		return 0, 0, false
	}
	o = contact.Outcome(p.state[n%pageRows] &^ rowWaits)
	if o == contact.Dead {
		letter = p.letter[n%pageRows]
	}
	return o, letter, true
}

// each calls f for the rows that are known, in order, until it returns false.
// letter is the dead letter of a dead row.
func (l *jobLedger) each(f func(row int64, o contact.Outcome, letter uint64) bool) {
	last := int64(-1)
	for n := range l.pages {
		last = max(last, n)
	}
	for n := int64(0); n <= last; n++ {
		p := l.pages[n]
		if p == nil {
			continue
		}
		for i, st := range p.state {
			if st == 0 {
				continue
			}
			row := n*pageRows + int64(i)
			if o, letter, _ := l.row(row); !f(row, o, letter) {
				return
			}
		}
	}
}

// headerRows names the rows of a job's record, so that they are counted without
// the bodies: row numbers or, where an update has none, class and sequence as in
// bulk7. It is absent where there are many.
const (
	headerRows   = "Crmsync-Rows"
	maxRowsNamed = 32
)

func rowsHeader(updates []Covered) string {
	if len(updates) > maxRowsNamed {
		return ""
	}
	parts := make([]string, len(updates))
	for i, u := range updates {
		if parts[i] = strconv.FormatInt(u.Row, 10); u.Row <= 0 {
			parts[i] = u.Class.String() + strconv.FormatUint(u.Seq, 10)
		}
	}
	return strings.Join(parts, ",")
}

func jobEnds(updates []Covered) []jobEnd {
	out := make([]jobEnd, len(updates))
	for i, u := range updates {
		out[i] = jobEnd{class: u.Class, seq: u.Seq}
		if u.Row <= maxJobRow {
			out[i].row = max(u.Row, 0)
		}
	}
	return out
}

// parseRows reads what rowsHeader wrote; false for anything else.
func parseRows(s string) ([]jobEnd, bool) {
	parts := strings.Split(s, ",")
	out := make([]jobEnd, len(parts))
	for i, p := range parts {
		e := &out[i]
		for c := range contact.Class(contact.Classes) {
			if rest, ok := strings.CutPrefix(p, c.String()); ok {
				e.class, p = c, rest
				n, err := strconv.ParseUint(p, 10, 64)
				if err != nil || n == 0 {
					return nil, false
				}
				e.seq = n
			}
		}
		if e.seq > 0 {
			continue
		}
		n, err := strconv.ParseInt(p, 10, 64)
		if err != nil || n <= 0 || n > maxJobRow {
			return nil, false
		}
		e.row = n
	}
	return out, true
}
