package main

import "slices"

// askForMails has a part of Perfex's updates ask for a mail to set a password as
// well: live ones, since the mail of a bulk one is left out where a newer one has
// asked for it.
func (w *faultWorld) askForMails() {
	w.mail = map[int64]bool{}
	for i := range w.plan.updates {
		u := &w.plan.updates[i]
		if demoKind(u.target) == "perfex" && u.class == "live" && u.fate == "" && w.rng.Float64() < 0.2 {
			w.mail[u.n] = true
			u.body = demoBody(append(slices.Clone(u.fields), demoField{path: "send_set_password_email", value: "on"}))
		}
	}
}

// mails counts what the CRMs have sent: never twice for one update, and not at all
// only where a worker died with the call in its hands. A mail whose update's fields had
// all been overtaken by newer ones bears no number; then the contact has such an update
// of which no other mail was sent.
func (w *faultWorld) mails(killed int) {
	w.t.Helper()
	sent, unnamed := map[int64]int{}, map[string]int{}
	for target, crm := range w.crms {
		ledger := crm.Ledger()
		for _, m := range crm.Mails() {
			e := ledger[m.Entry-1]
			switch {
			case len(e.Updates) == 0:
				unnamed[target+"/"+e.Contact]++
			case len(e.Updates) > 1 || !w.mail[e.Updates[0]]:
				w.t.Errorf("%s: request %d sent a mail for updates %v", target, m.Entry, e.Updates)
			default:
				if sent[e.Updates[0]]++; sent[e.Updates[0]] == 2 {
					w.t.Errorf("%s: update #%d# sent a second mail with request %d", target, e.Updates[0], m.Entry)
				}
			}
		}
	}
	published := 0
	for _, u := range w.plan.updates {
		if !w.mail[u.n] {
			continue
		}
		published++
		if key := u.target + "/" + u.contact; sent[u.n] == 0 && unnamed[key] > 0 {
			unnamed[key]--
			sent[u.n]++
		}
	}
	for key, n := range unnamed {
		if n > 0 {
			w.t.Errorf("%s: %d mails more than updates asked for", key, n)
		}
	}
	left, twice := published-len(sent), 0
	for _, n := range sent {
		twice += n - 1
	}
	w.t.Logf("%d of %d mails were sent, %d once too often; %d were left out over %d kills", len(sent), published, twice, left, killed)
	if left > killed*demoCalls || len(sent) == 0 {
		w.t.Errorf("%d mails were sent and %d left out over %d kills", len(sent), left, killed)
	}
}
