package worker

import (
	"fmt"
	"math"
	"time"
)

// Quota is what a target allows. Every HTTP request counts.
type Quota struct {
	Rate        float64       // requests a second; 0 means no limit
	Burst       int           // requests at once after a pause that the CRM allows; at least 1
	Concurrency int           // calls at once; 0 means 1
	Reserve     float64       // share of rate, windows and what is advertised left to others, 0 to 0.9
	Windows     []WindowLimit // further limits, each over its own span
	// Durable says that somebody stores [Budget.Memory] whenever
	// [Budget.Want] asks: windows are then used only as far as has been stored,
	// so that no crash doubles them. Otherwise a crash forgets what was used
	// since the last record.
	Durable bool
}

// WindowLimit is a limit over a span of time: rolling, or from one boundary of
// the calendar to the next.
type WindowLimit struct {
	Span  time.Duration
	Limit int
	// Calendar says that the count begins anew with each minute, hour or day
	// (a Span of 24 h) of Zone, nil for UTC. Other spans are counted from the
	// Unix epoch.
	Calendar bool
	Zone     *time.Location
}

func (l WindowLimit) zone() string {
	if l.Calendar && l.Zone != nil {
		return l.Zone.String()
	}
	return ""
}

// same says that two limits count the same requests.
func (l WindowLimit) same(o WindowLimit) bool {
	return l.Span == o.Span && l.Calendar == o.Calendar && l.zone() == o.zone()
}

// String is for people: "1000 in 1h0m0s".
func (l WindowLimit) String() string {
	if !l.Calendar {
		return fmt.Sprintf("%d in %s", l.Limit, l.Span)
	}
	unit := l.Span.String()
	switch l.Span {
	case time.Minute:
		unit = "minute"
	case time.Hour:
		unit = "hour"
	case 24 * time.Hour:
		unit = "day"
	}
	return fmt.Sprintf("%d a %s", l.Limit, unit)
}

// QuotaStatus is a budget at one instant. Its JSON is what commands and the
// console show.
type QuotaStatus struct {
	Used       float64            `json:"used"`             // requests a second over the last ten
	Rate       float64            `json:"rate"`             // that we allow ourselves now; 0: no limit
	Allowed    float64            `json:"allowed"`          // and at most, as configured or ordered; 0: no limit
	Burst      int                `json:"burst"`            // as configured
	Reserve    float64            `json:"reserve,omitzero"` // share left to others
	Slowed     Why                `json:"slowed,omitempty"` // what makes Rate less than Allowed
	Windows    []WindowStatus     `json:"windows,omitempty"`
	Advertised []AdvertisedStatus `json:"advertised,omitempty"`
	Asked      time.Time          `json:"asked,omitzero"` // until when the CRM wants nothing
	Total      int64              `json:"total"`          // requests since this owner began
}

// WindowStatus is how much of a window is used.
type WindowStatus struct {
	Span     time.Duration `json:"span"`
	Calendar bool          `json:"calendar,omitempty"`
	Zone     string        `json:"zone,omitempty"`
	Used     int           `json:"used"`
	Limit    int           `json:"limit"` // less the reserve
	Left     int           `json:"left"`
	// Resets is when room next grows: the end of a period of the calendar, when
	// the oldest request leaves a rolling one. Zero where nothing is used.
	Resets time.Time `json:"resets,omitzero"`
}

// AdvertisedStatus is what the CRM said of one quota, and when.
type AdvertisedStatus struct {
	Name       string        `json:"name,omitempty"`
	Limit      int64         `json:"limit,omitempty"`
	Left       int64         `json:"left"` // less what was sent since
	Window     time.Duration `json:"window,omitempty"`
	Sliding    bool          `json:"sliding,omitempty"`
	Resets     time.Time     `json:"resets,omitzero"`
	At         time.Time     `json:"at"`
	Unenforced bool          `json:"unenforced,omitempty"` // it was used up, and requests were served all the same
}

// Describe is the budget now; a shared one is described by itself.
func (b *Budget) Describe(now time.Time) QuotaStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tuneLocked(now)
	s := QuotaStatus{Burst: b.quota.Burst, Reserve: b.quota.Reserve, Total: b.total, Used: b.recent.rate(now.Sub(b.born))}
	r, slowed := b.inForceLocked(now)
	s.Slowed = slowed
	if !math.IsInf(r, 1) {
		s.Rate = r
	}
	if !math.IsInf(b.allowed, 1) {
		s.Allowed = b.allowed
	}
	if b.asked.After(now) {
		s.Asked = b.asked
	}
	for _, w := range b.windows {
		of, used := w.of(), w.used(now)
		s.Windows = append(s.Windows, WindowStatus{
			Span: of.Span, Calendar: of.Calendar, Zone: of.zone(), Used: used, Limit: w.allowed(),
			Left: max(0, w.allowed()-used), Resets: w.resets(now),
		})
	}
	for i := range b.adverts {
		s.Advertised = append(s.Advertised, b.adverts[i].describe(now))
	}
	return s
}

func (a *advert) describe(now time.Time) AdvertisedStatus {
	s := AdvertisedStatus{Name: a.Name, Limit: a.Limit, Left: a.left, Window: a.Window, Sliding: a.Sliding, At: a.heard, Unenforced: a.off}
	if a.end.After(now) {
		s.Resets = a.end
	}
	if a.own != nil {
		s.Window, s.Left = a.own.Span, max(0, a.Limit-int64(a.own.used(now)+a.foreign))
	}
	return s
}
