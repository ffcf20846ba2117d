package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"crmsync/config"
)

// Durability says whether what NATS confirms survives a power cut.
type Durability struct {
	// State is proven, vouched (by the operator), relaxed (as the operator wants
	// it) or unproven.
	State string `json:"state"`
	Text  string `json:"text"`
}

// The states of a [Durability].
const (
	DurabilityProven   = "proven"
	DurabilityVouched  = "vouched"
	DurabilityRelaxed  = "relaxed"
	DurabilityUnproven = "unproven"
)

// OK says that the operator knows where they stand.
func (d Durability) OK() bool { return d.State != DurabilityUnproven }

// durable remembers what the servers said.
type durable struct {
	mu   sync.Mutex
	said Durability
	at   time.Time
}

const (
	durableFor  = time.Minute // an answer of the servers counts
	monitorWait = 2 * time.Second
	monitorMost = 1 << 20 // bytes of an answer
)

// Durability asks the servers, where their monitoring is known, or says what the
// operator says.
func (a *App) Durability(ctx context.Context) Durability {
	n := a.cfg.NATS
	switch {
	case n.Embedded():
		return Durability{DurabilityProven, "the embedded server syncs each write before it confirms it"}
	case n.Durability == config.DurabilityAlways:
		return Durability{DurabilityVouched, "nats.durability vouches for it that the servers sync each write"}
	case n.Durability == config.DurabilityRelaxed:
		return Durability{DurabilityRelaxed, "as nats.durability accepts, a power cut can cost updates that were confirmed"}
	}
	a.durable.mu.Lock()
	defer a.durable.mu.Unlock()
	if time.Since(a.durable.at) < durableFor {
		return a.durable.said
	}
	a.durable.said, a.durable.at = a.askServers(ctx), time.Now()
	return a.durable.said
}

// askServers finds out what the servers say.
func (a *App) askServers(ctx context.Context) Durability {
	if h, ok, err := a.q.Health(ctx); err == nil && ok && h.Dir != "" {
		return Durability{DurabilityProven, "the server, which another crmsync hosts, syncs each write before it confirms it"}
	}
	if len(a.cfg.NATS.Monitor) == 0 {
		return Durability{DurabilityUnproven, "a power cut may cost updates that were confirmed: nothing proves that the NATS servers sync each write. " +
			"Set sync_interval: always in their jetstream block, and name their monitoring addresses in nats.monitor; or say nats.durability: always or relaxed"}
	}
	return askMonitors(ctx, a.cfg.NATS.Monitor, a.q.Servers())
}

// askMonitors asks each monitoring address whether its server syncs each write.
func askMonitors(ctx context.Context, addresses []string, servers int) Durability {
	proven := map[string]bool{}
	for _, address := range addresses {
		name, always, err := askMonitor(ctx, address)
		switch {
		case err != nil:
			return Durability{DurabilityUnproven, fmt.Sprintf("%s does not say whether it syncs each write: %v", address, err)}
		case !always:
			return Durability{DurabilityUnproven, fmt.Sprintf("a power cut can cost updates that were confirmed: the NATS server at %s does not sync each write. Set sync_interval: always in its jetstream block", address)}
		}
		proven[name] = true
	}
	if len(proven) < servers {
		return Durability{DurabilityUnproven, fmt.Sprintf("%d of %d NATS servers prove that they sync each write; name the monitoring address of each in nats.monitor", len(proven), servers)}
	}
	return Durability{DurabilityProven, fmt.Sprintf("%d NATS server(s) sync each write before they confirm it", len(proven))}
}

func askMonitor(ctx context.Context, address string) (id string, always bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, monitorWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/varz", nil)
	if err != nil {
		return "", false, err
	}
	c := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", false, fmt.Errorf("it answers %s", resp.Status)
	}
	var v struct {
		ID        string `json:"server_id"`
		JetStream struct {
			Config *struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, monitorMost)).Decode(&v); err != nil {
		return "", false, err
	}
	if v.ID == "" || v.JetStream.Config == nil {
		return "", false, errors.New("it is no NATS server with JetStream")
	}
	return v.ID, v.JetStream.Config.SyncAlways, nil
}
