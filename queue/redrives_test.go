package queue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"crmsync/contact"
)

// together is so many that they are stored as a batch.
const together = fewMessages + 8

func recordsOf(ls []Letter) []*Record {
	var out []*Record
	for i := range ls {
		out = append(out, &ls[i].Record)
	}
	return out
}

// claimedBy counts the letters of a target that an operation, or with "" anybody, has
// in hand.
func claimedBy(t testing.TB, q *Queue, operation string) (n int) {
	t.Helper()
	err := q.claims(t.Context(), "office", func(c *Claim) error {
		if operation == "" || c.Operation == operation {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func waiting(t testing.TB, q *Queue, class contact.Class) int {
	t.Helper()
	info, err := q.info(t.Context(), streamName("office", class))
	if err != nil {
		t.Fatal(err)
	}
	return int(info.State.Msgs)
}

// byOutcome counts the records of a target by their outcome.
func byOutcome(t testing.TB, q *Queue) map[contact.Outcome]int {
	t.Helper()
	got := map[contact.Outcome]int{}
	for _, r := range allRecords(t, q, Filter{Target: "office"}) {
		got[r.Outcome]++
	}
	return got
}

// What stands in the way of some letters of a batch, between any two steps, is told
// of them and stops no other.
func TestLettersOfABatchStandForThemselves(t *testing.T) {
	q := setUp(t, "office")
	ls := manyDead(t, q, together)
	bad := oldLetter(t, q, contact.Key{Target: "office", ID: "bad"}, time.Now(), func(r *Record) { r.Original = []byte("{") })
	badLetter, err := q.deadLetter(t.Context(), bad)
	if err != nil {
		t.Fatal(err)
	}
	var all []*again
	for _, l := range append(recordsOf(ls), &badLetter) {
		all = append(all, &again{letter: l})
	}
	o := RedriveOptions{Actor: alice, operation: "op1"}
	q.prepareAll(t.Context(), all, o)
	redrive(t, q, ls[3].Seq, RedriveOptions{}) // before the claims
	q.takeAll(t.Context(), still(all))
	// Between the claims and the second look: one was given up by who held it until
	// then, and one was edited.
	if err := q.discard(t.Context(), ls[5].Seq, "x", false); err != nil {
		t.Fatal(err)
	}
	edit := quoted(Edit{Body: []byte(`{"fields":{"n":-1}}`), By: "bob"})
	if _, err := q.letters.create(t.Context(), letterKey(editKey, contact.Key{Target: "office", ID: ls[7].Contact}, ls[7].Seq), []byte(edit)); err != nil {
		t.Fatal(err)
	}
	q.checkAgain(t.Context(), still(all), o)
	q.sendAll(t.Context(), still(all), time.Now())
	want := map[int]error{3: ErrInHand, 5: ErrNotFound, 7: ErrInHand, together: ErrUnsendable}
	for i, a := range all {
		if !errors.Is(a.err, want[i]) || (a.err == nil) != (a.sent.Seq > 0) {
			t.Errorf("letter %d: sent %+v, %v; want %v", i, a.sent, a.err, want[i])
		}
	}
	if n := waiting(t, q, contact.Bulk); n != together-3+1 {
		t.Errorf("%d updates", n)
	}
	if n := claimedBy(t, q, "op1"); n != together-3 {
		t.Errorf("%d letters in hand: what is not sent was not given back", n)
	}
	c := newCRM()
	c.serve(t, q, "office")
	settled(t, q, "office")
	if got := byOutcome(t, q); got[contact.Applied] != together-2 || got[contact.Discarded] != together-1 || got[contact.Dead] != 2 {
		t.Errorf("records %v", got)
	}
	if got := ids(letters(t, q, Filter{})); !slices.Equal(got, []uint64{ls[7].Seq, bad}) {
		t.Errorf("left %v", got)
	}
}

// The process dies after any step of a batch, or in the middle of one: each letter is
// sent once, whoever goes on.
func TestBatchesThatWereCutShort(t *testing.T) {
	cases := []struct {
		name string
		upTo func(ctx context.Context, q *Queue, all []*again)
	}{
		{"some are claimed", func(ctx context.Context, q *Queue, all []*again) { q.takeAll(ctx, all[:together/2]) }},
		{"all are claimed", func(ctx context.Context, q *Queue, all []*again) { q.takeAll(ctx, all) }},
		{"some are published", func(ctx context.Context, q *Queue, all []*again) {
			q.takeAll(ctx, all)
			q.sendAll(ctx, all[:together/2], time.Now())
		}},
		{"all are published", func(ctx context.Context, q *Queue, all []*again) {
			q.takeAll(ctx, all)
			q.sendAll(ctx, all, time.Now())
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			q := setUp(t, "office")
			ls := manyDead(t, q, together)
			op := startRedrive(t, q, RedrivePlan{Rate: 100_000})
			var all []*again
			for _, l := range recordsOf(ls) {
				all = append(all, &again{letter: l})
			}
			q.prepareAll(t.Context(), all, RedriveOptions{Actor: alice, operation: op.ID})
			c.upTo(t.Context(), q, all)
			crm := newCRM()
			crm.serve(t, q, "office")
			got, err := q.RunRedrive(t.Context(), op.ID, nil, nil)
			if err != nil || got.State != OperationDone || got.Sent != together || got.Ended[contact.Applied] != together || got.Chosen != together || len(got.Skipped) != 0 {
				t.Fatalf("%+v %v", got, err)
			}
			settled(t, q, "office")
			if got := byOutcome(t, q); got[contact.Applied] != together || got[contact.Discarded] != together || got[contact.Dead] != 0 || crm.applied != together {
				t.Errorf("records %v, %d applied", got, crm.applied)
			}
		})
	}
}

// What was sent before the process died counts, though that was not saved.
func TestOperationKeepsItsLimitThroughADeath(t *testing.T) {
	q := setUp(t, "office")
	var all []*again
	for _, l := range recordsOf(manyDead(t, q, 20)) {
		all = append(all, &again{letter: l})
	}
	op := startRedrive(t, q, RedrivePlan{Filter: Filter{Limit: 10}, Rate: 100_000})
	first := all[:6]
	q.prepareAll(t.Context(), first, RedriveOptions{Actor: alice, operation: op.ID})
	q.takeAll(t.Context(), first)
	q.sendAll(t.Context(), first[:3], time.Now())
	stop := newCRM().serve(t, q, "office")
	eventually(t, 10*time.Second, "some have ended", func() bool { return claimedBy(t, q, op.ID) == 3 })
	stop()
	done := make(chan Operation, 1)
	go func() {
		got, err := q.RunRedrive(t.Context(), op.ID, nil, nil)
		if err != nil {
			t.Error(err)
		}
		done <- got
	}()
	eventually(t, 10*time.Second, "the others are sent", func() bool { return waiting(t, q, contact.Bulk) == 7 })
	newCRM().serve(t, q, "office")
	if got := <-done; got.Sent != 10 || got.Chosen != 10 || got.Ended[contact.Applied] != 10 {
		t.Errorf("%+v", got)
	}
	if n := len(letters(t, q, Filter{})); n != 10 {
		t.Errorf("%d letters are left", n)
	}
}

// Nobody goes on with the operation: the owner sends what was claimed, once.
func TestTheOwnerSendsABatchThatWasCutShort(t *testing.T) {
	q := setUp(t, "office")
	var all []*again
	for _, l := range recordsOf(manyDead(t, q, together)) {
		all = append(all, &again{letter: l})
	}
	q.prepareAll(t.Context(), all, RedriveOptions{Actor: alice, operation: "op1"})
	q.takeAll(t.Context(), all)
	q.sendAll(t.Context(), all[:together/2], time.Now())
	// Whoever was held up for so long leaves the rest to the owner.
	q.sendAll(t.Context(), all[together/2:], time.Now().Add(-publishWithin-time.Second))
	if n := waiting(t, q, contact.Bulk); n != together/2 || all[together-1].err == nil {
		t.Fatalf("%d updates; too late: %v", n, all[together-1].err)
	}
	for range 2 {
		if err := q.mend(t.Context(), "office", time.Now().Add(mendAfter+time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if n := waiting(t, q, contact.Bulk); n != together {
		t.Errorf("%d updates", n)
	}
	crm := newCRM()
	crm.serve(t, q, "office")
	settled(t, q, "office")
	if got := byOutcome(t, q); got[contact.Applied] != together || got[contact.Discarded] != together || crm.applied != together {
		t.Errorf("records %v, %d applied", got, crm.applied)
	}
}

// loseAnswers has the server's answers lost from now until done says that what they
// tell of has happened.
func loseAnswers(t *testing.T, l *link, done func() bool) {
	t.Helper()
	l.freeze()
	thawWhen(t, l, done)
}

func thawWhen(t *testing.T, l *link, done func() bool) {
	go func() {
		eventually(t, 10*time.Second, "it is stored", done)
		l.sever()
		l.thaw()
		l.mend()
	}()
}

// The server's answers are lost, again and again, while letters are sent many at a
// time: whoever sends them finds out what was stored, and goes on.
func TestOperationOutlastsLostAnswers(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	const n = 400
	manyDead(t, q, n)
	l := &link{}
	peer := peerOf(t, q, l)
	crm := newCRM()
	crm.serve(t, q, "office")
	op := startRedrive(t, q, RedrivePlan{Rate: 100_000, Window: 50})
	ctx, stop := contextWithCancel(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, what := range []string{claimKey, "crm.update.office.bulk", claimKey, "crm.update.office.bulk", opKey} {
			l.freezeAt(what)
			for begun := time.Now(); ctx.Err() == nil && !l.frozen() && time.Since(begun) < 10*time.Second; {
				<-time.After(5 * time.Millisecond)
			}
			<-time.After(20 * time.Millisecond) // the server stores what it was sent
			l.sever()
			l.thaw()
			l.mend()
		}
	}()
	got, err := peer.RunRedrive(t.Context(), op.ID, nil, nil)
	if err != nil || got.State != OperationDone || got.Sent != n || got.Chosen != n || got.Ended[contact.Applied] != n || len(got.Skipped) != 0 {
		t.Errorf("%+v %v", got, err)
	}
	stop()
	<-done
	settled(t, q, "office")
	if got := byOutcome(t, q); got[contact.Applied] != n || got[contact.Discarded] != n || crm.applied != n {
		t.Errorf("records %v, %d applied", got, crm.applied)
	}
}

// A batch whose answer is lost was stored; each letter is sent once.
func TestAnswersToABatchAreLost(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	l := &link{}
	peer := peerOf(t, q, l)
	var all []*again
	for _, r := range recordsOf(manyDead(t, q, together)) {
		all = append(all, &again{letter: r})
	}
	peer.prepareAll(t.Context(), all, RedriveOptions{Actor: alice, operation: "op1"})
	loseAnswers(t, l, func() bool { return claimedBy(t, q, "op1") == together })
	peer.takeAll(t.Context(), all) // those that are asked about before the connection is back are not known
	back := func() bool { _, err := peer.info(t.Context(), outcomeStream); return err == nil }
	eventually(t, 10*time.Second, "the connection is back", back)
	peer.takeAll(t.Context(), all)
	if len(still(all)) != together || all[0].claim.rev == 0 || claimedBy(t, q, "op1") != together {
		t.Fatalf("%d claims, the first %+v", len(still(all)), all[0])
	}
	loseAnswers(t, l, func() bool { return waiting(t, q, contact.Bulk) == together })
	peer.sendAll(t.Context(), all, time.Now())
	places := map[uint64]bool{}
	for _, a := range all {
		places[a.sent.Seq] = a.err == nil
	}
	if len(places) != together || places[0] || len(still(all)) != together {
		t.Errorf("%d sent: %v", len(still(all)), places)
	}
	if n := waiting(t, q, contact.Bulk); n != together {
		t.Errorf("%d updates", n)
	}
	// Claims are given back in the same way.
	var claims []*Claim
	for _, a := range all {
		claims = append(claims, a.claim)
	}
	eventually(t, 10*time.Second, "the connection is back", back)
	loseAnswers(t, l, func() bool { return claimedBy(t, q, "op1") == 0 })
	_ = peer.dropAll(t.Context(), claims)
	eventually(t, 10*time.Second, "they are given back", func() bool { return peer.dropAll(t.Context(), claims) == nil })
}

// Two operators send the same letters at the same moment, many at a time.
func TestTwoOperationsSendEachLetterOnce(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	const n = 300
	ls := manyDead(t, q, n)
	newCRM().serve(t, q, "office")
	var mu sync.Mutex
	var sent, dealt int64
	var wg sync.WaitGroup
	for i, who := range []*Queue{q, peerOf(t, q, &link{})} {
		o := startRedrive(t, q, RedrivePlan{Rate: 100_000})
		if i == 1 { // from the other end
			theirs := ids(ls)
			slices.Reverse(theirs)
			o = startRedrive(t, q, RedrivePlan{Rate: 100_000, IDs: theirs})
		}
		wg.Go(func() {
			got, err := who.RunRedrive(t.Context(), o.ID, nil, nil)
			if err != nil || got.State != OperationDone || got.Unfinished() != 0 {
				t.Errorf("%+v %v", got, err)
			}
			mu.Lock()
			defer mu.Unlock()
			sent += got.Sent
			dealt += got.Sent + got.Skipped[SkipInHand] + got.Skipped[SkipGone]
		})
	}
	wg.Wait()
	settled(t, q, "office")
	if got := byOutcome(t, q); sent != n || dealt != 2*n || got[contact.Applied] != n || got[contact.Discarded] != n || got[contact.Dead] != 0 {
		t.Errorf("%d sent of %d, records %v", sent, dealt, got)
	}
}

// Where there is room for some of a batch, the others wait; none is passed over or
// counted twice.
func TestOperationWaitsForRoom(t *testing.T) {
	t.Parallel()
	q := open(t, testOptions(t, t.TempDir()))
	if _, err := q.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: streamName("office", contact.Bulk), Subjects: []string{"crm.update.office.bulk.*"}, MaxMsgs: 10, Discard: jetstream.DiscardNew,
		AllowAtomicPublish: true, Duplicates: time.Minute,
	}); err != nil {
		t.Fatal(err)
	}
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	manyDead(t, q, 2*together)
	op := startRedrive(t, q, RedrivePlan{Rate: 100_000})
	done := make(chan Operation, 1)
	go func() {
		got, err := q.RunRedrive(t.Context(), op.ID, nil, nil)
		if err != nil {
			t.Error(err)
		}
		done <- got
	}()
	eventually(t, 10*time.Second, "the stream is full and the rest is given back", func() bool {
		return waiting(t, q, contact.Bulk) == 10 && claimedBy(t, q, op.ID) == 10
	})
	crm := newCRM()
	crm.serve(t, q, "office")
	if got := <-done; got.State != OperationDone || got.Sent != 2*together || got.Ended[contact.Applied] != 2*together || got.Chosen != 2*together || len(got.Skipped) != 0 {
		t.Errorf("%+v", got)
	}
	settled(t, q, "office")
	if got := byOutcome(t, q); got[contact.Applied] != 2*together || crm.applied != 2*together {
		t.Errorf("records %v, %d applied", got, crm.applied)
	}
}

// Where the disk is nearly full nothing is sent, and the letters are as before.
func TestBatchWithoutSpace(t *testing.T) {
	q := setUp(t, "office")
	peer := peerOf(t, q, &link{})
	ls := recordsOf(manyDead(t, q, together))
	space := func(err error) {
		peer.mu.Lock()
		defer peer.mu.Unlock()
		peer.roomErr, peer.roomAt = err, time.Now().Add(time.Hour)
	}
	for _, n := range []int{together, 2} {
		space(ErrNoSpace)
		for _, a := range peer.redriveAll(t.Context(), ls[:n], RedriveOptions{Actor: alice}) {
			if !errors.Is(a.err, ErrNoSpace) {
				t.Errorf("letter %d: %v", a.letter.Seq, a.err)
			}
		}
		if waiting(t, q, contact.Bulk) != 0 || claimedBy(t, q, "") != 0 {
			t.Errorf("of %d: %d updates, %d in hand", n, waiting(t, q, contact.Bulk), claimedBy(t, q, ""))
		}
	}
	space(nil)
	for _, a := range peer.redriveAll(t.Context(), ls, RedriveOptions{Actor: alice}) {
		if a.err != nil {
			t.Error(a.err)
		}
	}
	if n := waiting(t, q, contact.Bulk); n != together {
		t.Errorf("%d updates", n)
	}
}

// A contact that is forgotten between the claim and the sending stays forgotten.
func TestForgettingBeatsABatch(t *testing.T) {
	q := setUp(t, "office")
	var all []*again
	for _, l := range recordsOf(manyDead(t, q, together)) {
		all = append(all, &again{letter: l})
	}
	o := RedriveOptions{Actor: alice, operation: "op1", Force: true}
	q.prepareAll(t.Context(), all, o)
	q.takeAll(t.Context(), all)
	forget := func(i int) contact.Key {
		k := contact.Key{Target: "office", ID: all[i].letter.Contact}
		if _, err := q.Forget(t.Context(), alice, k); err != nil {
			t.Fatal(err)
		}
		return k
	}
	forget(1)
	q.checkAgain(t.Context(), all, o)
	if !errors.Is(all[1].err, ErrNotFound) {
		t.Errorf("forgotten before the second look: %v", all[1].err)
	}
	late := forget(2)
	q.sendAll(t.Context(), still(all), time.Now())
	crm := newCRM()
	crm.serve(t, q, "office")
	settled(t, q, "office")
	if got := byOutcome(t, q); got[contact.Applied] != together-2 || got[contact.Dead] != 0 || crm.get("office", late.ID) != nil {
		t.Errorf("records %v; the CRM holds %v", got, crm.get("office", late.ID))
	}
	if left := allRecords(t, q, Filter{Contact: late.ID}); len(left) != 0 {
		t.Errorf("records of who was forgotten: %+v", left)
	}
}

// So many updates may wait, however many are sent together.
func TestOperationKeepsItsWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := setUpSilent(t, testLease, "office")
		manyDead(t, q, 60)
		op := startRedrive(t, q, RedrivePlan{Window: 7, Rate: 100_000})
		ctx, stop := contextWithCancel(t)
		done := make(chan struct{})
		go func() { defer close(done); _, _ = q.RunRedrive(ctx, op.ID, nil, nil) }()
		time.Sleep(time.Minute)
		if got, err := q.Operation(t.Context(), op.ID); err != nil || got.Sent != 7 || waiting(t, q, contact.Bulk) != 7 {
			t.Errorf("%+v %v", got, err)
		}
		stop()
		<-done
	})
}
