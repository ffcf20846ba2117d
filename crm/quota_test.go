package crm_test

import (
	"fmt"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/emulator"
)

// An answer hands on what the newest of its call's answers said of the quota,
// and when that request began.
func TestAnswersTellOfTheQuota(t *testing.T) {
	for _, sub := range subjects() {
		sub.options.Limits = emulator.Limits{PerHour: 10}
		t.Run(sub.name, func(t *testing.T) {
			sub.run(t, func(s *stand) {
				time.Sleep(26 * 365 * 24 * time.Hour) // when Unix seconds are taken for such
				for i := range 3 {
					began := time.Now()
					a := s.send(s.change("7", s.name(fmt.Sprint("Bob ", i))))
					s.want(a, contact.VerdictApplied, 0, false)
					switch {
					case sub.options.Mode == emulator.Perfex208: // it has no limits
						if a.Hints != nil {
							s.t.Fatalf("hints %+v", a.Hints)
						}
						continue
					case a.Hints == nil || len(a.Hints.Quotas) != 1:
						s.t.Fatalf("hints %+v", a.Hints)
					}
					q := a.Hints.Quotas[0]
					if q.Limit != 10 || a.Hints.Began.Before(began) || a.Hints.Began.After(time.Now()) {
						s.t.Errorf("hints %+v", a.Hints)
					}
					if used := int64(len(s.crm.Ledger())); sub.perfex && (q.Remaining != 10-used || !q.Sliding || q.Reset != 0 || q.Window < time.Hour-time.Second || q.Window > time.Hour) {
						s.t.Errorf("after %d requests: %+v", used, q)
					}
					if !sub.perfex && (q.Sliding || q.Reset <= 0 || q.Remaining != int64(10-i)) { // the token's request does not count
						s.t.Errorf("after %d: %+v", i+1, q)
					}
				}
			})
		})
	}
}
