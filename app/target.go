package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"time"

	"crmsync/config"
	"crmsync/contact"
	"crmsync/crm"
	"crmsync/crm/evance"
	"crmsync/crm/perfex"
	"crmsync/queue"
	"crmsync/worker"
)

// client is what both CRM packages offer.
type client interface {
	worker.Sender
	Rules() contact.Rules
	Check(u *contact.Update) *contact.BadUpdate
	Labels() map[string]string
	Convert(field, text string) (json.RawMessage, error)
	Suggest(s crm.Symptom) string
	Compare(ctx context.Context, spend crm.Spend, ch *contact.Change) ([]crm.Difference, crm.Answer)
	Explain(ctx context.Context, spend crm.Spend, why contact.Reason, ch *contact.Change) (string, crm.Answer)
	Within(lease func() time.Time)
	CloseIdle()
}

// newClient builds the client of one target. It reads no secret yet.
func newClient(t config.Target, version string) (client, error) { return dialClient(t, version, nil) }

// dialClient is newClient with a dialer of its own; nil is the network's.
func dialClient(t config.Target, version string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (client, error) {
	agent := "crmsync/" + version
	switch t.Kind {
	case config.KindPerfex:
		return perfex.New(perfex.Options{
			Base: t.URL, Token: t.Token.Read, API: t.API,
			Permissions: t.Permissions.IDs, ClearPermissions: t.Permissions.Clear,
			Timeout: t.Timeout, CAFile: t.CAFile, UserAgent: agent, AllowPrivate: t.AllowPrivate, Dial: dial,
			Messages: perfex.Messages{
				Token: t.Verdicts.TokenMessages, Missing: t.Verdicts.MissingMessages, Unchanged: t.Verdicts.UnchangedMessages,
			},
		})
	case config.KindEvance:
		return evance.New(evance.Options{
			Base: t.URL, API: t.API, Grant: t.Grant, Timeout: t.Timeout, CAFile: t.CAFile,
			UserAgent: agent, AllowPrivate: t.AllowPrivate, Dial: dial,
			Credentials: func() (evance.Credentials, error) { return evanceCredentials(t) },
		})
	}
	return nil, fmt.Errorf("target %s: kind %q is not known", t.Name, t.Kind)
}

func evanceCredentials(t config.Target) (evance.Credentials, error) {
	if t.ClientID != "" {
		key, err := t.PrivateKey.Read()
		if err != nil {
			return evance.Credentials{}, err
		}
		return evance.Credentials{Account: t.URL.Hostname(), ClientID: t.ClientID, PrivateKey: key}, nil
	}
	text, err := t.Credentials.Read()
	if err != nil {
		return evance.Credentials{}, err
	}
	return evance.ParseCredentials([]byte(text))
}

// secretChanged watches whatever secret the target logs in with.
func secretChanged(t config.Target) func() bool {
	s := t.Token
	switch {
	case t.Kind == config.KindEvance && t.ClientID != "":
		s = t.PrivateKey
	case t.Kind == config.KindEvance:
		s = t.Credentials
	}
	return s.Changed
}

// owned is what this process takes part in owning.
func (a *App) owned() queue.OwnOptions {
	var o queue.OwnOptions
	for _, name := range a.targetNames() {
		o.Targets = append(o.Targets, queue.Target{Name: name, Group: a.cfg.Targets[name].QuotaGroup})
	}
	return o
}

// quotaOf is a quota as the worker has it.
func quotaOf(q config.Quota) worker.Quota {
	out := worker.Quota{Rate: q.Rate, Burst: q.Burst, Concurrency: q.Concurrency, Reserve: q.Reserve}
	for _, w := range q.AllWindows() {
		out.Windows = append(out.Windows, worker.WindowLimit{Span: w.Per, Limit: w.Limit, Calendar: w.Calendar, Zone: w.Zone})
	}
	return out
}

func (a *App) target(name string) (config.Target, error) { return findTarget(a.cfg, name) }

func findTarget(cfg *config.Config, name string) (config.Target, error) {
	t, ok := cfg.Targets[name]
	if !ok {
		return t, fmt.Errorf("there is no target %q in the configuration; it has %s", name, list(sortedKeys(cfg.Targets)))
	}
	return t, nil
}

func list(names []string) string {
	if len(names) == 0 {
		return "none: name a file with --config"
	}
	out := strconv.Quote(names[0])
	for _, n := range names[1:] {
		out += ", " + strconv.Quote(n)
	}
	return out
}
