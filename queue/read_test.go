package queue

import (
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// A reading that ends with what there is finds all of it, however many messages
// are removed beside it: the server's count of what is pending is then wrong in
// both directions.
func TestListingsBesideRemovals(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	const keys, listings = 8, 100
	put := func(name string) []uint64 {
		seqs := make([]uint64, keys)
		for n := range seqs {
			var err error
			if seqs[n], err = q.letters.put(t.Context(), fmt.Sprintf("test.%s.%d", name, n), []byte("x"), anyRevision); err != nil {
				t.Fatal(err)
			}
		}
		return seqs
	}
	cfg := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy, FilterSubject: q.letters.subject("test.>"), HeadersOnly: true}
	for n := range listings {
		var going sync.WaitGroup
		goes := put("goes")
		stays := put("stays")
		going.Go(func() {
			for _, seq := range goes {
				if err := q.erase(t.Context(), q.letters.stream(), seq); err != nil {
					t.Error(err)
				}
			}
		})
		seen := map[uint64]bool{}
		err := q.follow(t.Context(), q.letters.stream(), cfg, false, func(m inMsg) error { seen[m.seq] = true; return nil })
		going.Wait()
		if err != nil {
			t.Fatal(err)
		}
		for _, seq := range stays {
			if !seen[seq] {
				t.Fatalf("listing %d: message %d of %v was there all the time and was not read", n, seq, stays)
			}
		}
	}
}
