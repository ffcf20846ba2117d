package worker

import (
	"slices"
	"testing"
	"time"

	"crmsync/contact"
)

func TestReadyQueueMovesASlotToLive(t *testing.T) {
	var q readyQueue
	for range 100 {
		s := &slot{}
		q.push(s, contact.Bulk)
		q.push(s, contact.Live)
		q.push(s, contact.Live)
		if q.len() != 1 {
			t.Fatalf("%d wait, want 1", q.len())
		}
		if q.pop(10) != s || q.pop(10) != nil || q.len() != 0 {
			t.Fatal("a slot waits in both classes")
		}
	}
	if n := len(q.fifo[contact.Bulk].list) + len(q.fifo[contact.Live].list); n != 0 {
		t.Errorf("%d entries are left of slots that have gone", n)
	}
}

func TestReadyQueueIsFIFO(t *testing.T) {
	var q readyQueue
	var all []*slot
	for range 5000 {
		s := &slot{}
		all = append(all, s)
		q.push(s, contact.Live)
	}
	for i := range all {
		if q.pop(10) != all[i] {
			t.Fatalf("slot %d is out of turn", i)
		}
		if i%2 == 0 { // the queue never runs empty while it is used
			all = append(all, all[i])
			q.push(all[i], contact.Live)
		}
	}
	if n := len(q.fifo[contact.Live].list) - q.fifo[contact.Live].head; n != 2500 {
		t.Errorf("%d entries wait", n)
	}
}

// What a call has carried goes out together again, even if something older
// that must go alone arrives meanwhile.
func TestWhatWasSentStaysTogether(t *testing.T) {
	p, err := contact.ParsePatch([]byte(`{"mail":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	l := &Lane{o: Options{Rules: testRules}}
	live := &contact.Update{Class: contact.Live, Seq: 1, Stored: time.Unix(20, 0)}
	late := &contact.Update{Class: contact.Bulk, Seq: 1, Stored: time.Unix(10, 0), Fields: p}
	for _, sent := range []bool{true, false} {
		s := &slot{}
		s.insert(live)
		s.take = l.newTake(s)
		if sent {
			s.call = 1
		}
		l.putBack(s)
		s.insert(late)
		want := []*contact.Update{late}
		if sent {
			want[0] = live
		}
		if tk := l.newTake(s); !slices.Equal(tk.updates, want) {
			t.Errorf("sent %v: takes %+v first", sent, tk.updates[0])
		}
	}
}
