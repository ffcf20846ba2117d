package app

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"crmsync/queue"
)

var (
	descStore    = prometheus.NewDesc("crmsync_store_state", "1 for the state that the store is in.", []string{"state"}, nil)
	descLost     = prometheus.NewDesc("crmsync_store_lost", "Sequences that were confirmed, are missing and have not been accepted.", []string{"stream"}, nil)
	descFree     = prometheus.NewDesc("crmsync_store_free_bytes", "Free space of the disk of the embedded server's store.", nil, nil)
	descMinFree  = prometheus.NewDesc("crmsync_store_min_free_bytes", "Free space below which updates are not taken; absent without such a bound.", nil, nil)
	descStored   = prometheus.NewDesc("crmsync_store_stored_timestamp_seconds", "When a trial message was last stored.", nil, nil)
	descProved   = prometheus.NewDesc("crmsync_store_proved_timestamp_seconds", "When the streams last held all that had been confirmed.", nil, nil)
	descChecked  = prometheus.NewDesc("crmsync_store_checked_timestamp_seconds", "When all message files had last been read and found whole.", nil, nil)
	descRestarts = prometheus.NewDesc("crmsync_store_restarts_total", "Times that the embedded server was started again to mend its store.", nil, nil)
	descDurable  = prometheus.NewDesc("crmsync_durable", "0 where nothing proves or accepts that what NATS confirms may not survive a power cut.", nil, nil)
)

// storeCollector tells how the store is, also while nothing else can be told.
type storeCollector struct{ a *App }

func (c storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descStore, descLost, descFree, descMinFree, descStored, descProved, descChecked, descRestarts, descDurable} {
		ch <- d
	}
}

func (c storeCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWait)
	defer cancel()
	gauge := gaugesOf(ch)
	gauge(descDurable, oneIf(c.a.Durability(ctx).OK()))
	h, ok, err := c.a.q.Health(ctx)
	if err != nil || !ok {
		return
	}
	for _, s := range queue.StoreStates() {
		gauge(descStore, oneIf(h.State == s), string(s))
	}
	lost := map[string]float64{}
	for _, l := range h.Losses {
		lost[l.Stream] += float64(l.To - l.From + 1)
	}
	for stream, n := range lost {
		gauge(descLost, n, stream)
	}
	if h.Size > 0 {
		gauge(descFree, float64(h.Free))
	}
	if h.MinFree > 0 {
		gauge(descMinFree, float64(h.MinFree))
	}
	for d, at := range map[*prometheus.Desc]int64{descStored: h.Stored.Unix(), descProved: h.Proved.Unix(), descChecked: h.Checked.Unix()} {
		if at > 0 {
			gauge(d, float64(at))
		}
	}
	ch <- prometheus.MustNewConstMetric(descRestarts, prometheus.CounterValue, float64(h.Restarts))
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
