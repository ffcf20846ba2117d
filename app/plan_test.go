package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
	"crmsync/emulator"
)

// What is foreseen is what an import of the same file then does.
func TestForeseeAgreesWithImport(t *testing.T) {
	t.Parallel()
	const rows = 1000
	h := newHouse(t, emulator.Options{Contacts: rows}, emulator.Options{})
	text, rejected, _ := spreadsheet(rows)
	im := Import{Target: "office", Path: h.write("c.csv", text), Class: contact.Bulk}
	f, err := Foresee(t.Context(), h.cfg, "test", im, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(h.office.Ledger()); n != 0 {
		t.Errorf("%d requests were made", n)
	}
	a := h.open()
	defer a.Close()
	rep, err := a.Import(t.Context(), im)
	if err != nil {
		t.Fatal(err)
	}
	if f.Job != rep.Job || f.Rows != rep.Rows || f.Rejected != rep.Rejected || f.Sendable != rep.Queued || int(f.Rejected) != rejected ||
		f.Delimiter != rep.Delimiter || fmt.Sprint(f.Mapping, f.Unmapped) != fmt.Sprint(rep.Mapping, rep.Unmapped) {
		t.Errorf("foreseen %+v, done %+v", f, rep)
	}
	if f.Requests != 2*f.Sendable || f.Each != 2 || len(f.Problems) != 3 || f.Problems[0].Rows != 5 || len(f.Problems[0].Lines) != 5 {
		t.Errorf("%+v", f)
	}
	if d := time.Until(f.Ends) - f.Takes; d > 0 || d < -time.Minute {
		t.Errorf("takes %s, ends %s", f.Takes, f.Ends)
	}
}

func TestForeseeDuration(t *testing.T) {
	for _, tc := range []struct {
		rows, per    int
		target, sets string
		least, most  time.Duration
	}{
		{250, 0, "shop", "rate=10/s", 24 * time.Second, 26 * time.Second},
		{250, 0, "office", "rate=10/s", 49 * time.Second, 51 * time.Second},
		{250, 0, "shop", "reserve=50%", 0, time.Second}, // of 2000/s
		{250, 100, "shop", "rate=10/s", 2 * time.Hour, 2*time.Hour + 10*time.Minute},
		{50, 100, "office", "rate=10/s", 0, 11 * time.Second},
	} {
		set := []string{"targets." + tc.target + ".quota." + tc.sets}
		if tc.per > 0 {
			set = append(set, fmt.Sprintf("targets.%s.quota.per_hour=%d", tc.target, tc.per), fmt.Sprintf("targets.%s.quota.burst=10", tc.target))
		} else if !strings.HasPrefix(tc.sets, "reserve") {
			set = append(set, fmt.Sprintf("targets.%s.quota.burst=10", tc.target))
		}
		h := newHouse(t, emulator.Options{}, emulator.Options{}, set...)
		var b strings.Builder
		b.WriteString("id,phone\n")
		for i := range tc.rows {
			fmt.Fprintf(&b, "%d,1\n", i+1)
		}
		f, err := Foresee(t.Context(), h.cfg, "test", Import{Target: tc.target, Path: h.write("c.csv", b.String())}, 0)
		if err != nil || f.Takes < tc.least || f.Takes > tc.most {
			t.Errorf("%d rows to %s at %s take %s, want %s to %s (%v)", tc.rows, tc.target, f.Quota, f.Takes, tc.least, tc.most, err)
		}
	}
}

func TestForeseeRepeatsAndFields(t *testing.T) {
	h := newHouse(t, emulator.Options{}, emulator.Options{})
	f, err := Foresee(t.Context(), h.cfg, "test", Import{
		Target: "shop", Path: "-", Empty: "clear", Constants: map[string]string{"address.countryCode": "gb"},
		Stdin: strings.NewReader("id,company,city,phone\n1,a,b,4.47E+11\n2,,b,\n1,,,\n1,c,,\n3,<b>,,\n2,x,,\n"),
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if r := f.Repeats; r.Contacts != 2 || r.Rows != 3 || fmt.Sprint(r.First) != "[{1 4 2} {1 5 2} {2 7 3}]" {
		t.Errorf("repeats %+v", r)
	}
	if got := fmt.Sprint(f.Fields); got != "[{address.city 2 3} {address.countryCode 5 0} {company 3 2} {phone 1 4}]" {
		t.Errorf("fields %s", got)
	}
	if len(f.Doubts) != 1 || f.Doubts[0].Rows != 1 || len(f.Problems) != 1 || f.Problems[0].Lines[0] != 6 || !strings.Contains(f.Problems[0].Reason, "HTML") {
		t.Errorf("doubts %+v, problems %+v", f.Doubts, f.Problems)
	}
}

func TestForeseeCompares(t *testing.T) {
	h := newHouse(t, emulator.Options{Contacts: 3}, emulator.Options{Contacts: 3})
	im := Import{Target: "shop", Path: h.write("c.csv", "id,city,phone\n1,Ulm,1\n99,Ulm,1\n2,Ulm,1\n")}
	f, err := Foresee(t.Context(), h.cfg, "test", im, 2)
	if err != nil || len(f.Compared) != 2 || !f.Compared[1].Missing || f.Compared[0].Missing {
		t.Fatalf("%+v, %v", f.Compared, err)
	}
	if x := f.Compared[0].Fields; len(x) != 2 || x[0].Field != "address.city" || x[0].Change != "differs" || string(x[0].Sent) != `"Ulm"` || x[0].Held == nil {
		t.Errorf("%+v", x)
	}
	for _, e := range h.shop.Ledger() {
		if e.Operation == emulator.OpUpdate {
			t.Errorf("a comparison wrote: %+v", e)
		}
	}
	// The rows after the error are not foreseen less for it.
	im.Target = "office"
	im.Path = h.write("o.csv", "id,title\n1,x\n2,y\n")
	h.write("perfex.token", "nonsense")
	if f, err = Foresee(t.Context(), h.cfg, "test", im, 1); !errors.Is(err, ErrRefusedUs) || f.Rows != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	for set, want := range map[string]string{
		"targets.office.quota.per_hour=1": "does not allow for 2 contacts",
		"targets.office.quota.rate=0/s":   "allows no request",
	} {
		h := newHouse(t, emulator.Options{Contacts: 3}, emulator.Options{}, set, "targets.office.quota.burst=1")
		if _, err := Foresee(t.Context(), h.cfg, "test", im, 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", set, err)
		}
		if n := len(h.office.Ledger()); n != 0 {
			t.Errorf("%s: %d requests", set, n)
		}
	}
}

func TestTroublesAreBounded(t *testing.T) {
	t.Parallel()
	var many troubles
	for i := range 10 * shownTroubles {
		many.add("problem "+strings.Repeat("x", i), int64(i))
	}
	rows := int64(0)
	for _, x := range many.most() {
		rows += x.Rows
	}
	if len(many) != shownTroubles+1 || rows != 10*shownTroubles || many.most()[0].Reason != "other problems" {
		t.Errorf("%d kinds, %d rows, first %q", len(many), rows, many.most()[0].Reason)
	}
}

func TestHideSecrets(t *testing.T) {
	if got := hideSecrets(map[string]string{"password": "x", "a.Password": "y", "title": "z"}); fmt.Sprint(got) != "map[a.Password:******** password:******** title:z]" {
		t.Errorf("%v", got)
	}
	if got := hideSecret("password", nil); got != nil {
		t.Errorf("%s", got)
	}
	if got := hideSecret("password", json.RawMessage(`"x"`)); string(got) != masked {
		t.Errorf("%s", got)
	}
}
