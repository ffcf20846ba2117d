package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"crmsync/emulator"
)

type emulateCmd struct {
	CRM         string  `arg:"" enum:"perfex,evance" help:"perfex or evance."`
	Listen      string  `default:"127.0.0.1:8081" placeholder:"HOST:PORT" help:"Address to serve on; port 0 takes any."`
	Mode        string  `placeholder:"MODE" help:"perfex: 2.0.8, 3.0.3 or 3.x-docs; evance: v1 or v2 (default: both)."`
	Contacts    int     `default:"1000" placeholder:"N" help:"Contacts that exist: ids 1 to N."`
	Token       string  `default:"emulated-token" env:"CRMSYNC_EMULATED_TOKEN" placeholder:"TOKEN" help:"Perfex token to accept. It is no secret."`
	Rate        float64 `placeholder:"N" help:"Requests a second that it allows; 0 for no limit."`
	Burst       int     `default:"1" placeholder:"N" help:"Requests at once that it allows."`
	PerHour     int     `placeholder:"N" help:"Requests an hour that it allows; 0 for no limit."`
	Seed        uint64  `default:"1" placeholder:"N" help:"Seed of its contents and faults."`
	Faults      string  `type:"existingfile" placeholder:"FILE" help:"Bad day, as the JSON that /_emulator/faults takes."`
	Credentials string  `placeholder:"FILE" help:"Write a credentials file for it: a Perfex token or Evance's JSON."`
}

// Help is the command's manual.
func (emulateCmd) Help() string {
	return `It keeps a ledger of every request. Beside the CRM's own paths it serves
/_emulator/ledger, /_emulator/stats, /_emulator/contact/ID, /_emulator/mails,
PUT /_emulator/faults, POST /_emulator/revoke-tokens and /_emulator/set-token.`
}

func (c *emulateCmd) Run(ctx context.Context, g *Globals) error {
	crm, err := c.build()
	if err != nil {
		return &exitError{exitUsage, err}
	}
	defer crm.Close()
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("emulate %s: %w", c.CRM, err)
	}
	if err := c.writeCredentials(); err != nil {
		return errors.Join(err, ln.Close())
	}
	srv := &http.Server{Handler: withControl(crm), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	fmt.Fprintf(g.std.out, "emulated %s at http://%s, contacts 1 to %d, control at /_emulator/\n", c.CRM, ln.Addr(), c.Contacts)
	select {
	case err = <-served:
	case <-ctx.Done():
		crm.Close() // callers that a fault keeps waiting
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		err = srv.Shutdown(stopping)
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (c *emulateCmd) build() (*emulator.CRM, error) {
	o := emulator.Options{
		Mode: c.Mode, Token: c.Token, Contacts: c.Contacts, Seed: c.Seed,
		Limits: emulator.Limits{Rate: c.Rate, Burst: c.Burst, PerHour: c.PerHour, RetryAfter: emulator.RetrySeconds},
	}
	var faults emulator.Faults
	if c.Faults != "" {
		text, err := os.ReadFile(c.Faults)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &faults); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Faults, err)
		}
		if err := faults.Validate(); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Faults, err)
		}
	}
	modes := map[string][]string{
		"perfex": {"", emulator.Perfex208, emulator.Perfex303, emulator.PerfexDocs},
		"evance": {"", emulator.EvanceV1, emulator.EvanceV2},
	}[c.CRM]
	known := false
	for _, m := range modes {
		known = known || m == c.Mode
	}
	if !known {
		return nil, fmt.Errorf("--mode %q is not known for %s; it has %s", c.Mode, c.CRM, strings.Join(modes[1:], ", "))
	}
	build := emulator.NewPerfex
	if c.CRM == "evance" {
		build = emulator.NewEvance
	}
	crm := build(o)
	crm.SetFaults(faults)
	return crm, nil
}

// writeCredentials writes what a target's token_file or credentials_file holds.
func (c *emulateCmd) writeCredentials() error {
	if c.Credentials == "" {
		return nil
	}
	text := []byte(c.Token + "\n")
	if c.CRM == "evance" {
		var err error
		if text, err = evanceCredentials(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(c.Credentials), 0o700); err != nil {
		return err
	}
	return os.WriteFile(c.Credentials, text, 0o600)
}

// evanceCredentials is a credentials file as Evance issues it, for an emulator.
func evanceCredentials() ([]byte, error) {
	return json.MarshalIndent(map[string]string{
		"account": emulator.DefaultAccount, "client_id": emulator.DefaultClientID,
		"private_key": emulator.DefaultPrivateKey, "algorithm": "HS256",
	}, "", "  ")
}

// withControl serves the emulator, and its controls under /_emulator/.
func withControl(crm *emulator.CRM) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/_emulator/", http.StripPrefix("/_emulator", emulator.NewControl(crm)))
	mux.Handle("/", crm)
	return mux
}
