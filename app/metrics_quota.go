package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"crmsync/worker"
)

// A scope is "own", or "shared" for the quota that a target has in common with
// others.
const (
	scopeOwn    = "own"
	scopeShared = "shared"
)

var (
	windowLabels = []string{"target", "scope", "window"}

	descRate       = prometheus.NewDesc("crmsync_ratelimit_limit", "Requests a second that the lane allows itself now; 0: no limit.", []string{"target"}, nil)
	descAllowed    = prometheus.NewDesc("crmsync_ratelimit_allowed", "Requests a second that the configuration or the operator allows, less the reserve; 0: no limit.", []string{"target"}, nil)
	descUsed       = prometheus.NewDesc("crmsync_ratelimit_used", "Requests a second over the last ten seconds.", []string{"target"}, nil)
	descWindow     = prometheus.NewDesc("crmsync_window_used", "Requests counted in a quota window.", windowLabels, nil)
	descWindowOf   = prometheus.NewDesc("crmsync_window_limit", "Requests allowed in a quota window, less the reserve.", windowLabels, nil)
	descWindowLeft = prometheus.NewDesc("crmsync_window_left", "Requests that a quota window still allows.", windowLabels, nil)
	descSaid       = prometheus.NewDesc("crmsync_advertised_left", "Requests that the CRM says are left, less those made since; where it tells of several quotas, of the scarcest.", []string{"target"}, nil)
	descSaidOf     = prometheus.NewDesc("crmsync_advertised_limit", "That quota; absent where the CRM does not say.", []string{"target"}, nil)
)

func collectQuota(gauge func(*prometheus.Desc, float64, ...string), target string, l *worker.Status) {
	gauge(descRate, l.Rate, target)
	gauge(descAllowed, l.Allowed, target)
	gauge(descUsed, l.Used, target)
	var said *worker.AdvertisedStatus
	for scope, q := range map[string]*worker.QuotaStatus{scopeOwn: &l.QuotaStatus, scopeShared: l.Shared} {
		if q == nil {
			continue
		}
		for _, w := range q.Windows {
			name := w.Span.String()
			if w.Calendar {
				name += " calendar " + w.Zone
			}
			gauge(descWindow, float64(w.Used), target, scope, name)
			gauge(descWindowOf, float64(w.Limit), target, scope, name)
			gauge(descWindowLeft, float64(w.Left), target, scope, name)
		}
		for _, a := range q.Advertised {
			if said == nil || a.Left < said.Left {
				said = &a
			}
		}
	}
	if said == nil {
		return
	}
	gauge(descSaid, float64(said.Left), target)
	if said.Limit > 0 {
		gauge(descSaidOf, float64(said.Limit), target)
	}
}
