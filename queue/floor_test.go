package queue

import (
	"testing"

	"pgregory.net/rapid"
)

// TestFloor compares the bitmap with a set of what was finished.
func TestFloor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Uint64Range(0, 1000).Draw(t, "start")
		f := newFloor(start)
		done := map[uint64]bool{}
		at := start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			lo := at + 1 + rapid.Uint64Range(0, 300).Draw(t, "ahead")
			if rapid.IntRange(0, 2).Draw(t, "edge") == 0 {
				lo = at + 1
			}
			if rapid.IntRange(0, 9).Draw(t, "old") == 0 && lo > 5 {
				lo -= 5
			}
			hi := lo
			if rapid.Bool().Draw(t, "range") {
				hi += rapid.Uint64Range(0, 200).Draw(t, "length")
			}
			f.finishRange(lo, hi)
			for s := lo; s <= hi; s++ {
				done[s] = true
			}
			for done[at+1] {
				at++
			}
			if f.at != at {
				t.Fatalf("floor at %d, want %d", f.at, at)
			}
			for s := at + 1; s < at+700; s++ {
				if f.done(s) != done[s] {
					t.Fatalf("%d done: %v, want %v (floor %d)", s, f.done(s), done[s], at)
				}
			}
			if !f.done(at) || len(f.word) > 20 {
				t.Fatalf("done(%d) = %v with %d words", at, f.done(at), len(f.word))
			}
		}
	})
}

// A floor that a million updates pass costs no memory.
func TestFloorDropsWhatItPassed(t *testing.T) {
	f := newFloor(0)
	for s := uint64(1); s < 1_000_000; s += 2 {
		f.finishRange(s+1, s+1)
		f.finishRange(s, s)
	}
	if f.at != 1_000_000 || len(f.word) > 1 {
		t.Errorf("floor at %d with %d words", f.at, len(f.word))
	}
}
