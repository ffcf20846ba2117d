package app

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"crmsync/console"
)

// consoleUser is who used the console or its API.
func consoleUser(by string) Who {
	if by == "" {
		by = "console"
	}
	return Who{By: by, Via: "api"}
}

// consoleGroups sums up the dead letters for the page.
func (a *App) consoleGroups(ctx context.Context, q console.DeadQuery) (any, error) {
	f, err := a.consoleFilter(ctx, q)
	if err != nil {
		return nil, err
	}
	groups, err := a.Groups(ctx, f)
	if len(groups) > q.Limit {
		groups = groups[:q.Limit]
	}
	return struct {
		Groups []LetterGroup `json:"groups"`
	}{groups}, err
}

func orderOf(o console.LetterOrder) Redrive {
	return Redrive{Filter: DeadFilter{Target: o.Target, Group: o.Group}, IDs: o.IDs, Force: o.Force}
}

// consoleRedrive makes what carries the page's redrives out for as long as ctx
// lasts, counted by running: they go on when the request has been answered. One that this process
// leaves undone goes on by `crmsync dead redrive --continue`.
func (a *App) consoleRedrive(life context.Context, running *sync.WaitGroup) func(context.Context, console.LetterOrder) (any, error) {
	return func(ctx context.Context, o console.LetterOrder) (any, error) {
		r := orderOf(o)
		if o.Plan {
			f, err := a.Foresee(ctx, r)
			if err != nil {
				return nil, isTaken(err)
			}
			return struct {
				Foresight
				Text string `json:"text"`
			}{f, f.Text()}, nil
		}
		op, err := a.StartRedrive(ctx, consoleUser(o.By), r)
		if err != nil {
			return nil, isTaken(err)
		}
		running.Go(func() {
			if _, err := a.RunRedrive(life, op.ID, nil); err != nil && life.Err() == nil {
				a.o.Log.Warn().Err(err).Str("operation", op.ID).Msg("a redrive from the console does not go on: crmsync dead redrive --continue")
			}
		})
		return struct {
			Operation
			Text string `json:"text"`
		}{op, fmt.Sprintf("redrive %s sends %d letter(s) again", op.ID, op.Total)}, nil
	}
}

func (a *App) consoleDiscard(ctx context.Context, o console.LetterOrder) (any, error) {
	d, err := a.Discard(ctx, consoleUser(o.By), DeadFilter{Target: o.Target, Group: o.Group}, o.IDs, strings.TrimSpace(o.Why), nil)
	if err != nil {
		return nil, isTaken(err)
	}
	text := fmt.Sprintf("%d letter(s) discarded", d.Discarded)
	if d.InHand > 0 {
		text += fmt.Sprintf(", %d are in other hands", d.InHand)
	}
	return struct {
		Discarded
		Text string `json:"text"`
	}{d, text}, nil
}
