package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// demoWorker is a worker process of the demo.
type demoWorker struct {
	cmd   *exec.Cmd
	pid   int
	log   string
	ended chan struct{} // closed when it has; then err is how
	err   error
}

// startDemoWorker starts a program, or this one again where it is "".
func startDemoWorker(program, log string, args ...string) (*demoWorker, error) {
	name := program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("start a worker: %w", err)
		}
		name = os.Args[0]
	}
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	w := &demoWorker{cmd: exec.Command(program, args...), log: log, ended: make(chan struct{})}
	w.cmd.Args[0] = name
	w.cmd.Env = ownEnvironment(os.Environ())
	w.cmd.Stdout, w.cmd.Stderr = out, out
	w.cmd.SysProcAttr = demoWorkerAttr()
	started := make(chan error)
	go func() {
		// The kernel takes the thread that started a process for its parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		defer close(w.ended)
		err := w.cmd.Start()
		started <- err
		if err == nil {
			w.err = w.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-w.ended
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	w.pid = w.cmd.Process.Pid
	return w, nil
}

// ownEnvironment leaves out what would lead a worker of the demo elsewhere.
func ownEnvironment(env []string) []string {
	var out []string
	for _, v := range env {
		if !strings.HasPrefix(v, "CRMSYNC_") && !strings.HasPrefix(v, "NATS_") {
			out = append(out, v)
		}
	}
	return out
}

// kill ends it without a chance to clean up, and waits until it is gone.
func (w *demoWorker) kill() {
	_ = w.cmd.Process.Kill() // it may have ended by itself
	<-w.ended
}

// lastWords are the last lines of its log.
func (w *demoWorker) lastWords() string {
	b, err := os.ReadFile(w.log)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	var out strings.Builder
	for _, l := range lines[max(0, len(lines)-5):] {
		fmt.Fprintf(&out, "\n  %s", printable(string(l)))
	}
	return out.String()
}
