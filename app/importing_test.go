package app

import (
	"fmt"
	"strings"
	"testing"

	"crmsync/contact"
	"crmsync/emulator"
)

// spreadsheet is a CSV as a German Excel writes it: a byte order mark,
// semicolons, quotes, newlines in cells, umlauts. Two rows in a hundred are
// bad, each in one of four ways.
func spreadsheet(rows int) (text string, rejected, dead int) {
	var b strings.Builder
	b.WriteString("\ufeffContact ID;First Name;Last Name;Phone;Notizen\r\n")
	for i := 1; i <= rows; i++ {
		id := fmt.Sprint(i)
		name := fmt.Sprintf("\"Jörg \"\"J%d\"\"\"", i)
		tail := ""
		switch i % 200 {
		case 50:
			id, rejected = "", rejected+1 // no id
		case 100:
			tail, rejected = ";too;many", rejected+1 // ragged
		case 150:
			id, dead = fmt.Sprint(rows+i), dead+1 // no such contact
		case 199:
			id, rejected = "abc", rejected+1 // an id that Perfex cannot have
		}
		fmt.Fprintf(&b, "%s;%s;\"Müller; geb. Weiß\";+49 %d;\"zwei\nZeilen\"%s\r\n", id, name, i, tail)
	}
	return b.String(), rejected, dead
}

func TestImportSpreadsheetIntoPerfex(t *testing.T) {
	t.Parallel()
	const rows = 2000
	h := newHouse(t, emulator.Options{Contacts: rows}, emulator.Options{})
	a := h.open()
	defer a.Close()
	stop := h.work(a)
	defer stop()
	text, wantRejected, wantDead := spreadsheet(rows)
	im := Import{Target: "office", Path: h.write("contacts.csv", text), Class: contact.Bulk}
	var rejects []RejectedRow
	im.Rejected = func(r RejectedRow) { rejects = append(rejects, r) }
	rep, err := a.Import(t.Context(), im)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Rows != rows || int(rep.Rejected) != wantRejected || rep.Queued != rep.Rows-rep.Rejected {
		t.Errorf("rows %d, rejected %d (want %d), queued %d", rep.Rows, rep.Rejected, wantRejected, rep.Queued)
	}
	if len(rejects) != wantRejected || rejects[0].Line != 100 { // row 50 begins on line 2+49*2
		t.Errorf("%d rejects, the first %+v", len(rejects), rejects[0])
	}
	if rep.Delimiter != ";" || len(rep.Unmapped) != 1 || rep.Unmapped[0] != "Notizen" {
		t.Errorf("delimiter %q, unmapped %q", rep.Delimiter, rep.Unmapped)
	}
	if rep, err = a.Wait(t.Context(), rep, nil); err != nil {
		t.Fatal(err)
	}
	ended := int64(0)
	for _, n := range rep.Outcomes {
		ended += n
	}
	if !rep.Done || ended != rep.Queued || int(rep.Dead["missing"]) != wantDead || int(rep.Outcomes["dead"]) != wantDead {
		t.Errorf("ended %d of %d: %v, dead %v, want %d missing", ended, rep.Queued, rep.Outcomes, rep.Dead, wantDead)
	}
	checkLedger(t, h.office, rows, rep.Outcomes["applied"])
	again, err := a.Import(t.Context(), im)
	if err != nil || again.Queued != 0 || again.Duplicates != rep.Queued {
		t.Errorf("the same file again: queued %d, duplicates %d, %v", again.Queued, again.Duplicates, err)
	}
}

// checkLedger holds the emulator's records against the spreadsheet.
func checkLedger(t *testing.T, crm *emulator.CRM, rows int, applied int64) {
	t.Helper()
	right := int64(0)
	for i := 1; i <= rows; i++ {
		c, ok := crm.Contact(fmt.Sprint(i))
		if !ok {
			t.Fatalf("contact %d is gone", i)
		}
		if c["firstname"] == fmt.Sprintf("Jörg \"J%d\"", i) && c["lastname"] == "Müller; geb. Weiß" && c["phonenumber"] == fmt.Sprintf("+49 %d", i) {
			right++
		}
	}
	if right != applied {
		t.Errorf("%d contacts hold their row, %d rows ended applied", right, applied)
	}
}

func TestImportNDJSONIntoEvance(t *testing.T) {
	t.Parallel()
	const rows = 1000
	h := newHouse(t, emulator.Options{}, emulator.Options{Contacts: rows})
	a := h.open()
	defer a.Close()
	stop := h.work(a)
	defer stop()
	var b strings.Builder
	for i := 1; i <= rows; i++ {
		switch i % 100 {
		case 30:
			b.WriteString(`{"id":"1","fields":{"company":}` + "\n") // not JSON
		case 60:
			fmt.Fprintf(&b, `{"id":"%d","fields":{"company":"Größe %d"}}`+"\n", rows+i, i) // no such contact
		default:
			fmt.Fprintf(&b, `{"id":"%d","fields":{"company":"Größe %d","address":{"city":"Köln %d"}}}`+"\n", i, i, i)
		}
	}
	rejects := 0
	rep, err := a.Import(t.Context(), Import{
		Target: "shop", Path: "-", Stdin: strings.NewReader(b.String()), Class: contact.Bulk, Format: "ndjson",
		Rejected: func(RejectedRow) { rejects++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	if rep, err = a.Wait(t.Context(), rep, nil); err != nil {
		t.Fatal(err)
	}
	if rep.Rows != rows || rejects != rows/100 || rep.Dead["missing"] != rows/100 || rep.Outcomes["applied"] != rows-2*rows/100 {
		t.Errorf("report %+v, %d rejects", rep, rejects)
	}
	for _, i := range []int{1, 29, 500, 1000} {
		c, _ := h.shop.Contact(fmt.Sprint(i))
		addr, _ := c["address"].(map[string]any)
		if c["company"] != fmt.Sprintf("Größe %d", i) || addr["city"] != fmt.Sprintf("Köln %d", i) {
			t.Errorf("contact %d: %v %v", i, c["company"], addr)
		}
	}
}
