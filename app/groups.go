package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"crmsync/crm"
	"crmsync/queue"
)

// LetterGroup is the dead letters of one target that died of one cause, with
// what may help. It holds no value of a contact.
type LetterGroup struct {
	Target      string    `json:"target"`
	Fingerprint string    `json:"fingerprint,omitempty"` // "" for the causes beyond those that are told apart
	Reason      string    `json:"reason,omitempty"`
	Status      int       `json:"status,omitempty"`
	Field       string    `json:"field,omitempty"`
	Message     string    `json:"message,omitempty"` // the CRM's words without what differs from letter to letter
	Count       int64     `json:"count"`
	First       time.Time `json:"first,omitzero"`
	Last        time.Time `json:"last,omitzero"`
	LastHour    int64     `json:"last_hour"`
	HourBefore  int64     `json:"hour_before"`
	Trend       string    `json:"trend"`   // the two, in words
	Samples     []uint64  `json:"samples"` // the newest letters, at most 3
	Suggestion  string    `json:"suggestion,omitempty"`
	Asked       string    `json:"asked,omitempty"` // what the CRM said of the newest sample
	Requests    int       `json:"requests,omitempty"`
}

// Groups sums up the dead letters that the filter chooses by target and cause,
// the largest group first.
func (a *App) Groups(ctx context.Context, f DeadFilter) ([]LetterGroup, error) {
	qf, err := f.filter()
	if err != nil {
		return nil, err
	}
	groups, err := a.q.Groups(ctx, qf)
	if err != nil {
		return nil, err
	}
	suggest := map[string]func(crm.Symptom) string{}
	out := make([]LetterGroup, 0, len(groups))
	for _, g := range groups {
		if suggest[g.Target] == nil {
			suggest[g.Target] = crm.Advise
			if c, err := a.clientOf(g.Target); err == nil { // else the configuration lacks it
				defer c.CloseIdle()
				suggest[g.Target] = c.Suggest
			}
		}
		out = append(out, groupOf(g, suggest[g.Target]))
	}
	return out, nil
}

func groupOf(g queue.Group, suggest func(crm.Symptom) string) LetterGroup {
	out := LetterGroup{
		Target: g.Target, Fingerprint: g.Fingerprint, Reason: g.Cause.Reason.String(), Status: g.Cause.Status, Field: g.Cause.Field,
		Message: g.Cause.Message, Count: g.Count, First: g.First, Last: g.Last, LastHour: g.LastHour, HourBefore: g.HourBefore,
		Trend: trend(g.LastHour, g.HourBefore), Samples: g.Samples,
	}
	if g.Other {
		out.Message = fmt.Sprintf("(causes beyond the first %d)", queue.MaxGroups)
		return out
	}
	out.Suggestion = suggest(crm.Symptom{Reason: g.Cause.Reason, Status: g.Cause.Status, Field: g.Cause.Field, Message: g.Cause.Message})
	return out
}

// trend compares the last hour with the one before.
func trend(last, before int64) string {
	switch {
	case last == 0 && before == 0:
		return "quiet for two hours"
	case last == 0:
		return fmt.Sprintf("ended: %d the hour before the last", before)
	case before == 0:
		return fmt.Sprintf("new: %d in the last hour", last)
	case last > before:
		return fmt.Sprintf("rising: %d in the last hour, %d before", last, before)
	case last < before:
		return fmt.Sprintf("falling: %d in the last hour, %d before", last, before)
	}
	return fmt.Sprintf("steady: %d in the last hour, as before", last)
}

// AskGroup asks the CRM about the newest letter of a group, see [App.Explain].
func (a *App) AskGroup(ctx context.Context, g *LetterGroup) error {
	if len(g.Samples) == 0 {
		return errors.New("the group has no letter to ask about")
	}
	look, err := a.Explain(ctx, g.Samples[0])
	g.Requests = look.Requests
	if err != nil {
		return err
	}
	g.Asked = look.Said
	return nil
}
