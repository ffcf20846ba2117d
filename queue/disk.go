package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Names in a stream's folder.
const (
	messagesDir = "msgs"
	newDir      = "__new_msgs__" // of a purge that is under way
	indexFile   = "index.db"
	blockSuffix = ".blk"
	keySuffix   = ".key"
)

// diskStream is what a stream's files say, looked at without its server.
type diskStream struct {
	name   string
	path   string
	blocks []*block // by number; nil raw where a block was looked at before
	live   spans    // messages
	told   spans    // sequences of which it is said that they hold nothing
	last   uint64   // the greatest sequence that is told of
	opaque bool     // some of it cannot be read here, since it is encrypted
	size   int64
}

// streamDirs lists the streams in a folder of a store.
func streamDirs(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("queue: store: %w", err)
	}
	var out []string
	for _, d := range all {
		if d.IsDir() && !strings.HasPrefix(d.Name(), ".") {
			out = append(out, d.Name())
		}
	}
	return out, nil
}

// blockFiles lists the numbers of a stream's message blocks, rising. A purge that
// a kill cut short left the new block beside the old ones; the server puts it in
// their place.
func blockFiles(path string) (dir string, numbers []int, err error) {
	for _, name := range []string{newDir, messagesDir} {
		dir = filepath.Join(path, name)
		numbers = nil
		all, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, fmt.Errorf("queue: store: %w", err)
		}
		for _, f := range all {
			if n, ok := blockNumber(f.Name()); ok {
				numbers = append(numbers, n)
			}
		}
		if len(numbers) > 0 {
			break
		}
	}
	slices.Sort(numbers)
	return dir, numbers, nil
}

func blockNumber(name string) (int, bool) {
	digits, ok := strings.CutSuffix(name, blockSuffix)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n > 0
}

// readStream reads all message blocks of a stream. each is called with every block
// that was read, and may be nil; the blocks' bytes are kept where they are damaged
// only.
func readStream(path, name string, each func(size int)) (*diskStream, error) {
	s := &diskStream{name: name, path: path}
	dir, numbers, err := blockFiles(path)
	if err != nil {
		return nil, err
	}
	var buf []byte // of block after block: they are large, and a backlog has many
	for _, n := range numbers {
		file := filepath.Join(dir, strconv.Itoa(n)+blockSuffix)
		if _, err := os.Stat(filepath.Join(dir, strconv.Itoa(n)+keySuffix)); err == nil {
			s.opaque = true
			continue
		}
		raw, err := readBlock(file, buf)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the server has just removed it
		}
		if err != nil {
			return nil, fmt.Errorf("queue: store: %w", err)
		}
		s.size += int64(len(raw))
		b := parseBlock(name, n, raw, s.last)
		s.add(b)
		buf = nil
		if len(b.damaged) == 0 {
			b.raw, buf = nil, raw
		}
		if each != nil {
			each(len(raw))
		}
	}
	s.live = s.live.minus(s.told)
	return s, nil
}

func (s *diskStream) add(b *block) {
	s.blocks = append(s.blocks, b)
	s.live = s.live.union(b.live)
	s.told = s.told.union(b.told)
	s.last = max(s.last, b.last, b.noted)
}

// readBlock reads a message block, into buf where it fits.
func readBlock(file string, buf []byte) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	into := bytes.NewBuffer(buf[:0])
	if info, err := f.Stat(); err == nil {
		into.Grow(int(min(info.Size(), blockMost)) + bytes.MinRead)
	}
	n, err := into.ReadFrom(io.LimitReader(f, blockMost+1))
	if err == nil && n > blockMost {
		err = fmt.Errorf("%s: %w", file, errTooLarge)
	}
	return into.Bytes(), err
}
