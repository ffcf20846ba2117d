package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"crmsync/contact"
)

// ErrDataGone is wrapped where a store does not hold what it must: what was
// confirmed is not in it any more.
var ErrDataGone = errors.New("the data is gone")

// store is the embedded server's files, and what is known of them apart: how far
// each stream had got, and its configuration. Both are kept beside the folder, so
// that they outlive it.
type store struct {
	dir     string
	log     zerolog.Logger
	marks   *marksFile
	configs map[string][]byte
	accept  bool // what is missing is taken for lost

	// What the last examination found and the server has not been asked about.
	open     []suspicion
	accepted []Loss // with accept: what was
}

// suspicion is sequences that seem to be lost.
type suspicion struct {
	stream  string
	seqs    spans
	why     string
	contact string
}

const (
	marksSuffix   = ".marks"
	configsSuffix = ".configs"
	damagedSuffix = ".damaged"
	// smallStore is the size in bytes up to which a stream is read at each
	// start; a larger one only where its index does not vouch for it.
	smallStore = 64 << 20
)

func openStore(dir string, accept bool, log zerolog.Logger) (*store, error) {
	s := &store{dir: dir, log: log, accept: accept}
	var err error
	s.marks, err = readMarks(dir + marksSuffix)
	if err != nil && !errors.Is(err, errUnsealed) {
		return nil, fmt.Errorf("queue: marks: %w", err)
	}
	if err != nil {
		// Nothing can be proved with it; the store itself may be well.
		aside, e := s.putAside("", dir+marksSuffix, dir+marksSuffix+olderSuffix)
		if e != nil {
			return nil, e
		}
		log.Error().Err(err).Str("kept", aside).Msg("the high-water marks cannot be read: nothing proves that the store is whole")
		s.open = append(s.open, suspicion{why: lossUnproven})
	}
	s.configs, _, err = readSealed[map[string][]byte](dir + configsSuffix)
	if err != nil && !errors.Is(err, errUnsealed) {
		return nil, fmt.Errorf("queue: copies of the configurations: %w", err)
	}
	if err != nil {
		log.Warn().Err(err).Msg("the copies of the streams' configurations cannot be read; they are made again")
	}
	if s.configs == nil {
		s.configs = map[string][]byte{}
	}
	return s, nil
}

func (s *store) streams() string { return filepath.Join(s.dir, streamsDir) }

func (s *store) path(stream string) string { return filepath.Join(s.streams(), stream) }

// examine looks at the store's files before a server opens them, mends what can be
// mended and notes what seems to be lost. whole has it read all of them. It refuses
// a store of which a stream is gone, with what to do.
func (s *store) examine(all bool) error {
	mended, err := repair(s.streams(), s.configs)
	for _, name := range mended {
		s.log.Warn().Str("path", name).Msg("repaired after an unclean stop")
	}
	if err != nil {
		return err
	}
	names, err := streamDirs(s.streams())
	if err != nil {
		return err
	}
	known := s.marks.read()
	var gone []Loss
	for name, m := range known.Streams {
		if !slices.Contains(names, name) && m.Last > 0 && !m.Gone {
			gone = append(gone, Loss{Stream: name, From: m.First, To: m.Last, Why: lossGone, Found: time.Now().UTC()})
		}
	}
	for _, name := range names {
		empty, err := s.examineStream(name, known, all)
		if err != nil {
			return err
		}
		if m := known.Streams[name]; empty {
			gone = append(gone, Loss{Stream: name, From: m.First, To: m.Last, Why: lossGone, Found: time.Now().UTC()})
		}
	}
	return s.refuse(gone)
}

// refuse refuses a store of which streams are gone, unless that is accepted or they
// are worth nothing.
func (s *store) refuse(gone []Loss) error {
	slices.SortFunc(gone, func(a, b Loss) int { return strings.Compare(a.Stream, b.Stream) })
	var lines []string
	for _, l := range gone {
		if !s.accept && worthKeeping(l.Stream) {
			lines = append(lines, fmt.Sprintf("%s had got to sequence %d", l.Stream, l.To))
			continue
		}
		s.open = append(s.open, suspicion{stream: l.Stream, seqs: spans{}.add(l.From, l.To), why: lossGone})
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("queue: %s: %w, as it was at %s: %s\nrestore the folder from a backup and start again; or give up what is not there with \"crmsync store accept\"",
		s.dir, ErrDataGone, s.marks.read().At.Format(time.RFC3339), strings.Join(lines, "; "))
}

// worthKeeping says that a stream holds more than is made again by itself.
func worthKeeping(stream string) bool {
	return stream != canaryStream && stream != "KV_"+sessionBucket
}

// examineStream looks at one stream. empty says that nothing is left of it.
func (s *store) examineStream(name string, known marks, all bool) (empty bool, err error) {
	if !ours(name) {
		return false, nil
	}
	path := s.path(name)
	m := known.Streams[name]
	if m.Gone { // what is there now was made since
		m = mark{}
	}
	x, ok := readIndex(path, name)
	if ok && x.holds(path) {
		lost, err := x.missing(path)
		if err != nil {
			return false, fmt.Errorf("queue: store: %w", err)
		}
		s.suspect(name, lost, lossMissing, "")
		if len(lost) == 0 && x.last >= m.Last && !all && folderSize(path) > smallStore {
			return false, nil
		}
	}
	d, err := readStream(path, name, nil)
	if err != nil {
		return false, err
	}
	if d.opaque {
		return false, nil // the server is asked how far it got
	}
	if m.Last > 0 && len(d.live) == 0 && d.last < m.Last && d.bad() == 0 {
		return true, nil
	}
	return false, s.mend(d, m, known.Clean)
}

func (d *diskStream) bad() (n int) {
	for _, b := range d.blocks {
		n += len(b.damaged)
	}
	return n
}

// mend notes what a stream has lost, and writes its files so that the server goes on
// with all the rest: by itself it would cut a block off at the first damage.
func (s *store) mend(d *diskStream, m mark, clean bool) error {
	top := d.last
	var rewritten bool
	for i, b := range d.blocks {
		if len(b.damaged) == 0 {
			continue
		}
		lost := make([]spans, len(b.damaged))
		torn := false
		for j, dmg := range b.damaged {
			lost[j] = d.lostIn(i, dmg, m)
			torn = torn || len(lost[j]) == 0 && !dmg.whole
			s.suspect(d.name, lost[j], lossDamaged, subjectOf(b.raw[dmg.from:dmg.to], d.name))
			top = max(top, lost[j].last())
		}
		if torn && len(b.damaged) == 1 && i == len(d.blocks)-1 {
			continue // the last record was being written; nobody was told that it was stored
		}
		if err := s.rewrite(d, b, lost); err != nil {
			return err
		}
		rewritten = true
	}
	if isUpdates(d.name) {
		s.suspect(d.name, d.holes(m, clean), lossMissing, "")
	}
	if top < m.Last {
		s.suspect(d.name, spans{}.add(top+1, m.Last), lossRegressed, "")
		if err := s.reach(d, m.Last); err != nil {
			return err
		}
		rewritten = true
	}
	if !rewritten {
		return nil
	}
	// The server must read the blocks again.
	if err := os.Remove(filepath.Join(d.path, messagesDir, indexFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("queue: store: %w", err)
	}
	return nil
}

// lostIn is which sequences were in a damaged part of the i-th block.
func (d *diskStream) lostIn(i int, dmg damage, m mark) spans {
	after, before := dmg.after, dmg.before
	for j := i - 1; j >= 0 && after == 0; j-- {
		after = d.blocks[j].last
	}
	for j := i + 1; j < len(d.blocks) && before == 0; j++ {
		before = d.blocks[j].first
	}
	if after == 0 {
		after = max(m.First, 1) - 1
	}
	if before == 0 { // nothing follows: up to what was confirmed, or what a whole record says it is
		before = m.Last + 1
		if dmg.whole && dmg.hint > 0 {
			before = max(before, dmg.hint+1)
		}
	}
	lost := spans{}.add(after+1, before-1).minus(d.live).minus(d.told).minus(m.Gaps)
	if !isUpdates(d.name) && lost.has(dmg.hint) {
		return spans{}.add(dmg.hint, dmg.hint) // of the others some may have been removed long ago
	}
	return lost
}

// holes is what is missing between the messages of a stream of updates, from which
// nothing is removed but from its beginning.
func (d *diskStream) holes(m mark, clean bool) spans {
	if len(d.live) == 0 {
		return nil
	}
	from := d.live[0].From
	// Between the mark and a kill the beginning may have been purged. The server
	// notes the last sequence that it purged, except where a block begins behind it.
	if m.First > 0 && m.First < from && (clean || !d.told.has(from-1)) {
		from = m.First
	}
	return spans{}.add(from, d.last).minus(d.live).minus(d.told).minus(m.Gaps).minus(d.damagedSeqs(m))
}

func (d *diskStream) damagedSeqs(m mark) (out spans) {
	for i, b := range d.blocks {
		for _, dmg := range b.damaged {
			out = out.union(d.lostIn(i, dmg, m))
		}
	}
	return out
}

// isUpdates says that a stream holds updates of a target.
func isUpdates(stream string) bool {
	_, _, ok := targetOf(stream)
	return ok
}

// targetOf is the target and class whose updates a stream holds.
func targetOf(stream string) (target string, class contact.Class, ok bool) {
	for c := range contact.Class(contact.Classes) {
		name, has := strings.CutSuffix(stream, "_"+strings.ToUpper(c.String()))
		if name, pre := strings.CutPrefix(name, "CRM_"); has && pre {
			return strings.ToLower(name), c, true
		}
	}
	return "", 0, false
}

// subjectOf is the contact of a damaged message, where its subject can be read.
func subjectOf(raw []byte, stream string) string {
	target, class, ok := targetOf(stream)
	if !ok || len(raw) < recordHead {
		return ""
	}
	n := int(raw[20]) | int(raw[21])<<8
	if n == 0 || recordHead+n > len(raw) {
		return ""
	}
	k, c, err := contact.ParseSubject(string(raw[recordHead : recordHead+n]))
	if err != nil || k.Target != target || c != class {
		return ""
	}
	return k.ID
}

// rewrite replaces a damaged block by what is whole of it, and keeps the original.
func (s *store) rewrite(d *diskStream, b *block, lost []spans) error {
	dir, _, err := blockFiles(d.path)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, strconv.Itoa(b.index)+blockSuffix)
	kept, err := s.copyAside(d.name, file)
	if err != nil {
		return err
	}
	if err := writeSynced(file, b.mended(d.name, lost)); err != nil {
		return fmt.Errorf("queue: store: %w", err)
	}
	s.log.Error().Str("stream", d.name).Str("path", file).Str("kept", kept).Int("places", len(b.damaged)).Msg("a damaged message block was mended")
	return nil
}

// reach makes a stream's last sequence what it was: the numbers that are lost must
// not be given to new messages, which would be taken for ones that have ended.
func (s *store) reach(d *diskStream, last uint64) error {
	dir, numbers, err := blockFiles(d.path)
	if err != nil {
		return err
	}
	n := 1
	var raw []byte
	if len(numbers) > 0 {
		n = numbers[len(numbers)-1]
		if raw, err = readBlock(filepath.Join(dir, strconv.Itoa(n)+blockSuffix), nil); err != nil {
			return fmt.Errorf("queue: store: %w", err)
		}
		b := parseBlock(d.name, n, raw, 0)
		raw = b.raw
		if k := len(b.damaged); k > 0 { // torn off in writing
			raw = raw[:b.damaged[k-1].from]
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("queue: store: %w", err)
	}
	at := uint64(time.Now().UnixNano())
	if len(d.blocks) > 0 {
		at = max(d.blocks[len(d.blocks)-1].lastAt, 1)
	}
	raw = append(slices.Clone(raw), erasedRecord(blockHash(d.name, n), last, at)...)
	if err := writeSynced(filepath.Join(dir, strconv.Itoa(n)+blockSuffix), raw); err != nil {
		return fmt.Errorf("queue: store: %w", err)
	}
	return nil
}

func (s *store) suspect(stream string, seqs spans, why, contact string) {
	if len(seqs) > 0 {
		s.open = append(s.open, suspicion{stream: stream, seqs: seqs, why: why, contact: contact})
	}
}
