package queue

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server/avl"
)

// index is what the server notes of a stream beside its blocks, when it stops and
// now and then while it runs. At its start it believes it, where its last block has
// not changed since.
type index struct {
	msgs, first, last uint64
	blocks            []indexBlock
	tail              int              // number of the last block
	sum               [recordHash]byte // of the last record in it
}

type indexBlock struct {
	number      int
	first, last uint64
	deleted     spans
}

// readIndex reads a stream's index; false where there is none that is whole and of
// a version that this program knows.
func readIndex(path, name string) (*index, bool) {
	b, err := os.ReadFile(filepath.Join(path, messagesDir, indexFile))
	if err != nil || len(b) < 32 {
		return nil, false
	}
	key := sha256.Sum256([]byte(name))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		return nil, false
	}
	body, sum := b[:len(b)-recordHash], b[len(b)-recordHash:]
	_, _ = h.Write(body)
	if !bytes.Equal(h.Sum(nil), sum) || body[0] != 11 || body[1] < 3 || body[1] > 4 {
		return nil, false
	}
	r := &indexReader{b: body[2:], version: body[1]}
	x := r.index()
	return x, !r.failed
}

type indexReader struct {
	b       []byte
	version byte
	failed  bool
}

// number reads one; those with a sign take as many bytes.
func (r *indexReader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.failed, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *indexReader) skip(n uint64) {
	if n > uint64(len(r.b)) {
		r.failed, r.b = true, nil
		return
	}
	r.b = r.b[n:]
}

func (r *indexReader) index() *index {
	x := &index{msgs: r.number()}
	r.number() // bytes
	x.first = r.number()
	r.number() // and its time
	x.last = r.number()
	r.number()
	for n := r.number(); n > 0 && !r.failed; n-- { // subjects
		size := r.number()
		r.skip(size)
		if size == 0 {
			continue
		}
		total := r.number()
		r.number()
		if total > 1 || r.version >= 4 {
			r.number()
		}
	}
	for n := r.number(); n > 0 && !r.failed; n-- {
		x.blocks = append(x.blocks, r.block())
	}
	x.tail = int(r.number())
	if len(r.b) < recordHash {
		r.failed = true
		return x
	}
	copy(x.sum[:], r.b)
	return x
}

func (r *indexReader) block() indexBlock {
	b := indexBlock{number: int(r.number())}
	r.number() // bytes
	b.first = r.number()
	r.number()
	b.last = r.number()
	r.number()
	deleted := r.number()
	r.number() // how many expire
	r.number() // and are due later
	if deleted == 0 || r.failed {
		return b
	}
	set, n, err := avl.Decode(r.b)
	if err != nil {
		r.failed = true
		return b
	}
	r.skip(uint64(n))
	set.Range(func(seq uint64) bool {
		b.deleted = b.deleted.add(seq, seq)
		return true
	})
	return b
}

// holds says whether the index agrees with the last block, so that the server will
// take it for the truth.
func (x *index) holds(path string) bool {
	dir, numbers, err := blockFiles(path)
	if err != nil || len(numbers) == 0 || filepath.Base(dir) != messagesDir || numbers[len(numbers)-1] != x.tail {
		return false
	}
	f, err := os.Open(filepath.Join(dir, strconv.Itoa(x.tail)+blockSuffix))
	if err != nil {
		return false
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return false
	}
	var sum [recordHash]byte
	if i.Size() >= recordHash {
		_, err = f.ReadAt(sum[:], i.Size()-recordHash)
	}
	return err == nil && sum == x.sum
}

// missing is what the index says is stored in blocks that are not there.
func (x *index) missing(path string) (spans, error) {
	_, numbers, err := blockFiles(path)
	var out spans
	for _, b := range x.blocks {
		if b.first <= b.last && !slices.Contains(numbers, b.number) {
			out = out.union(spans{}.add(b.first, b.last).minus(b.deleted))
		}
	}
	return out, err
}
