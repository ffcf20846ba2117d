package crm

import "strings"

// yesNo are the words of a yes or no that people write and spreadsheets save, in
// the languages that they save them in.
var yesNo = func() map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields("yes y true t on 1 x ja j wahr oui o vrai si sí sì verdadero vero sim verdadeiro waar tak prawda") {
		out[w] = true
	}
	for _, w := range strings.Fields("no n false f off 0 nein falsch non faux falso não nee onwaar nie fałsz") {
		out[w] = false
	}
	return out
}()

// YesNo reads a cell as a yes or no, whatever its letter case; ok is false for
// anything else, an empty cell among them.
func YesNo(cell string) (yes, ok bool) {
	yes, ok = yesNo[strings.ToLower(strings.TrimSpace(cell))]
	return yes, ok
}
