package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crmsync/contact"
	"crmsync/crm"
)

// benchSource hands out updates as fast as they are taken and tells when all
// have been settled.
type benchSource struct {
	updates []contact.Update
	next    int
	told    bool
	mu      sync.Mutex
	left    int
	done    chan struct{}
}

func (s *benchSource) Next(ctx context.Context, c contact.Class) (contact.Delivery, error) {
	if c == contact.Live && s.next < len(s.updates) {
		s.next++
		return contact.Delivery{Update: &s.updates[s.next-1]}, nil
	}
	if c == contact.Bulk && !s.told {
		s.told = true
		return contact.Delivery{}, nil
	}
	if c == contact.Live && s.next == len(s.updates) {
		s.next++
		return contact.Delivery{}, nil
	}
	<-ctx.Done()
	return contact.Delivery{}, ctx.Err()
}

func (s *benchSource) Settle(_ context.Context, st contact.Settlement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left -= len(st.Ended); s.left == 0 {
		close(s.done)
	}
	return nil
}

func (s *benchSource) Recall(context.Context, []contact.Ref) ([]contact.Ref, error) {
	return nil, nil
}
func (s *benchSource) Fence(string) contact.Fence { return nil }
func (s *benchSource) Lease() time.Time           { return time.Now().Add(time.Hour) }

func BenchmarkDrain(b *testing.B) {
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.2, 1, 9999)
	for name, id := range map[string]func(i int) string{
		"distinct": func(i int) string { return fmt.Sprint(i) },
		"one":      func(int) string { return "1" },
		"zipf":     func(int) string { return fmt.Sprint(zipf.Uint64()) },
	} {
		b.Run(name, func(b *testing.B) {
			p, err := contact.ParsePatch([]byte(`{"email":"bob@example.com","firstname":"Bob","phonenumber":null}`))
			if err != nil {
				b.Fatal(err)
			}
			src := &benchSource{updates: make([]contact.Update, b.N), left: b.N, done: make(chan struct{})}
			for i := range src.updates {
				src.updates[i] = contact.Update{
					Contact: contact.Key{Target: "shop", ID: id(i)}, Seq: uint64(i + 1), Fields: p, Raw: make([]byte, 0), Stored: time.Unix(int64(i), 0),
				}
			}
			l := New(Options{
				Target: "shop", Source: src, Timeout: time.Second, Quota: Quota{Concurrency: 16}, Log: zerolog.Nop(),
				Sender: senderFunc(func() []crm.Answer { return []crm.Answer{{Verdict: contact.VerdictApplied, Status: 200}} }),
			})
			b.ReportAllocs()
			b.ResetTimer()
			ctx, stop := context.WithCancel(b.Context())
			ended := make(chan error)
			go func() { ended <- l.Run(ctx, b.Context()) }()
			<-src.done
			stop()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}
