package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"crmsync/contact"
)

// fullStore is a store with ten updates, of which the first three have ended and
// are purged, and a durable consumer that somebody made. It returns copies of it:
// one as a kill leaves it, one as an orderly stop does.
func fullStore(t *testing.T) (killed, stopped string) {
	t.Helper()
	o, q := quietStore(t)
	dir := o.Embedded.Dir
	for i := range 10 {
		publish(t, q, update("office", i, contact.Live, i))
	}
	l := own(t, q, "office")
	s := l.source(t)
	for _, u := range take(t, s, contact.Live, 3) {
		settle(t, s, contact.Applied, u)
	}
	l.end(t)
	c, err := q.js.CreateConsumer(t.Context(), officeLive, jetstream.ConsumerConfig{Durable: "theirs", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(); err != nil || m.DoubleAck(t.Context()) != nil {
		t.Fatal(err)
	}
	marked(t, q, 10)
	killed = filepath.Join(t.TempDir(), "nats")
	copyStore(t, dir, killed)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	return killed, dir
}

// quietStore is a store with the target office, whose troubles are not logged.
func quietStore(t *testing.T) (Options, *Queue) {
	t.Helper()
	o := testOptions(t, filepath.Join(t.TempDir(), "nats"))
	o.Log = o.Log.Level(zerolog.PanicLevel)
	q := open(t, o)
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	return o, q
}

// marked waits until the high-water mark of the live updates has been stored.
func marked(t *testing.T, q *Queue, last uint64) {
	t.Helper()
	eventually(t, 10*time.Second, "the mark is stored", func() bool {
		m, _, err := readSealed[marks](q.srv.conf.Dir + marksSuffix)
		c, _, _ := readSealed[map[string][]byte](q.srv.conf.Dir + configsSuffix)
		return err == nil && m.Streams[officeLive].Last >= last && len(c) >= 9
	})
}

// copyStore copies a store and what stands beside it.
func copyStore(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{marksSuffix, marksSuffix + olderSuffix, configsSuffix, configsSuffix + olderSuffix} {
		b, err := os.ReadFile(from + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+suffix, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// harm is something that is done to a file.
type harm func(t *testing.T, path string)

func cut(t *testing.T, path string) {
	i, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, i.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func emptied(t *testing.T, path string) { write(t, path, "") }

func removed(t *testing.T, path string) {
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func garbage(t *testing.T, path string) {
	write(t, path, strings.Repeat("\x8e\x01no such thing\xff", 40))
}

// flip turns one bit over, in the first place at which the file has a text.
func flip(text string) harm {
	return func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		i := strings.Index(string(b), text)
		if i < 0 {
			t.Fatalf("%s has no %q", path, text)
		}
		b[i] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// middle turns a bit over in the middle of a file.
func middle(t *testing.T, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 16
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Every kind of file of a store, damaged in every way, after a kill and after an
// orderly stop: what can be mended is; what is lost is named to the number, and all
// the rest is worked on; what cannot be used is refused with what to do.
func TestDamagedStore(t *testing.T) {
	killed, stopped := fullStore(t)
	const (
		whole  = ""        // nothing is lost
		gone   = "refused" // the store is not opened
		update = `"n":5}`  // of update 6
	)
	stream := func(name string) string { return filepath.Join(streamsDir, officeLive, name) }
	block := stream("msgs/1.blk")
	for _, c := range []struct {
		name, file string
		harm       harm
		lost       string // which live updates
	}{
		{"body of a message", block, flip(update), "6 damaged"},
		{"its sequence", block, flip("\x06\x00\x00\x00\x00\x00\x00\x00"), "6 damaged"},
		{"subject of a message", block, flip("office.live.7"), "8 damaged"},
		{"last message", block, flip(`"n":9}`), "10 damaged"},
		{"first that waits", block, flip(`"n":3}`), "4 damaged"},
		{"one that had ended", block, flip(`"n":1}`), whole},
		{"block cut", block, cut, "6 to 10 damaged"},
		{"block emptied", block, emptied, gone},
		{"block removed", block, removed, gone},
		{"block of garbage", block, garbage, "4 to 10 damaged"},
		{"index flipped", stream("msgs/index.db"), middle, whole},
		{"index cut", stream("msgs/index.db"), cut, whole},
		{"index emptied", stream("msgs/index.db"), emptied, whole},
		{"index removed", stream("msgs/index.db"), removed, whole},
		{"messages removed", stream("msgs"), removed, gone},
		{"configuration flipped", stream(metaFile), flip("max_msgs"), whole},
		{"quota flipped", stream(metaFile), flip("5000000"), whole},
		{"configuration cut", stream(metaFile), cut, whole},
		{"configuration emptied", stream(metaFile), emptied, whole},
		{"configuration removed", stream(metaFile), removed, whole},
		{"configuration of garbage", stream(metaFile), garbage, whole},
		{"checksum flipped", stream(metaSum), middle, whole},
		{"checksum cut", stream(metaSum), cut, whole},
		{"checksum emptied", stream(metaSum), emptied, whole},
		{"checksum removed", stream(metaSum), removed, whole},
		{"consumer's configuration cut", stream("obs/theirs/" + metaFile), cut, whole},
		{"consumer's configuration removed", stream("obs/theirs/" + metaFile), removed, whole},
		{"consumer's checksum flipped", stream("obs/theirs/" + metaSum), middle, whole},
		{"consumer's state flipped", stream("obs/theirs/o.dat"), middle, whole},
		{"consumer's state cut", stream("obs/theirs/o.dat"), cut, whole},
		{"consumer's state removed", stream("obs/theirs/o.dat"), removed, whole},
		{"consumers removed", stream("obs"), removed, whole},
		{"expiry wheel of outcomes", filepath.Join(streamsDir, outcomeStream, "msgs/thw.db"), garbage, whole},
		{"lock removed", lockName, removed, whole},
		{"stream removed", filepath.Join(streamsDir, officeLive), removed, gone},
		{"another stream removed", filepath.Join(streamsDir, outcomeStream), removed, gone},
		{"trial messages removed", filepath.Join(streamsDir, canaryStream), removed, whole},
		{"all streams removed", streamsDir, removed, gone},
		{"all removed", ".", removed, gone},
	} {
		for how, from := range map[string]string{"killed": killed, "stopped": stopped} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "nats")
				copyStore(t, from, dir)
				path := filepath.Join(dir, c.file)
				if _, err := os.Stat(path); err != nil && how == "killed" {
					t.Skipf("a kill leaves no %s", c.file)
				}
				c.harm(t, path)
				o := testOptions(t, dir)
				o.Log = o.Log.Level(zerolog.PanicLevel)
				q, err := Open(t.Context(), o)
				if c.lost == gone {
					if err == nil {
						_ = q.Close()
						t.Fatal("a store whose data is gone was opened")
					}
					if !errors.Is(err, ErrDataGone) || !strings.Contains(err.Error(), "crmsync store accept") || !strings.Contains(err.Error(), "backup") {
						t.Fatal(err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = q.Close() }()
				expect(t, q, c.lost)
			})
		}
	}
}

// expect checks that these live updates are lost, and that all others which waited
// are handed out, in a store that was made by fullStore.
func expect(t *testing.T, q *Queue, lost string) {
	t.Helper()
	h, ok, err := q.Health(t.Context())
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if len(h.Losses) == 1 && h.Losses[0].Stream == canaryStream {
		h.Losses = nil // told
		if _, err := q.AcceptLosses(t.Context(), Actor{By: "kim"}); err != nil {
			t.Error(err)
		}
	}
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	if ready := q.Ready(t.Context()); (ready == nil) != (lost == "") {
		t.Errorf("ready: %v", ready)
	}
	var seqs spans
	var parts []string
	for _, l := range h.Losses {
		parts = append(parts, fmt.Sprint(span{l.From, l.To}, " ", l.Why))
		if l.Stream != officeLive {
			t.Errorf("a loss in %s", l.Stream)
		}
		seqs = seqs.add(l.From, l.To)
	}
	if got := strings.Join(parts, ", "); got != lost {
		t.Errorf("lost %q, want %q", got, lost)
	}
	publish(t, q, update("office", 10, contact.Live, 10))
	l := own(t, q, "office")
	var got []uint64
	for _, u := range everything(t, l.source(t)) {
		if u.Seq > 3 { // what had ended may have come back; records tell of it
			got = append(got, u.Seq)
		}
	}
	l.end(t)
	var want []uint64
	for seq := uint64(4); seq <= 11; seq++ {
		if !seqs.has(seq) {
			want = append(want, seq)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("handed out %v, want %v", got, want)
	}
}

// What was lost stays an alarm over restarts until somebody accepts it; the numbers
// of what was lost are not given out again.
func TestLossIsToldUntilItIsAccepted(t *testing.T) {
	t.Parallel()
	killed, _ := fullStore(t)
	flip(`"n":9}`)(t, filepath.Join(killed, streamsDir, officeLive, messagesDir, "1.blk"))
	q := open(t, testOptions(t, killed))
	_ = q.Close()
	q = open(t, testOptions(t, killed))
	err := q.Ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), officeLive+": 10 damaged") || !strings.Contains(err.Error(), "crmsync store accept") {
		t.Fatalf("ready: %v", err)
	}
	if kept, err := filepath.Glob(killed + damagedSuffix + "/*/" + officeLive + "-1.blk"); err != nil || len(kept) != 1 {
		t.Errorf("the damaged block is not kept: %v, %v", kept, err)
	}
	other := peerOf(t, q, &link{})
	lost, err := other.AcceptLosses(t.Context(), Actor{By: "kim"})
	if err != nil || len(lost) != 1 || lost[0].From != 10 || lost[0].Contact != "9" {
		t.Fatalf("accepted %v, %v", lost, err)
	}
	if err := q.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	audited := false
	if err := q.AuditTrail(t.Context(), AuditFilter{}, func(e Entry) error {
		audited = audited || e.Action == "store-accept" && e.By == "kim" && strings.Contains(e.Detail, "10 damaged")
		return nil
	}); err != nil || !audited {
		t.Errorf("it is not in the audit trail: %v", err)
	}
	u := update("office", "new", contact.Live, 1)
	publish(t, q, u)
	if u.Seq != 11 {
		t.Errorf("the next update got number %d", u.Seq)
	}
	_ = q.Close()
	q = open(t, testOptions(t, killed))
	if err := q.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// Where nobody looks after the store, nobody can say that nothing is missing.
func TestAcceptingAsksSomebody(t *testing.T) {
	t.Parallel()
	q := open(t, testOptions(t, t.TempDir()))
	peer := peerOf(t, q, &link{})
	if lost, err := peer.AcceptLosses(t.Context(), Actor{By: "kim"}); err != nil || len(lost) != 0 {
		t.Errorf("a whole store: %v, %v", lost, err)
	}
	p := ports(t, 1)
	alone := open(t, Options{URL: member(t, "n0", p[0], p).ClientURL(), Log: zerolog.Nop()})
	if lost, err := alone.AcceptLosses(t.Context(), Actor{By: "kim"}); !errors.Is(err, errUnkept) {
		t.Errorf("servers elsewhere, without a worker: %v, %v", lost, err)
	}
}

// An older state of the store, as from a backup or a disk that lied, is told to the
// number; new updates get numbers behind those that were lost, since records cover
// these.
func TestOlderStore(t *testing.T) {
	t.Parallel()
	o, q := quietStore(t)
	dir := o.Embedded.Dir
	publish(t, q, update("office", 1, contact.Live, 1), update("office", 2, contact.Live, 2))
	marked(t, q, 2)
	before := filepath.Join(t.TempDir(), "nats")
	copyStore(t, dir, before)
	publish(t, q, update("office", 3, contact.Live, 3), update("office", 4, contact.Live, 4))
	marked(t, q, 4)
	_ = q.Close()
	removed(t, dir)
	if err := os.Rename(before, dir); err != nil { // and the marks stay
		t.Fatal(err)
	}
	q = open(t, testOptions(t, dir))
	if err := q.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), officeLive+": 3 to 4 regressed") {
		t.Errorf("ready: %v", err)
	}
	u := update("office", 5, contact.Live, 5)
	publish(t, q, u)
	if u.Seq != 5 {
		t.Errorf("the next update got number %d", u.Seq)
	}
	if got := everything(t, own(t, q, "office").source(t)); len(got) != 3 || got[2].Seq != 5 {
		t.Errorf("%d updates", len(got))
	}
}

// Data that is gone is refused until that is accepted; then the numbers go on, so
// that nothing new is taken for something that has ended.
func TestDataGone(t *testing.T) {
	t.Parallel()
	killed, _ := fullStore(t)
	removed(t, filepath.Join(killed, streamsDir, officeLive))
	o := testOptions(t, killed)
	for range 2 { // it does not help to try again
		_, err := Open(t.Context(), o)
		if !errors.Is(err, ErrDataGone) || !strings.Contains(err.Error(), officeLive+" had got to sequence 10") {
			t.Fatal(err)
		}
	}
	o.Embedded.AcceptLoss = true
	q := open(t, o)
	if lost := q.Accepted(); len(lost) != 1 || lost[0].From != 4 || lost[0].To != 10 || lost[0].Why != lossGone {
		t.Errorf("accepted %v", lost)
	}
	_ = q.Close()
	o.Embedded.AcceptLoss = false
	q = open(t, o)
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	u := update("office", 1, contact.Live, 1)
	publish(t, q, u)
	if err := q.Ready(t.Context()); err != nil || u.Seq != 11 {
		t.Errorf("number %d, ready: %v", u.Seq, err)
	}
	if got := everything(t, own(t, q, "office").source(t)); len(got) != 1 {
		t.Errorf("%d updates are handed out", len(got))
	}
}

// Marks of which neither file can be read prove nothing: that is told, and the store
// is used.
func TestMarksAreDamaged(t *testing.T) {
	for name, both := range map[string]bool{"the last file": false, "both files": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, dir := fullStore(t)
			middle(t, dir+marksSuffix)
			if both {
				middle(t, dir+marksSuffix+olderSuffix)
			}
			o := testOptions(t, dir)
			o.Log = o.Log.Level(zerolog.PanicLevel)
			q := open(t, o)
			err := q.Ready(t.Context())
			if both != (err != nil) || both && !strings.Contains(err.Error(), "marks could not be read") {
				t.Errorf("ready: %v", err)
			}
			marked(t, q, 10)
		})
	}
}

// A flipped bit in a message that waits, under a running server: it is told with its
// number, and all the rest is worked on.
func TestFlipUnderARunningServer(t *testing.T) {
	t.Parallel()
	o, q := quietStore(t)
	dir := o.Embedded.Dir
	for i := range 10 {
		publish(t, q, update("office", i, contact.Live, i))
	}
	other := peerOf(t, q, &link{})
	path := blockPath(dir)
	flip(`"n":5}`)(t, path)
	k := q.keeper.Load()
	poke(k.rub)
	eventually(t, 20*time.Second, "the loss is told", func() bool {
		h := k.health()
		return h.Restarts == 1 && h.State == StoreLost
	})
	if h := k.health(); !strings.Contains(h.Text, officeLive+": 6 damaged (contact 5)") {
		t.Errorf("%s", h.Text)
	}
	eventually(t, 10*time.Second, "the other process is connected again", func() bool { return other.Ready(t.Context()) == nil })
	publish(t, other, update("office", 10, contact.Live, 10))
	var got []uint64
	for _, u := range everything(t, own(t, other, "office").source(t)) {
		got = append(got, u.Seq)
	}
	if want := []uint64{1, 2, 3, 4, 5, 7, 8, 9, 10, 11}; !slices.Equal(got, want) {
		t.Errorf("handed out %v, want %v", got, want)
	}
}

// A message file that is removed under a running server is told as well.
func TestBlockRemovedUnderARunningServer(t *testing.T) {
	t.Parallel()
	o, q := quietStore(t)
	dir := o.Embedded.Dir
	big := strings.Repeat("x", 200<<10)
	for i := range 50 { // more than one block
		u := update("office", i, contact.Live, i)
		u.Fields, u.Raw = nil, fmt.Appendf(nil, `{"fields":{"n":"%s"}}`, big)
		publish(t, q, u)
	}
	_, numbers, err := blockFiles(q.srv.store.path(officeLive))
	if err != nil || len(numbers) < 2 {
		t.Fatalf("blocks %v, %v", numbers, err)
	}
	removed(t, blockPath(dir))
	k := q.keeper.Load()
	poke(k.rub)
	eventually(t, 20*time.Second, "the loss is told", func() bool { return k.health().State == StoreLost })
	h := k.health()
	if len(h.Losses) != 1 || h.Losses[0].From != 1 || h.Losses[0].To < 20 || h.Losses[0].To >= 50 || h.Losses[0].Why != lossMissing {
		t.Fatalf("%+v", h.Losses)
	}
	got := everything(t, own(t, q, "office").source(t))
	if len(got) != 50-int(h.Losses[0].To) || got[0].Seq != h.Losses[0].To+1 {
		t.Errorf("%d updates from %d on, lost %s", len(got), got[0].Seq, h.Losses[0])
	}
}

// The folder is moved away under a running server: nothing is confirmed any more.
// Put back, it is used again by itself.
func TestFolderRemovedUnderARunningServer(t *testing.T) {
	t.Parallel()
	o, q := quietStore(t)
	dir := o.Embedded.Dir
	publish(t, q, update("office", 1, contact.Live, 1))
	marked(t, q, 1)
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	for n := 2; n < 5; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if s, err := q.Publish(ctx, update("office", n, contact.Live, n)); err == nil {
			t.Errorf("confirmed as %d", s.Seq)
		}
		cancel()
	}
	eventually(t, 10*time.Second, "it is told", func() bool {
		err := q.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "restore it from a backup")
	})
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "it is used again", func() bool { return q.Ready(t.Context()) == nil })
	publish(t, q, update("office", 9, contact.Live, 9))
	if got := everything(t, own(t, q, "office").source(t)); len(got) < 2 {
		t.Errorf("%d updates", len(got))
	}
	if _, err := Open(t.Context(), testOptions(t, dir)); !errors.Is(err, ErrLocked) {
		t.Errorf("a second process on the store that was put back: %v", err)
	}
}

// Somebody removes a stream through the server: told, and no reason to refuse a start.
func TestStreamDeletedByAnOperator(t *testing.T) {
	t.Parallel()
	o, q := quietStore(t)
	publish(t, q, update("office", 1, contact.Live, 1))
	marked(t, q, 1)
	if err := q.js.DeleteStream(t.Context(), officeLive); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it is told", func() bool {
		h := q.keeper.Load().health()
		return h.State == StoreLost && strings.Contains(h.Text, officeLive+": 1 gone")
	})
	_ = q.Close()
	q = open(t, o)
	if h := q.keeper.Load().health(); h.State != StoreLost {
		t.Errorf("after a restart: %+v", h)
	}
}

// Somebody purges updates that nobody has read: told, to the number.
func TestPurgedByAnOperator(t *testing.T) {
	t.Parallel()
	_, q := quietStore(t)
	l := &link{}
	p := peerOf(t, q, l)
	s := own(t, p, "office").source(t)
	publish(t, p, update("office", 1, contact.Live, 1))
	settle(t, s, contact.Applied, take(t, s, contact.Live, 1)...)
	l.sever()
	for n := 2; n <= 5; n++ {
		publish(t, q, update("office", n, contact.Live, n))
	}
	if err := q.purge(t.Context(), officeLive, purgeRequest{Seq: 5}); err != nil {
		t.Fatal(err)
	}
	l.mend()
	if u := take(t, s, contact.Live, 1)[0]; u.Seq != 5 {
		t.Errorf("update %d is handed out", u.Seq)
	}
	eventually(t, 10*time.Second, "it is told", func() bool {
		return strings.Contains(q.keeper.Load().health().Text, officeLive+": 2 to 4 missing")
	})
}

// Nothing about streams that are right is written: each update of a configuration is
// a moment at which a kill can cost the stream.
func TestSetupAsksForNoUpdate(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office", "shop")
	other := peerOf(t, q, &link{})
	sub, err := other.nc.SubscribeSync("$JS.API.STREAM.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := q.Setup(t.Context(), []string{"office", "shop"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.nc.Request("$JS.API.STREAM.INFO.END", nil, time.Second); err != nil {
		t.Fatal(err)
	}
	asked := map[string]int{}
	for {
		m, err := sub.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		verb := strings.Split(m.Subject, ".")[3]
		if asked[verb]++; strings.HasSuffix(m.Subject, ".END") {
			break
		}
	}
	if asked["INFO"] < 20 || asked["UPDATE"]+asked["CREATE"]+asked["DELETE"] > 0 {
		t.Errorf("asked %v", asked)
	}
}

// The marks are written where something but the time is new, and the file before
// is kept.
func TestMarksAreWrittenWhenTheyChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nats"+marksSuffix)
	f, err := readMarks(path)
	if err != nil {
		t.Fatal(err)
	}
	set := func(last uint64) os.FileInfo {
		t.Helper()
		if err := f.change(func(m *marks) { m.At, m.Streams["S"] = time.Now(), mark{First: 1, Last: last} }); err != nil {
			t.Fatal(err)
		}
		i, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	first := set(1)
	if !os.SameFile(first, set(1)) {
		t.Error("written though nothing changed")
	}
	if os.SameFile(first, set(2)) {
		t.Error("not written though something changed")
	}
	for name, last := range map[string]uint64{path: 2, path + olderSuffix: 1} {
		if m, err := readSealedOnce[marks](name); err != nil || m.Streams["S"].Last != last {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}
