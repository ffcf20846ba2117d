package queue

import "math/bits"

// Span is how far beyond its first unfinished update a class is read: updates
// behind that wait, so that one contact that cannot end does not make the
// memory of what has ended grow for ever.
const Span = 1_000_000

// floor remembers which updates of one stream have ended: all up to at, and
// those beyond whose bit is set. It costs one bit for each update between the
// first that has not ended and the last that has.
type floor struct {
	at   uint64   // everything up to here has ended
	base uint64   // sequence of the first bit; at+1 lies in the first word
	word []uint64 // bit i of word w stands for base + 64*w + i
}

func newFloor(at uint64) floor { return floor{at: at, base: at + 1} }

// done says whether an update has ended.
func (f *floor) done(seq uint64) bool {
	if seq <= f.at {
		return true
	}
	i := seq - f.base
	return i/64 < uint64(len(f.word)) && f.word[i/64]&(1<<(i%64)) != 0
}

// finishRange notes that the updates from lo to hi, both included, have ended.
func (f *floor) finishRange(lo, hi uint64) {
	lo = max(lo, f.at+1)
	if lo > hi {
		return
	}
	if lo == f.at+1 && f.empty() {
		f.at, f.base, f.word = hi, hi+1, f.word[:0]
		return
	}
	for need := (hi-f.base)/64 + 1; uint64(len(f.word)) < need; {
		f.word = append(f.word, 0)
	}
	for s := lo; s <= hi; {
		i := s - f.base
		n := min(64-i%64, hi-s+1)
		mask := ^uint64(0)
		if n < 64 {
			mask = (1<<n - 1) << (i % 64)
		}
		f.word[i/64] |= mask
		s += n
	}
	f.advance()
}

func (f *floor) empty() bool {
	for _, w := range f.word {
		if w != 0 {
			return false
		}
	}
	return true
}

// advance moves at over what has ended without a gap and drops whole words.
func (f *floor) advance() {
	for {
		i := f.at + 1 - f.base
		if i/64 >= uint64(len(f.word)) {
			break
		}
		run := uint64(bits.TrailingZeros64(^(f.word[i/64] >> (i % 64))))
		run = min(run, 64-i%64)
		f.at += run
		if i%64+run < 64 {
			break
		}
	}
	if drop := (f.at + 1 - f.base) / 64; drop > 0 {
		drop = min(drop, uint64(len(f.word)))
		f.word = f.word[drop:]
		f.base += 64 * drop
	}
}
