package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"crmsync/app"
)

// TestFaultConfigChange kills workers with the server in them while the streams'
// configurations are being changed without a pause: no stream is lost, and nothing
// that is in them.
func TestFaultConfigChange(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*20*time.Second)
	defer cancel()
	n := roundsOf(3, 1)
	w := newFaultWorld(t, "kill -9 during changes of configurations", 60*n, demoOffice, demoShop)
	w.row.rounds = n
	w.within(ctx)
	wait := w.publishing(ctx, time.Duration(n)*time.Second)
	changes := 0
	for range n {
		changing := w.changeStreams(ctx)
		w.must(pause(ctx, time.Duration(w.rng.IntN(400))*time.Millisecond))
		at := w.killed()
		changes += changing()
		w.must(w.work())
		w.heir(ctx, at)
		w.streams(ctx)
	}
	wait()
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.row.note = fmt.Sprintf("0 streams lost, %d changes", changes)
	if changes < n {
		t.Errorf("%d changes in %d rounds", changes, n)
	}
	w.must(w.stop(ctx))
	w.repaired()
	w.judgeWithin(ctx)
}

// changeStreams changes the configurations of all streams again and again, in the
// background.
func (w *faultWorld) changeStreams(ctx context.Context) (stop func() int) {
	w.t.Helper()
	nc, err := nats.Connect(w.app.URL(), nats.Timeout(2*time.Second), nats.NoReconnect())
	w.must(err)
	js, err := jetstream.New(nc)
	w.must(err)
	var configs []jetstream.StreamConfig
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		configs = append(configs, info.Config)
	}
	w.must(list.Err())
	ctx, cancel := context.WithCancel(ctx)
	done, first := make(chan int), make(chan struct{})
	go func() {
		n := 0
		for ctx.Err() == nil && nc.IsConnected() {
			for _, c := range configs {
				c.Description = fmt.Sprint("changed ", n)
				limited, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
				if _, err := js.UpdateStream(limited, c); err == nil {
					if n++; n == 1 {
						close(first)
					}
				}
				cancel()
			}
		}
		done <- n
	}()
	select {
	case <-first:
	case <-time.After(10 * time.Second):
		w.t.Error("no configuration can be changed")
	}
	return func() int {
		cancel()
		n := <-done
		nc.Close()
		return n
	}
}

// streams checks that every stream is there.
func (w *faultWorld) streams(ctx context.Context) {
	w.t.Helper()
	nc, err := nats.Connect(w.app.URL())
	w.must(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	w.must(err)
	var names []string
	list := js.StreamNames(ctx)
	for name := range list.Name() {
		names = append(names, name)
	}
	w.must(list.Err())
	want := 7 + 2*len(w.targets)
	if len(names) != want {
		w.t.Fatalf("%d streams, want %d: %v", len(names), want, names)
	}
}

// repaired counts in the logs what the start had to mend.
func (w *faultWorld) repaired() {
	w.row.note += fmt.Sprintf(", %d files mended", w.logged("repaired after an unclean stop"))
	if n := w.logged("what was confirmed is missing"); n > 0 {
		w.t.Errorf("%d losses are told of", n)
	}
}

// logged counts how many times the workers have said something.
func (w *faultWorld) logged(text string) (n int) {
	names, _ := filepath.Glob(filepath.Join(w.dir, "worker-*.log"))
	for _, name := range names {
		b, _ := os.ReadFile(name)
		n += strings.Count(string(b), text)
	}
	return n
}

// judgeWithin judges a world whose server was in its worker, which has ended: another
// one serves the store for it.
func (w *faultWorld) judgeWithin(ctx context.Context) {
	w.t.Helper()
	w.must(w.work())
	w.heir(ctx, time.Time{})
	w.judge(ctx)
	w.must(w.stop(ctx))
}

// TestFaultDamage kills a worker that hosts the server, damages one file of its store,
// and starts the next: what it says is lost, and nothing else, is not applied; a store
// that it refuses is put back as it was.
func TestFaultDamage(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*faultRounds)*20*time.Second)
	defer cancel()
	n := roundsOf(2, 0.5)
	const wave = 120
	w := newFaultWorld(t, "a file of the store damaged", wave*n, demoOffice, demoShop)
	w.row.rounds = n
	w.within(ctx)
	refused, told, lost := 0, 0, 0
	for i := range n {
		w.must(w.publish(ctx, w.plan.updates[i*wave:(i+1)*wave]))
		w.must(pause(ctx, time.Duration(w.rng.IntN(300))*time.Millisecond))
		at := w.killed()
		data, whole := filepath.Join(w.dir, "data"), filepath.Join(w.dir, "whole")
		w.must(os.CopyFS(whole, os.DirFS(data)))
		what := w.damage(filepath.Join(data, "nats", "jetstream"))
		w.must(w.work())
		text := ""
		if w.started(ctx) {
			h, ok, err := w.app.Store(ctx)
			if err != nil || !ok {
				t.Errorf("%s: %v", what, err)
			}
			if len(h.Losses) > 0 {
				text = h.Text
				told++
				lost += w.spare(h.Losses)
				_, err := w.app.AcceptLosses(ctx, app.Who{By: "test"})
				w.must(err)
			}
			w.heir(ctx, at)
		} else {
			text = w.current().lastWords()
			refused++
			if !strings.Contains(text, "crmsync store accept") && !strings.Contains(text, "restore") {
				t.Errorf("%s: refused without a word of what to do: %s", what, text)
			}
			w.forget()
			w.must(os.RemoveAll(data))
			w.must(os.Rename(whole, data))
			w.must(w.work())
			w.heir(ctx, time.Time{})
		}
		w.must(os.RemoveAll(whole))
		t.Logf("%s: %s", what, text)
	}
	w.until(ctx, "all has ended", time.Minute, allEnded)
	w.row.note = fmt.Sprintf("%d refused and restored, %d told (%d updates), %d mended", refused, told, lost, n-refused-told)
	w.must(w.stop(ctx))
	w.judgeWithin(ctx)
}

// forget forgets the worker that ended by itself.
func (w *faultWorld) forget() {
	w.demoWorld.mu.Lock()
	defer w.demoWorld.mu.Unlock()
	w.worker = nil
}

// started waits until the current worker serves, or has ended by itself.
func (w *faultWorld) started(ctx context.Context) bool {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); pollStatus() {
		if w.alive() != nil {
			return false
		}
		if st, err := w.app.Status(ctx); err == nil && ownedBy(w.current().pid)(st) {
			return true
		}
	}
	w.t.Fatalf("the worker neither serves nor ends%s", w.current().lastWords())
	return false
}

// damage does something to one file of the store, drawn at random, and says what.
func (w *faultWorld) damage(dir string) string {
	w.t.Helper()
	var files []string
	w.must(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		// What is lost of other streams cannot be held against the plan.
		of := filepath.Base(filepath.Dir(filepath.Dir(path)))
		updates := strings.HasSuffix(of, "_LIVE") || strings.HasSuffix(of, "_BULK")
		if err == nil && d.Type().IsRegular() && (updates || filepath.Ext(path) != ".blk") {
			files = append(files, path)
		}
		return err
	}))
	slices.Sort(files)
	// Kinds of files are as likely, not files: there are many configurations.
	kinds := map[string][]string{}
	for _, f := range files {
		kind := filepath.Ext(f)
		kinds[kind] = append(kinds[kind], f)
	}
	var names []string
	for k := range kinds {
		names = append(names, k)
	}
	slices.Sort(names)
	of := kinds[names[w.rng.IntN(len(names))]]
	file := of[w.rng.IntN(len(of))]
	b, err := os.ReadFile(file)
	w.must(err)
	what := "emptied"
	switch x := w.rng.IntN(4); {
	case x == 0 && len(b) > 0:
		i := w.rng.IntN(len(b))
		b[i] ^= 1 << w.rng.IntN(8)
		what = fmt.Sprintf("a bit of byte %d of %d turned over", i, len(b))
		w.must(os.WriteFile(file, b, 0o600))
	case x == 1 && len(b) > 0:
		at := w.rng.IntN(len(b))
		what = fmt.Sprintf("cut at %d of %d", at, len(b))
		w.must(os.Truncate(file, int64(at)))
	case x == 2:
		what = "removed"
		w.must(os.Remove(file))
	default:
		w.must(os.Truncate(file, 0))
	}
	rel, err := filepath.Rel(dir, file)
	w.must(err)
	return rel + " " + what
}
