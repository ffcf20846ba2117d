package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"crmsync/app"
)

type runCmd struct {
	Port int `default:"0" placeholder:"N" help:"Port of the embedded NATS server on the loopback interface (default 4222; --port=-1 takes any)."`
}

// Help is the command's manual.
func (runCmd) Help() string {
	return `Applies the updates of every configured target that falls to this process.
Start it as often as you like on the same NATS: each target has one owner, and
another takes over when that one goes.

Without a NATS server named (--server, --context, NATS_URL or nats.url), it
starts one in this process, on the loopback interface, with its store under
--data; the other commands and any NATS client reach it there.

The first SIGINT or SIGTERM ends the taking of updates, lets calls in flight
finish and releases the targets; the second cuts the calls short.`
}

func (c *runCmd) Run(ctx context.Context, g *Globals) error {
	if g.getenv("GOGC") == "" {
		// Most of a worker's memory is its window of waiting updates, which
		// lives long; letting garbage grow to twice that buys little speed.
		debug.SetGCPercent(50)
	}
	a, err := g.open(context.WithoutCancel(ctx), app.Options{Host: true, Port: c.Port})
	if err != nil {
		if errors.Is(err, app.ErrLocked) {
			return fmt.Errorf("%w\nanother crmsync serves this data folder: give this one --server to join it, or --data for a folder of its own", err)
		}
		return err
	}
	err = c.work(ctx, g, a)
	if e := a.Close(); err == nil {
		err = e
	}
	return err
}

func (c *runCmd) work(ctx context.Context, g *Globals, a *app.App) error {
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	addr, wait, err := a.Serve(serving)
	if err != nil {
		return err
	}
	g.say("crmsync %s: NATS at %s%s", version, a.URL(), also(addr))

	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	go func() { // ends with work
		select {
		case <-ctx.Done():
			g.say("crmsync: stopping; calls in flight may finish within %s (again to cut them short)", a.Drain())
		case <-work.Done():
			return
		}
		grace := time.NewTimer(a.Drain())
		defer grace.Stop()
		select {
		case <-grace.C:
		case <-g.again.Done():
		case <-work.Done():
		}
		cut()
	}()
	err = a.Work(ctx, work)
	if err == nil && work.Err() != nil {
		err = errors.New("stopped before all calls in flight had ended; what they carried is repeated by the next owner")
	}
	cut()
	stopServing()
	if e := wait(); err == nil {
		err = e
	}
	return err
}

func also(addr string) string {
	if addr == "" {
		return ""
	}
	return ", console at http://" + addr + "/"
}
