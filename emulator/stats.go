package emulator

import "time"

// Stats counts what a ledger holds.
type Stats struct {
	Requests int `json:"requests"`
	Updates  int `json:"updates"`
	Reads    int `json:"reads"`
	Batches  int `json:"batches"`
	Tokens   int `json:"tokens"`
	Other    int `json:"other"`
	// Applied and Unchanged count writes by contact, so that a batch counts
	// as often as it has parts.
	Applied   int `json:"applied"`
	Unchanged int `json:"unchanged"`
	// Lost are answers withheld, Pending requests still being served.
	Lost    int `json:"lost"`
	Pending int `json:"pending"`
	// Refused counts answers of 300 and above by status, the false 404 of an
	// unchanged Perfex contact among them.
	Refused map[int]int `json:"refused"`
	// Faults counts the requests hit, by kind of fault.
	Faults map[string]int `json:"faults"`
	// PeakSecond and PeakMinute are the most arrivals in any such window.
	PeakSecond int       `json:"peak_second"`
	PeakMinute int       `json:"peak_minute"`
	First      time.Time `json:"first,omitzero"`
	Last       time.Time `json:"last,omitzero"`
	Mails      int       `json:"mails"`
}

// Stats counts the ledger as it is now.
func (c *CRM) Stats() Stats {
	s := Count(c.Ledger())
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Mails = len(c.mails)
	return s
}

// MaxOver holds the ledger against a quota; see the function of that name.
func (c *CRM) MaxOver(rate float64, burst int) float64 { return MaxOver(c.Ledger(), rate, burst) }

// Count counts entries. Mails are not in a ledger and stay 0.
func Count(entries []Entry) Stats {
	s := Stats{Requests: len(entries), Refused: map[int]int{}, Faults: map[string]int{}}
	for _, e := range entries {
		switch e.Operation {
		case OpUpdate:
			s.Updates++
		case OpRead:
			s.Reads++
		case OpBatch:
			s.Batches++
		case OpToken:
			s.Tokens++
		default:
			s.Other++
		}
		for _, p := range e.Parts() {
			if p.Applied {
				s.Applied++
			}
			if p.Unchanged {
				s.Unchanged++
			}
		}
		switch {
		case e.Answered.IsZero():
			s.Pending++
		case e.Status == 0:
			s.Lost++
		case e.Status >= 300:
			s.Refused[e.Status]++
		}
		if e.Fault != "" {
			s.Faults[e.Fault]++
		}
	}
	if at := arrivals(entries); len(at) > 0 {
		s.First, s.Last = at[0], at[len(at)-1]
	}
	s.PeakSecond = PeakRate(entries, time.Second)
	s.PeakMinute = PeakRate(entries, time.Minute)
	return s
}
