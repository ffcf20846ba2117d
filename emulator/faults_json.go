package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// faultJSON is a Fault as it looks in JSON: durations are strings.
type faultJSON struct {
	Kind        Kind       `json:"kind"`
	Probability float64    `json:"probability,omitempty"`
	From        duration   `json:"from,omitempty"`
	To          duration   `json:"to,omitempty"`
	Contact     string     `json:"contact,omitempty"`
	Operation   Operation  `json:"operation,omitempty"`
	Count       int        `json:"count,omitempty"`
	Apply       bool       `json:"apply,omitempty"`
	Min         duration   `json:"min,omitempty"`
	Max         duration   `json:"max,omitempty"`
	Status      int        `json:"status,omitempty"`
	RetryAfter  RetryAfter `json:"retry_after,omitempty"`
	RetryIn     duration   `json:"retry_in,omitempty"`
	Body        Nonsense   `json:"body,omitempty"`
	Interval    duration   `json:"interval,omitempty"`
	Size        int64      `json:"size,omitempty"`
	URL         string     `json:"url,omitempty"`
	Delay       duration   `json:"delay,omitempty"`
}

type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// MarshalJSON writes durations as strings and leaves out what is zero.
func (f Fault) MarshalJSON() ([]byte, error) {
	return json.Marshal(faultJSON{
		f.Kind, f.Probability, duration(f.From), duration(f.To), f.Contact, f.Operation, f.Count, f.Apply,
		duration(f.Min), duration(f.Max), f.Status, f.RetryAfter, duration(f.RetryIn), f.Body,
		duration(f.Interval), f.Size, f.URL, duration(f.Delay),
	})
}

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown keys.
func (f *Fault) UnmarshalJSON(b []byte) error {
	var j faultJSON
	if err := strict(b, &j); err != nil {
		return err
	}
	*f = Fault{
		j.Kind, j.Probability, time.Duration(j.From), time.Duration(j.To), j.Contact, j.Operation, j.Count, j.Apply,
		time.Duration(j.Min), time.Duration(j.Max), j.Status, j.RetryAfter, time.Duration(j.RetryIn), j.Body,
		time.Duration(j.Interval), j.Size, j.URL, time.Duration(j.Delay),
	}
	return nil
}

// ParseFaults reads a plan from JSON, an array of rules. Unknown keys, values
// that make no sense and trailing data are refused with the index of the rule.
func ParseFaults(b []byte) (Faults, error) {
	var raw []json.RawMessage
	if err := strict(b, &raw); err != nil {
		return nil, fmt.Errorf("faults: want a JSON array of rules: %w", err)
	}
	plan := make(Faults, len(raw))
	for i, r := range raw {
		if err := json.Unmarshal(r, &plan[i]); err != nil {
			return nil, fmt.Errorf("faults[%d]: %w", i, err)
		}
	}
	return plan, plan.Validate()
}

func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end")
	}
	return nil
}
