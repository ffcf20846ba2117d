package queue

import (
	"math/rand/v2"
	"testing"
)

func TestSpansAgainstASet(t *testing.T) {
	const most = 40
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		draw := func() (spans, [most + 2]bool) {
			var s spans
			var set [most + 2]bool
			for range rng.IntN(8) {
				from := 1 + rng.Uint64N(most)
				to := min(from+rng.Uint64N(6), most)
				s = s.add(from, to)
				for i := from; i <= to; i++ {
					set[i] = true
				}
			}
			return s, set
		}
		a, inA := draw()
		b, inB := draw()
		from, to := rng.Uint64N(most), rng.Uint64N(most+1)
		n := uint64(0)
		for i := uint64(1); i <= most; i++ {
			if inA[i] {
				n++
			}
			in := i >= from && i <= to
			for what, ok := range map[string]bool{
				"has":    a.has(i) == inA[i],
				"union":  a.union(b).has(i) == (inA[i] || inB[i]),
				"minus":  a.minus(b).has(i) == (inA[i] && !inB[i]),
				"within": a.within(from, to).has(i) == (inA[i] && in),
			} {
				if !ok {
					t.Fatalf("seed %d: %s of %v and %v is wrong at %d", seed, what, a, b, i)
				}
			}
		}
		for _, s := range []spans{a, a.union(b), a.minus(b)} {
			for i := 1; i < len(s); i++ {
				if s[i-1].To+1 >= s[i].From {
					t.Fatalf("seed %d: %v touch", seed, s)
				}
			}
		}
		if a.count() != n || n > 0 && !inA[a.last()] {
			t.Fatalf("seed %d: %v has %d, last %d", seed, a, a.count(), a.last())
		}
	}
	if got := (spans{{8, 8}, {10, 20}}).String(); got != "8, 10 to 20" {
		t.Error(got)
	}
}
