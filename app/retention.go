package app

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"crmsync/queue"
)

// Kept is how the dead letters stand against the limits that the configuration
// sets for keeping them.
type Kept struct {
	queue.RetentionStatus
	// Text says what is removed when, where a limit is near; else "".
	Text string `json:"text,omitempty"`
}

// looksOld is after which the last look at the limits no longer counts: no
// worker has such limits any more.
const looksOld = 5 * time.Minute

func (a *App) retention() queue.Retention {
	d := a.cfg.DeadLetters
	return queue.Retention{MaxAge: d.MaxAge, MaxBytes: d.MaxSize}
}

// keepLetters watches the limits for as long as the worker runs.
func (a *App) keepLetters(ctx context.Context) {
	err := a.q.KeepLetters(ctx, a.retention(), nil)
	if err != nil && ctx.Err() == nil {
		a.o.Log.Error().Err(err).Msg("the limits of dead letters are not kept any more")
	}
}

// kept reads how the letters stand; nil where no limit is set.
func (a *App) kept(ctx context.Context, now time.Time) (*Kept, error) {
	st, found, err := a.q.RetentionStatus(ctx)
	if err != nil || !found || st.Retention == (queue.Retention{}) || now.Sub(st.Looked) > looksOld {
		return nil, err
	}
	k := &Kept{RetentionStatus: st}
	if !st.Announced.IsZero() {
		k.Text = fmt.Sprintf("dead letters %s are discarded; the limit is near", st.Retention)
		if !st.Bites.IsZero() {
			k.Text += ", the first go " + st.Bites.UTC().Format(time.RFC3339)
		}
		k.Text += ": redrive them, or save them with crmsync dead export"
	}
	return k, nil
}

var (
	descRemoved = prometheus.NewDesc("crmsync_dead_letters_removed_total", "Dead letters that a limit of dead_letters has removed.", nil, nil)
	descBites   = prometheus.NewDesc("crmsync_dead_letters_removal_timestamp_seconds", "When a limit of dead_letters will remove the next; absent while none is near.", nil, nil)
)

// keptCollector shows the limits of dead letters.
type keptCollector struct{ a *App }

func (c keptCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descRemoved; ch <- descBites }

func (c keptCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWait)
	defer cancel()
	k, err := c.a.kept(ctx, time.Now())
	if err != nil || k == nil {
		return // readiness says so; a scrape shows what it can
	}
	ch <- prometheus.MustNewConstMetric(descRemoved, prometheus.CounterValue, float64(k.Removed))
	if !k.Bites.IsZero() {
		gaugesOf(ch)(descBites, float64(k.Bites.Unix()))
	}
}
