package crm

import "testing"

func TestYesNo(t *testing.T) {
	for cell, want := range map[string]bool{"yes": true, " WAHR ": true, "Ja": true, "Sí": true, "1": true, "no": false, "FALSCH": false, "NON": false, "0": false} {
		if yes, ok := YesNo(cell); !ok || yes != want {
			t.Errorf("%q: %v, %v", cell, yes, ok)
		}
	}
	for _, cell := range []string{"", " ", "perhaps", "2", "yes no"} {
		if yes, ok := YesNo(cell); ok || yes {
			t.Errorf("%q: %v, %v", cell, yes, ok)
		}
	}
}
