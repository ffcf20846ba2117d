package ingest

import (
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	for cell, want := range map[string]string{
		"": "", "Ann": "Ann", "+49 (170) 12-34": "+49 (170) 12-34", "-5": "-5", "'tis": "'tis",
		"=1+1": "'=1+1", "+cmd|x": "'+cmd|x", "@sum": "'@sum", "\t=1": "'\t=1", "'=1": "''=1", "'+49": "''+49",
	} {
		if got := Guard(cell); got != want {
			t.Errorf("Guard(%q) = %q, want %q", cell, got, want)
		}
	}
}

func FuzzGuard(f *testing.F) {
	for _, s := range []string{"", "=1", "''=", "+49", "'", "-x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g := Guard(s)
		if formula(g) && !harmless.MatchString(g) {
			t.Fatalf("%q is a formula still: %q", s, g)
		}
		cells := []string{g}
		if unguard(cells); cells[0] != s {
			t.Fatalf("%q comes back as %q", s, cells[0])
		}
	})
}

// Only a file that is an export loses apostrophes.
func TestUnguardedFile(t *testing.T) {
	for header, want := range map[string]string{"id,a,_row,_reason": "=1", "id,a,_row,b": "'=1"} {
		r, err := Open(strings.NewReader(header+"\n7,'=1,4,x\n"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		row, err := r.Next()
		if err != nil || row.Err != nil {
			t.Fatal(err, row.Err)
		}
		if v, _ := row.Fields.Get("a"); string(v) != `"`+want+`"` || row.Cells[1] != want {
			t.Errorf("%s: %s, %q", header, v, row.Cells)
		}
	}
}
