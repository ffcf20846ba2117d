package history

import (
	"maps"
	"slices"
)

// noLoss: every update that was stored has one outcome for each time it was sent,
// and an outcome that says that the CRM has it is true.
func (t *trial) noLoss() {
	for _, u := range t.order {
		if !u.in {
			continue
		}
		t.checked()
		if len(u.drives) == 0 {
			if !u.removed {
				t.find(u.At, u.key, "update %d was stored (%s %d) and has no outcome", u.Update, u.place.class, u.place.seq)
			}
			continue
		}
		for _, d := range u.drives {
			ends := slices.DeleteFunc(slices.Clone(d.settles), func(s Event) bool { return s.Outcome == "discarded" }) // that is its letter's end
			if n := len(ends); n > 1 {
				t.find(ends[1].At, u.key, "update %d ended %d times: %s by record %d, %s by record %d",
					u.Update, n, ends[0].Outcome, ends[0].Record, ends[1].Outcome, ends[1].Record)
			}
		}
		if end := u.end(); end.Outcome == "superseded" {
			for path := range u.Fields {
				if t.newer(u, path) == nil {
					t.find(end.At, u.key, "update %d ended superseded, and nothing newer wrote its %s", u.Update, path)
				}
			}
		}
	}
}

// losslessMerge: each path of an update that counts reached the CRM, or gave way to
// a newer one.
func (t *trial) losslessMerge() {
	wrote := t.wrote()
	for _, u := range t.order {
		end := u.end()
		if !u.counts() || end.Outcome == "superseded" || len(t.requests) == 0 {
			continue
		}
		t.checked()
		for path, value := range u.Fields {
			if slices.Contains(sideEffects, path) || Marked(value) == 0 || wrote[u.Update][path] || t.newer(u, path) != nil {
				continue // what clears a field says nothing of itself
			}
			t.find(end.At, u.key, "update %d ended %s, but its %s never reached the CRM and nothing newer wrote it", u.Update, end.Outcome, path)
		}
	}
}

// wrote has for each update the paths of which the CRM took its value.
func (t *trial) wrote() map[int64]map[string]bool {
	out := map[int64]map[string]bool{}
	for _, writes := range t.writes {
		for _, w := range writes {
			for path, value := range w.apply.Fields {
				n := Marked(value)
				if n == 0 {
					continue
				}
				if out[n] == nil {
					out[n] = map[string]bool{}
				}
				out[n][path] = true
			}
		}
	}
	return out
}

// noInvention: what the CRM took is what some update of that contact wrote there,
// and one write never holds an older value where it carries a newer one.
func (t *trial) noInvention() {
	for k, writes := range t.writes {
		for _, w := range writes {
			t.checked()
			for path, value := range w.apply.Fields {
				n := Marked(value)
				if n == 0 {
					continue
				}
				t.invented(w, k, path, value, t.updates[n])
			}
		}
	}
	for i := range t.events {
		if e := &t.events[i]; e.Kind == Settle && t.updates[e.Update] == nil {
			t.find(e.At, key{e.Target, e.Contact}, "record %d ends update %d, which nobody offered", e.Record, e.Update)
		}
	}
}

func (t *trial) invented(w *request, k key, path, value string, u *update) {
	switch {
	case u == nil:
		t.find(w.apply.At, k, "request %d wrote %s=%q, which no update offered", w.Request, path, value)
	case u.key != k:
		t.find(w.apply.At, k, "request %d wrote %s of update %d, which is of contact %s/%s", w.Request, path, u.Update, u.key.target, u.key.contact)
	case u.Fields[path] != value:
		t.find(w.apply.At, k, "request %d wrote %s=%q, update %d has %q", w.Request, path, value, u.Update, u.Fields[path])
	default:
		for _, n := range w.Updates {
			v := t.updates[n]
			if v == nil || v == u || v.key != k || !v.counts() || !v.place.after(u.place) {
				continue
			}
			if _, both := v.Fields[path]; both {
				t.find(w.apply.At, k, "request %d carried update %d and wrote %s of the older update %d", w.Request, n, path, u.Update)
			}
		}
	}
}

// convergence: at the end each path holds the value of the newest update that
// counts.
func (t *trial) convergence() {
	unsure := map[pathKey]bool{} // put back by a late request when the owner changed
	for _, o := range t.overwrites() {
		unsure[pathKey{o.u.key, o.path}] = o.was != nil && o.late && o.handedOver && !o.repaired
	}
	paths := map[key]map[string]bool{}
	for _, u := range t.order {
		if paths[u.key] == nil {
			paths[u.key] = map[string]bool{}
		}
		for path := range u.Fields {
			paths[u.key][path] = true
		}
	}
	for k, of := range paths {
		final, known := t.final[k]
		if !known {
			continue
		}
		for path := range maps.Keys(of) {
			w := t.winner(k, path)
			if w == nil || slices.Contains(sideEffects, path) || t.forgotten(k, path) || unsure[pathKey{k, path}] {
				continue
			}
			t.checked()
			if have := final.Fields[path]; have != w.Fields[path] {
				t.find(final.At, k, "at the end %s is %q, want %q of update %d, the newest that counts", path, have, w.Fields[path], w.Update)
			}
		}
	}
}

// forgotten says that an update of the path was removed with its contact and has no
// outcome: it may have been written, and nobody knows.
func (t *trial) forgotten(k key, path string) bool {
	return slices.ContainsFunc(t.of[k], func(u *update) bool {
		_, writes := u.Fields[path]
		return writes && u.removed && len(u.drives) == 0
	})
}
