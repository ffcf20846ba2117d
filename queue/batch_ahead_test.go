package queue

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"crmsync/contact"
)

// A server that has too many batches open takes no more of ours, and gives up what
// it was sent ahead of its time: what was added is stored all the same, in its order
// and once.
func TestBatchGivenUpIsSentAgain(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	const open = 49 // of 50, so that nothing can be sent ahead
	for i := range open {
		m := nats.NewMsg(contact.Subject(contact.Key{Target: "office", ID: "1"}, contact.Bulk))
		m.Header.Set(headerBatchID, fmt.Sprint("never ended ", i))
		m.Header.Set(headerBatchSeq, "1")
		if err := q.nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	b := q.Batch("office", contact.Bulk)
	const rows = 5*partSize + 3
	for i := range rows {
		if err := b.Add(t.Context(), update("office", i%13, contact.Bulk, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, d := b.Stored(); s != rows || d != 0 {
		t.Errorf("%d stored, %d duplicates", s, d)
	}
	checkOrder(t, q, "CRM_OFFICE_BULK", rows)
}

// What was sent ahead counts only once its turn has come.
func TestBatchAheadIsNotStored(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	b := q.Batch("office", contact.Bulk)
	for i := range 2 * partSize {
		m, err := message(update("office", i%13, contact.Bulk, i))
		if err != nil {
			t.Fatal(err)
		}
		b.msgs = append(b.msgs, m)
	}
	n, err := b.flushOnce(t.Context())
	if err != nil || n != partSize || b.ahead != (sentAhead{b.msgs[partSize], partSize}) {
		t.Fatalf("%d stored, %v; ahead are %d", n, err, b.ahead.n)
	}
	if err := q.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	checkOrder(t, q, "CRM_OFFICE_BULK", partSize)
	b.drop(n)
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkOrder(t, q, "CRM_OFFICE_BULK", 2*partSize)
}
