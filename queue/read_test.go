package queue

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// What is removed while it is being read does not keep the reading waiting.
func TestReadingWhatGoes(t *testing.T) {
	q := setUp(t, "office")
	const n = prefetch + 100
	b := q.Batch("office", contact.Live)
	for i := range n {
		if err := b.Add(t.Context(), update("office", 7+i, contact.Live, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	read := 0
	err := q.follow(ctx, "CRM_OFFICE_LIVE", jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}, false, func(m inMsg) error {
		if read++; read > 1 {
			return nil
		}
		// What was not asked for yet goes: nothing follows what was.
		for seq := uint64(prefetch + 1); seq <= n; seq++ {
			if err := q.ask(ctx, "STREAM.MSG.DELETE.CRM_OFFICE_LIVE", removeRequest{Seq: seq}, nil); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	if err != nil || read != prefetch {
		t.Fatalf("%d of %d read: %v", read, prefetch, err)
	}
}
