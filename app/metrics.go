package app

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"crmsync/contact"
	"crmsync/crm"
	"crmsync/worker"
)

// meters are what is counted as it happens; the rest is read off the lanes
// when a scrape comes. No label holds a contact's id: labels are targets and
// closed lists.
type meters struct {
	reg      *prometheus.Registry
	updates  *prometheus.CounterVec
	dead     *prometheus.CounterVec
	attempts *prometheus.CounterVec
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMeters() *meters {
	m := &meters{
		reg: prometheus.NewRegistry(),
		updates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crmsync_updates_total", Help: "Updates that have ended, by outcome.",
		}, []string{"target", "outcome"}),
		dead: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crmsync_dead_letters_total", Help: "Updates that ended as dead letters, by reason.",
		}, []string{"target", "reason"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crmsync_attempts_total", Help: "Calls that were answered, by what the answer meant.",
		}, []string{"target", "verdict"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crmsync_requests_total", Help: "HTTP requests sent to the CRM, all of them.",
		}, []string{"target"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "crmsync_call_duration_seconds", Help: "How long a call took, waiting for quota between its requests included.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"target"}),
	}
	m.reg.MustRegister(m.updates, m.dead, m.attempts, m.requests, m.duration,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *meters) answer(target string, a crm.Answer, took time.Duration) {
	m.attempts.WithLabelValues(target, a.Verdict.String()).Inc()
	m.requests.WithLabelValues(target).Add(float64(max(1, a.Requests)))
	m.duration.WithLabelValues(target).Observe(took.Seconds())
}

func (m *meters) settled(target string, e contact.Ended) {
	m.updates.WithLabelValues(target, e.Ending.Outcome.String()).Inc()
	if e.Ending.Outcome == contact.Dead {
		m.dead.WithLabelValues(target, e.Ending.Reason.String()).Inc()
	}
}

var (
	descBuild    = prometheus.NewDesc("crmsync_build_info", "Always 1; the labels say what runs.", []string{"version"}, nil)
	descPending  = prometheus.NewDesc("crmsync_pending", "Unfinished updates that the lane holds in memory.", []string{"target", "class"}, nil)
	descBacklog  = prometheus.NewDesc("crmsync_backlog", "Updates in the target's stream.", []string{"target", "class"}, nil)
	descOldest   = prometheus.NewDesc("crmsync_oldest_pending_seconds", "Age of the oldest update in the target's stream.", []string{"target", "class"}, nil)
	descLetters  = prometheus.NewDesc("crmsync_dead_letters", "Dead letters that are stored now.", []string{"target", "reason"}, nil)
	descInFlight = prometheus.NewDesc("crmsync_in_flight", "Calls in flight.", []string{"target"}, nil)
	descRetrying = prometheus.NewDesc("crmsync_retrying", "Contacts that wait for a retry.", []string{"target"}, nil)
	descHeld     = prometheus.NewDesc("crmsync_held", "1 while the lane sends nothing for this reason.", []string{"target", "reason"}, nil)
	descETA      = prometheus.NewDesc("crmsync_eta_seconds", "Time until the target's queue will be empty; absent where that cannot be foretold.", []string{"target"}, nil)
)

// scrapeWait bounds what a scrape asks of the queue.
const scrapeWait = 5 * time.Second

// gaugesOf sends gauges to a scrape.
func gaugesOf(ch chan<- prometheus.Metric) func(d *prometheus.Desc, v float64, labels ...string) {
	return func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
}

// laneCollector reads this process's lanes, and the queue.
type laneCollector struct{ a *App }

func (c laneCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descBuild, descPending, descBacklog, descOldest, descLetters, descInFlight, descRetrying, descHeld,
		descRate, descAllowed, descUsed, descWindow, descWindowOf, descWindowLeft,
		descSaid, descSaidOf, descETA,
	} {
		ch <- d
	}
}

func (c laneCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWait)
	defer cancel()
	gauge := gaugesOf(ch)
	gauge(descBuild, 1, c.a.o.Version)
	st, err := c.a.Status(ctx)
	if err != nil {
		return // readiness says so; a scrape shows what it can
	}
	for _, t := range st.Targets {
		for class, q := range t.Queue {
			gauge(descBacklog, float64(q.Waiting), t.Target, class)
			age := 0.0
			if !q.Oldest.IsZero() {
				age = st.At.Sub(q.Oldest).Seconds()
			}
			gauge(descOldest, age, t.Target, class)
		}
		for reason, n := range t.Dead {
			gauge(descLetters, float64(n), t.Target, reason)
		}
		if c.a.lane(t.Target) == nil || t.Lane == nil {
			continue // the process that runs it tells
		}
		l := t.Lane
		gauge(descPending, float64(l.Live), t.Target, contact.Live.String())
		gauge(descPending, float64(l.Bulk), t.Target, contact.Bulk.String())
		gauge(descInFlight, float64(l.Calling), t.Target)
		gauge(descRetrying, float64(l.Retrying), t.Target)
		for _, r := range worker.HoldReasons() {
			held := 0.0
			if l.Hold != nil && l.Hold.Reason == r {
				held = 1
			}
			gauge(descHeld, held, t.Target, string(r))
		}
		collectQuota(gauge, t.Target, l)
		switch {
		case t.ETA == nil:
			gauge(descETA, 0, t.Target)
		case !t.ETA.Done.IsZero():
			gauge(descETA, max(0, t.ETA.Done.Sub(st.At).Seconds()), t.Target)
		}
	}
}

// Metrics serves this process's metrics in Prometheus' text format.
func (a *App) Metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(laneCollector{a}, keptCollector{a}, storeCollector{a})
	return promhttp.HandlerFor(prometheus.Gatherers{a.meters.reg, reg}, promhttp.HandlerOpts{})
}
