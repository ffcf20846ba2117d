package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"crmsync/contact"
)

func BenchmarkPublish(b *testing.B) {
	q := setUp(b, "office")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		u := update("office", i%1000, contact.Live, i)
		if _, err := q.Publish(b.Context(), u); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBatch(b *testing.B) {
	q := setUp(b, "office")
	batch := q.Batch("office", contact.Bulk)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := batch.Add(b.Context(), update("office", i%1000, contact.Bulk, i)); err != nil {
			b.Fatal(err)
		}
	}
	if err := batch.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkScrub reads the message files of 200,000 updates, as is done once a
// minute beside everything else.
func BenchmarkScrub(b *testing.B) {
	q := setUp(b, "office")
	batch := q.Batch("office", contact.Bulk)
	for i := range 200_000 {
		if err := batch.Add(b.Context(), update("office", i, contact.Bulk, i)); err != nil {
			b.Fatal(err)
		}
	}
	if err := batch.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	name := streamName("office", contact.Bulk)
	b.ReportAllocs()
	for b.Loop() {
		d, err := readStream(q.srv.store.path(name), name, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(d.size)
	}
}

// BenchmarkDrain is Next and Settle with nothing between, so many settlements at a
// time, each of one update of another contact: the most that a target without a
// CRM could do.
func BenchmarkDrain(b *testing.B) {
	for _, atOnce := range []int{256, 8} {
		b.Run(fmt.Sprint(atOnce), func(b *testing.B) { benchmarkDrain(b, atOnce) })
	}
}

func benchmarkDrain(b *testing.B, atOnce int) {
	q := setUp(b, "office")
	const load = 20_000
	b.ReportAllocs()
	b.ResetTimer()
	done := 0
	for round := 0; b.Loop(); round++ {
		b.StopTimer()
		batch := q.Batch("office", contact.Live)
		for i := range load {
			if err := batch.Add(b.Context(), update("office", i, contact.Live, round*load+i)); err != nil {
				b.Fatal(err)
			}
		}
		if err := batch.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		b.StartTimer()
		err := q.Own(ctx, plain("office"), func(ctx context.Context, s *Source) {
			drain(b, s, load, atOnce)
			stop()
		})
		if err != nil {
			b.Fatal(err)
		}
		done += load
	}
	b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "updates/s")
}

func drain(b *testing.B, s *Source, n, atOnce int) {
	work := make(chan *contact.Update, atOnce)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for u := range work {
				st := settlement(contact.Applied, u)
				if err := s.Settle(context.Background(), st); err != nil && !errors.Is(err, ErrLost) {
					b.Error(err)
				}
			}
		})
	}
	for n > 0 {
		d, err := s.Next(context.Background(), contact.Live)
		if err != nil {
			b.Error(err)
			break
		}
		if d.Update != nil {
			work <- d.Update
			n--
		}
	}
	close(work)
	wg.Wait()
}
