package queue

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"crmsync/contact"
)

// realBlock is what a real server wrote: n updates of office, of which some are
// erased, on a store that was closed in order.
func realBlock(t *testing.T, n int, erase ...uint64) (dir string, raw []byte) {
	t.Helper()
	dir = t.TempDir() + "/nats"
	q := open(t, testOptions(t, dir))
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		publish(t, q, update("office", i, contact.Live, i))
	}
	for _, seq := range erase {
		if err := q.erase(t.Context(), officeLive, seq); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(blockPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	return dir, raw
}

const officeLive = "CRM_OFFICE_LIVE"

func blockPath(dir string) string {
	return filepath.Join(dir, streamsDir, officeLive, messagesDir, "1.blk")
}

// What a real server writes is read without a complaint, and no flip of any bit of
// it goes unnoticed: each costs at most the message that it hits.
func TestBlockKnowsEveryBit(t *testing.T) {
	const n = 12
	_, raw := realBlock(t, n, 4)
	b := parseBlock(officeLive, 1, raw, 0)
	if len(b.damaged) > 0 || b.live.String() != "1 to 3, 5 to 12" || !b.told.has(4) || b.last != n {
		t.Fatalf("live %s, told %s, last %d, damaged %v", b.live, b.told, b.last, b.damaged)
	}
	whole := b
	for at := range raw {
		for bit := range 8 {
			bad := slices.Clone(raw)
			bad[at] ^= 1 << bit
			b := parseBlock(officeLive, 1, bad, 0)
			if len(b.damaged) == 0 && lengthOfNothing(raw, at) && b.live.String() == whole.live.String() {
				continue
			}
			if len(b.damaged) == 0 {
				t.Fatalf("bit %d of byte %d turned over without a notice", bit, at)
			}
			if got := (spans{{1, n}}).minus(b.live).minus(b.told).count(); got > 1 {
				t.Fatalf("bit %d of byte %d costs %d messages: %+v", bit, at, got, b.damaged)
			}
		}
	}
}

// lengthOfNothing says that a byte is of the lengths of subject and headers in a
// record that has neither.
func lengthOfNothing(raw []byte, at int) bool {
	h := blockHash(officeLive, 1)
	for from := 0; from < len(raw); {
		r, ok := readRecord(h, raw[from:])
		if !ok {
			return false
		}
		if at < from+r.size {
			return (r.erased || r.removal) && (at-from < 4 || at-from >= 20 && at-from < recordHead)
		}
		from += r.size
	}
	return false
}

// A mended block is one that the parser, and so the server, has no complaint about;
// what was whole in it is in it still.
func TestBlockIsMended(t *testing.T) {
	const n = 30
	_, raw := realBlock(t, n)
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		bad := slices.Clone(raw)
		for range 1 + rng.IntN(3) {
			at := rng.IntN(len(bad))
			switch rng.IntN(3) {
			case 0:
				bad[at] ^= 1 << rng.IntN(8)
			case 1: // a hole of zeros
				clear(bad[at:min(at+rng.IntN(300), len(bad))])
			case 2: // torn off
				bad = bad[:max(at, len(bad)*3/4)]
			}
		}
		b := parseBlock(officeLive, 1, bad, 0)
		d := &diskStream{name: officeLive}
		d.add(b)
		lost := make([]spans, len(b.damaged))
		var all spans
		for i, dmg := range b.damaged {
			lost[i] = d.lostIn(0, dmg, mark{First: 1, Last: n})
			all = all.union(lost[i])
		}
		again := parseBlock(officeLive, 1, b.mended(officeLive, lost), 0)
		if len(again.damaged) > 0 || again.live.String() != b.live.String() {
			t.Fatalf("seed %d: mended %v, live %s, was %s", seed, again.damaged, again.live, b.live)
		}
		if got := b.live.union(all).String(); len(b.damaged) > 0 && got != fmt.Sprintf("1 to %d", n) {
			t.Fatalf("seed %d: live %s, lost %s: %s", seed, b.live, all, got)
		}
		if last := all.last(); last > 0 && again.last < last {
			t.Fatalf("seed %d: the block ends at %d, %s were lost", seed, again.last, all)
		}
	}
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte("cmp\x01\x05garbage"), uint64(0))
	f.Add(erasedRecord(blockHash("S", 1), 7, 1), uint64(3))
	f.Fuzz(func(t *testing.T, raw []byte, before uint64) {
		b := parseBlock("S", 1, raw, before)
		at := 0
		for _, d := range b.damaged {
			if d.from < at || d.to <= d.from || d.to > max(len(b.raw), len(raw)) {
				t.Fatalf("damage %+v of %d bytes", d, len(b.raw))
			}
			at = d.to
		}
		if !bytes.HasPrefix(raw, []byte("cmp")) {
			again := parseBlock("S", 1, b.mended("S", make([]spans, len(b.damaged))), before)
			if again.live.String() != b.live.String() {
				t.Fatalf("mended %s, was %s", again.live, b.live)
			}
		}
	})
}
