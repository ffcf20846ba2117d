package app

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"crmsync/emulator"
	"crmsync/queue"
	"crmsync/worker"
)

// A contact's story is told though the owner of its target does not say what it has
// in hand.
func TestWhyOfAnOwnerThatDoesNotAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(ctx context.Context) []byte // nil: nobody listens
		lane   worker.Status
		want   []string
	}{
		{
			"it is busy with something else", func(ctx context.Context) []byte { <-ctx.Done(); return nil },
			worker.Status{State: "running"},
			[]string{"what only its owner knows, ", "the owner of target office does not answer", "see crmsync status"},
		},
		{
			"it has gone", nil,
			worker.Status{State: "running", Waiting: "the bucket"},
			[]string{"what only its owner knows, ", "nobody answers for office"},
		},
		{
			"its answer cannot be read", func(context.Context) []byte { return []byte("<html>") },
			worker.Status{State: "running"},
			[]string{"what only its owner knows, "},
		},
		{
			"its lane holds", nil,
			worker.Status{State: "held", Hold: &worker.Hold{Reason: worker.HoldOutage, Since: time.Now(), Detail: "connection refused"}},
			[]string{"the lane, which holds: outage since ", ", connection refused; what only its owner knows, "},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, emulator.Options{Contacts: 3}, emulator.Options{})
			a := h.open()
			defer a.Close()
			h.raw(a, "office", "1", `{"fields":{"title":"Boss"}}`)
			ctx, stop := context.WithCancel(t.Context())
			owned, done := make(chan struct{}), make(chan error, 1)
			go func() {
				done <- a.q.Own(ctx, queue.OwnOptions{Targets: []queue.Target{{Name: "office"}}}, func(ctx context.Context, s *queue.Source) {
					sessions, err := a.q.Sessions(ctx)
					if err != nil || len(sessions) != 1 {
						t.Errorf("%+v, %v", sessions, err)
						return
					}
					c.lane.At = time.Now()
					if err := a.q.Put(ctx, liveKey+"office", laneState{Owner: fmt.Sprintf("%s/%d", sessions[0].Host, sessions[0].PID), Lane: c.lane}); err != nil {
						t.Error(err)
					}
					close(owned)
					if c.answer != nil {
						_ = a.q.Answer(ctx, "office", func(ctx context.Context, _ []byte) []byte { return c.answer(ctx) })
					}
					<-ctx.Done()
				})
			}()
			<-owned
			w, err := a.Why(t.Context(), "office", "1")
			if err != nil || len(w.Events) != 1 || w.Events[0].Update == nil || w.Pending != 1 || w.Owner == "" {
				t.Errorf("%+v, %v", w, err)
			}
			for _, want := range append(c.want, w.Owner) {
				if !strings.Contains(w.Waits, want) {
					t.Errorf("%q does not say %q", w.Waits, want)
				}
			}
			asking, giveUp := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer giveUp()
			if c.name == "it is busy with something else" {
				if _, err := a.Why(asking, "office", "1"); err == nil {
					t.Error("whoever asked went away, and it was taken for an answer")
				}
			}
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
