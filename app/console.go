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
			if len(o.IDs) == 0 {
				n, err := a.CountDead(ctx, r.Filter)
				if err != nil {
					return nil, err
				}
				if text := tooManyToPlan(n, o); text != "" {
					return struct {
						Text string `json:"text"`
					}{text}, nil
				}
			}
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

// planAtMost is how many letters the page plans for: each is read, some 5,000 a
// second, within the time that a request has.
const planAtMost = 20_000

// tooManyToPlan says so where a group is too large; else "".
func tooManyToPlan(n int64, o console.LetterOrder) string {
	if n <= planAtMost {
		return ""
	}
	return fmt.Sprintf("%d letter(s), too many to look at each of them here; on the command line:\ncrmsync dead redrive --target %s --group %s --plan\n", n, o.Target, o.Group)
}

// consoleDiscard makes what gives letters up for the page. Those that are named
// are few and are waited for; a group may be large, so it is answered at once and
// goes on for as long as life lasts, counted by running. What is left then is dead
// as before.
func (a *App) consoleDiscard(life context.Context, running *sync.WaitGroup) func(context.Context, console.LetterOrder) (any, error) {
	return func(ctx context.Context, o console.LetterOrder) (any, error) {
		n, run, err := a.startDiscard(ctx, consoleUser(o.By), DeadFilter{Target: o.Target, Group: o.Group}, o.IDs, strings.TrimSpace(o.Why))
		if err != nil {
			return nil, isTaken(err)
		}
		d, text := Discarded{Chosen: n}, fmt.Sprintf("%d letter(s) are being discarded", n)
		switch {
		case n == 0:
			text = "there are no such letters"
		case len(o.IDs) > 0:
			if d, err = run(ctx, nil); err != nil {
				return nil, isTaken(err)
			}
			text = fmt.Sprintf("%d letter(s) discarded", d.Discarded)
			if d.InHand > 0 {
				text += fmt.Sprintf(", %d are in other hands", d.InHand)
			}
		default:
			running.Go(func() {
				if d, err := run(life, nil); err != nil {
					a.o.Log.Warn().Err(err).Str("target", o.Target).Str("group", o.Group).Int64("discarded", d.Discarded).Int64("of", n).
						Msg("a discard from the console ended early: give the order again")
				}
			})
		}
		return struct {
			Discarded
			Text string `json:"text"`
		}{d, text}, nil
	}
}
