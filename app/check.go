package app

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"crmsync/config"
	"crmsync/worker"
)

// Finding is one thing that was checked.
type Finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Warn bool   `json:"warn,omitempty"` // it works, and should be looked at
	Note string `json:"note,omitempty"` // what was found, or what is wrong and what to do
}

// CheckConfig checks what needs no connection: secrets can be read, files are
// there.
func CheckConfig(cfg *config.Config) []Finding {
	var out []Finding
	for _, w := range cfg.Warnings() {
		out = append(out, Finding{What: "config", OK: true, Note: "warning: " + w})
	}
	for _, name := range sortedKeys(cfg.Targets) {
		t := cfg.Targets[name]
		f := Finding{What: "target " + name, OK: true, Note: t.Kind + " at " + t.URL.Redacted() + "; " + t.Quota.String()}
		if _, err := newClient(t, "check"); err != nil {
			f.OK, f.Note = false, err.Error()
		}
		out = append(out, f)
	}
	for _, group := range sortedKeys(cfg.Quotas) {
		var members []string
		for _, name := range sortedKeys(cfg.Targets) {
			if cfg.Targets[name].QuotaGroup == group {
				members = append(members, name)
			}
		}
		out = append(out, Finding{What: "quota " + group, OK: true, Note: cfg.Quotas[group].String() + "; shared by " + cmp.Or(strings.Join(members, ", "), "nobody")})
	}
	if err := cfg.CheckSecrets(); err != nil {
		out = append(out, Finding{What: "secrets", Note: err.Error()})
	} else if len(cfg.Targets) > 0 {
		out = append(out, Finding{What: "secrets", OK: true, Note: "all can be read"})
	}
	return out
}

// CheckQueue checks that NATS is there, that each configured target has its
// streams, and that each target which has them has an owner that is not held.
func (a *App) CheckQueue(ctx context.Context) []Finding {
	ready := Finding{What: "nats", OK: true, Note: a.q.URL()}
	out := a.checkStore(ctx)
	if err := a.q.Ready(ctx); err != nil {
		ready.OK, ready.Note = false, err.Error()
		return append([]Finding{ready}, out...)
	}
	out = append([]Finding{ready}, out...)
	st, err := a.Status(ctx)
	if err != nil {
		return append(out, Finding{What: "status", Note: err.Error()})
	}
	there := map[string]bool{}
	for _, t := range st.Targets {
		there[t.Target] = true
	}
	for _, name := range a.targetNames() {
		if !there[name] {
			out = append(out, Finding{What: "streams " + name, Note: "not there: start `crmsync run`, or create them with `crmsync setup --apply`"})
		}
	}
	for _, t := range st.Targets {
		f := Finding{What: "lane " + t.Target, OK: true}
		switch {
		case t.Lane == nil:
			f.OK, f.Note = false, "nobody runs it: start `crmsync run`"
		case t.Lane.Hold != nil:
			f.OK = t.Lane.Hold.Reason == worker.HoldThrottled || t.Lane.Hold.Reason == worker.HoldQuota
			f.Note = fmt.Sprintf("held: %s since %s %s", t.Lane.Hold.Reason, t.Lane.Hold.Since.Format(time.TimeOnly), t.Lane.Hold.Detail)
		default:
			f.Note = fmt.Sprintf("%s, run by %s", t.Lane.State, t.Owner)
		}
		out = append(out, f)
	}
	return out
}

// checkStore says what is known of the store's health and of its durability.
func (a *App) checkStore(ctx context.Context) []Finding {
	var out []Finding
	if h, ok, err := a.q.Health(ctx); err == nil && ok {
		out = append(out, Finding{What: "store", OK: h.OK(), Note: h.Text})
	}
	if n, clustered, err := a.q.Replicas(ctx); err == nil && clustered && n > 0 {
		f := Finding{What: "replicas", OK: true, Note: fmt.Sprintf("each stream is kept on %d servers", n)}
		if n < 3 {
			f.Warn, f.Note = true, "each stream is kept on one server of the cluster: what that one holds stands still, or is lost, with it. Stop the workers and raise the replicas of all streams (nats stream edit --replicas 3)"
		}
		out = append(out, f)
	}
	d := a.Durability(ctx)
	return append(out, Finding{What: "durability", OK: true, Warn: !d.OK(), Note: d.Text})
}

// CheckHealth asks a running worker's own health endpoint.
func CheckHealth(ctx context.Context, cfg *config.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	url := "http://" + cfg.HTTP.Listen + "/healthz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("health check: http.listen: %w", err)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health check: %s answers %s", url, resp.Status)
	}
	return nil
}
