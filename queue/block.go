package queue

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
)

// How the server's file store writes a message: a length whose highest bit says
// that there are headers, a sequence whose highest bits say that it was erased or
// that the record only notes a removal, a time, the length of the subject; then
// subject, headers, body and HighwayHash-64 of all but the lengths, keyed by
// SHA-256 of the stream's name and the block's number.
const (
	recordHead  = 22
	recordHash  = 8
	recordLeast = recordHead + recordHash
	recordMost  = 32 << 20
	headersBit  = uint32(1) << 31
	erasedBit   = uint64(1) << 63
	removalBit  = uint64(1) << 62
)

// block is what one message block of a stream says.
type block struct {
	index   int
	live    spans // messages that are whole
	told    spans // sequences that are said to be erased or removed
	first   uint64
	last    uint64 // greatest sequence of messages and erased ones, in this block
	noted   uint64 // greatest sequence of which a removal is noted
	lastAt  uint64 // time of the last record, as it is written
	damaged []damage
	raw     []byte // not compressed
	before  uint64
}

// damage is a part of a block that is no record.
type damage struct {
	from, to int // bytes
	// after is the sequence of the last whole message before it in this block,
	// before that of the first behind it; 0 for none.
	after, before uint64
	// hint is the sequence that its head names, 0 where that cannot be.
	hint uint64
	// whole says that it is as long as its head says: not torn off in writing.
	whole bool
}

// errTooLarge says that a block is larger than any that a server writes.
var errTooLarge = errors.New("it is larger than a message block can be")

const blockMost = 64 << 20

// parseBlock reads a block's bytes; before is the last sequence of the block in
// front of it. It never fails on what they are: what is no record is damage.
func parseBlock(stream string, index int, raw []byte, before uint64) *block {
	b := &block{index: index, raw: raw, before: before}
	if bytes.HasPrefix(raw, []byte("cmp")) {
		var c server.CompressionInfo
		n, err := c.UnmarshalMetadata(raw)
		if err == nil && n > 0 {
			raw, err = c.Algorithm.Decompress(raw[n:])
		}
		if err != nil {
			b.damaged = []damage{{from: 0, to: len(b.raw), whole: true}}
			return b
		}
		b.raw = raw
	}
	h := blockHash(stream, index)
	for at := 0; at < len(b.raw); {
		r, ok := readRecord(h, b.raw[at:])
		if !ok {
			at = b.skip(h, at)
			continue
		}
		b.note(r)
		at += r.size
	}
	return b
}

func blockHash(stream string, index int) hash.Hash64 {
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, index))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	return h
}

// record is one whole record.
type record struct {
	size    int
	seq     uint64
	at      uint64
	erased  bool
	removal bool // it stores nothing and notes that a message was removed
	subject []byte
}

// readRecord reads the record at the beginning of b; false where there is none.
func readRecord(h hash.Hash64, b []byte) (record, bool) {
	size, subject, ok := recordShape(b)
	if !ok {
		return record{}, false
	}
	body := b[recordHead : size-recordHash]
	h.Reset()
	_, _ = h.Write(b[4:20])
	_, _ = h.Write(body[:subject])
	rest := body[subject:]
	if binary.LittleEndian.Uint32(b)&headersBit != 0 {
		n := uint64(binary.LittleEndian.Uint32(rest)) // which is not in the sum
		if rest = rest[4:]; n > uint64(len(rest)) || !isHeaders(rest[:n]) {
			return record{}, false
		}
	}
	_, _ = h.Write(rest)
	if h.Sum64() != binary.LittleEndian.Uint64(b[size-recordHash:]) {
		return record{}, false
	}
	r := record{size: size, seq: binary.LittleEndian.Uint64(b[4:]), at: binary.LittleEndian.Uint64(b[12:]), subject: body[:subject]}
	r.erased, r.removal = r.seq&erasedBit != 0, r.seq&removalBit != 0
	r.seq &^= erasedBit | removalBit
	return r, true
}

func isHeaders(b []byte) bool {
	return bytes.HasPrefix(b, []byte("NATS/1.0")) && bytes.HasSuffix(b, []byte("\r\n\r\n"))
}

// recordShape reads the lengths of a record; false where they cannot be.
func recordShape(b []byte) (size, subject int, ok bool) {
	if len(b) < recordLeast {
		return 0, 0, false
	}
	l := binary.LittleEndian.Uint32(b)
	size, subject = int(l&^headersBit), int(binary.LittleEndian.Uint16(b[20:]))
	least := recordLeast + subject
	if l&headersBit != 0 {
		least += 4
	}
	return size, subject, size >= least && size <= len(b) && size <= recordMost
}

func (b *block) note(r record) {
	switch {
	case r.removal:
		b.told = b.told.add(r.seq, r.seq)
		b.noted = max(b.noted, r.seq)
		return // it says nothing of this block's own
	case r.erased || r.seq == 0:
		if r.seq > 0 {
			b.told = b.told.add(r.seq, r.seq)
		}
	case r.seq <= b.last:
		return // the server passes over it, too
	default:
		b.live = b.live.add(r.seq, r.seq)
	}
	if n := len(b.damaged); n > 0 && b.damaged[n-1].before == 0 {
		b.damaged[n-1].before = r.seq
	}
	if b.first == 0 {
		b.first = r.seq
	}
	b.last, b.lastAt = max(b.last, r.seq), r.at
}

// skip notes damage at a place and returns where it ends: at the next whole record,
// or at the block's end.
func (b *block) skip(h hash.Hash64, at int) int {
	d := damage{from: at, to: len(b.raw), after: b.last}
	head := b.raw[at:]
	if len(head) >= recordHead {
		seq := binary.LittleEndian.Uint64(head[4:]) &^ (erasedBit | removalBit)
		if last := max(b.last, b.before); seq > last && seq-last < 1<<20 {
			d.hint = seq
		}
		size := int(binary.LittleEndian.Uint32(head) &^ headersBit)
		d.whole = size >= recordLeast && size <= len(head)
	}
	for next := at + 1; next+recordLeast <= len(b.raw); next++ {
		// Cheap tests first: chance must not make us hash megabytes at each byte.
		seq := binary.LittleEndian.Uint64(b.raw[next+4:])
		plain := seq &^ (erasedBit | removalBit)
		if plain > 1<<48 || seq&removalBit == 0 && plain <= b.last {
			continue
		}
		if r, ok := readRecord(h, b.raw[next:]); ok && (r.removal || r.erased || plausibleSubject(r.subject)) {
			d.to, d.whole = next, true
			break
		}
	}
	b.damaged = append(b.damaged, d)
	return d.to
}

func plausibleSubject(s []byte) bool {
	return len(s) > 0 && bytes.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0
}

// mended is the block with its damage cut out. Sequences that are lost in it are
// said to be erased, so that whoever reads the block knows that they were used.
func (b *block) mended(stream string, lost []spans) []byte {
	h := blockHash(stream, b.index)
	out := make([]byte, 0, len(b.raw))
	at := 0
	for i, d := range b.damaged {
		out = append(out, b.raw[at:d.from]...)
		if last := lost[i].last(); last > 0 {
			out = append(out, erasedRecord(h, last, b.lastAt)...)
		}
		at = d.to
	}
	return append(out, b.raw[at:]...)
}

// erasedRecord says that a sequence was used and holds nothing.
func erasedRecord(h hash.Hash64, seq, at uint64) []byte {
	b := make([]byte, recordHead, recordLeast)
	binary.LittleEndian.PutUint32(b, recordLeast)
	binary.LittleEndian.PutUint64(b[4:], seq|erasedBit)
	binary.LittleEndian.PutUint64(b[12:], at)
	h.Reset()
	_, _ = h.Write(b[4:20])
	return h.Sum(b)
}
