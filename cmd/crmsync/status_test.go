package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"crmsync/app"
)

// What a storm has left behind is told though nothing holds the lane.
func TestStatusTellsWhatWaitsForRoom(t *testing.T) {
	var st app.TargetStatus
	if err := json.Unmarshal([]byte(`{"target":"office","lane":{"memory":{"left":[{"id":"1","class":"live","seq":7},{"id":"2","class":"bulk","seq":9}]}}}`), &st); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	details(&out, st, time.Now())
	if want := "office: 2 dead letter(s) of a storm are recalled when the queue has room for them\n"; !strings.Contains(out.String(), want) {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	st.Lane.Memory.Left = nil
	if details(&out, st, time.Now()); strings.Contains(out.String(), "storm") {
		t.Errorf("%q", out.String())
	}
}
