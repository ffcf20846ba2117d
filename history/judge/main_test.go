package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"crmsync/history"
)

func TestJudge(t *testing.T) {
	var out bytes.Buffer
	broken, err := judge(&out, "../testdata/good.jsonl", false)
	if err != nil || broken || strings.Contains(out.String(), "BROKEN") || !strings.Contains(out.String(), "holds   I1 no loss") {
		t.Errorf("%v, %v: %s", broken, err, &out)
	}
	out.Reset()
	broken, err = judge(&out, "../testdata/bad/I4-stale.jsonl", false)
	if err != nil || !broken || !strings.Contains(out.String(), "BROKEN  I4 order of a contact") || !strings.Contains(out.String(), "> 00:00:03.000000 apply") {
		t.Errorf("%v, %v: %s", broken, err, &out)
	}
	out.Reset()
	broken, err = judge(&out, "../testdata/bad/I4-stale.jsonl", true)
	var r history.Report
	if e := json.Unmarshal(out.Bytes(), &r); e != nil || err != nil || !broken || len(r.Violations()) != 1 {
		t.Errorf("%v, %v, %v: %s", broken, err, e, &out)
	}
	if _, err := judge(&out, "main.go", false); err == nil || !strings.Contains(err.Error(), "main.go: history: line 4: ") {
		t.Errorf("%v", err)
	}
	if _, err := judge(&out, "nowhere", false); err == nil {
		t.Error("a file that is not there was read")
	}
}
