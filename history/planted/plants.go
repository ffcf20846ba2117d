package main

// plant is a mistake that somebody might make in the worker, the queue or a CRM's
// client: what the text of a source file is there, and what it is with the mistake.
type plant struct {
	name  string
	what  string // goes wrong
	edits []edit
}

// edit replaces the one place in a file that reads so.
type edit struct{ file, old, new string }

// plants are the mistakes that a simulation has to find, each by itself.
var plants = []plant{
	{"horizon-off", "an owner calls before it has loaded what the one before may have merged", []edit{{
		"worker/intake.go",
		"		if !l.caughtUp[c] && h.n < l.o.Window && h.bytes < l.o.WindowBytes {\n			return\n		}",
		"		_ = h",
	}}},
	{"purge-past-unfinished", "the stream forgets updates behind one that has not ended", []edit{{
		"queue/purge.go", "		to := r.floor.at\n", "		to := r.taken\n",
	}}},
	{"purge-before-outcome", "an update counts as ended once it is handed out", []edit{{
		"queue/source.go",
		"	r.outBytes += size\n	return contact.Delivery{Update: u}, true, nil",
		"	r.outBytes += size\n	s.finishLocked(r, u.Seq)\n	return contact.Delivery{Update: u}, true, nil",
	}}},
	{"no-compare-and-set", "an outcome is stored whoever has stored one since", []edit{{
		"queue/settle.go",
		"			return err\n		}\n		if i == 0 {",
		"			return err\n		}\n		if i < 0 {",
	}}},
	{"lease-ignored", "an owner goes on for as long as nobody tells it that it has lost the target", []edit{
		{"queue/source.go", "	return s.sess.until()\n}", "	return time.Now().Add(time.Hour)\n}"},
		{"queue/source.go", "	if !time.Now().Before(s.sess.until()) {", "	if s.sess == nil {"},
		{"queue/session.go", "		left := time.Until(s.until())\n", "		left := s.lease\n"},
		{"queue/session.go", "		t.Reset(min(wait, max(0, time.Until(s.until()))))", "		t.Reset(wait)"},
	}},
	{"claims-from-the-living", "a target is taken from an owner that lives", []edit{
		{"queue/claim.go", "		if err != nil || !e.gone {\n			return 0, err", "		if err != nil || e.gone && false {\n			return 0, err"},
		{"queue/own.go", "	return c.Session != \"\" && c.Session != sess.id && o.live[c.Session] != nil", "	return c.Session == \"?\""},
	}},
	{"slot-gate-off", "a contact is called again while a call for it is in flight", []edit{{
		"worker/intake.go", "	if s == nil {\n		s = &slot{", "	if s == nil || s.state == slotCalling {\n		s = &slot{",
	}}},
	{"retry-behind-newer", "what is tried again goes behind what has come since", []edit{{
		"worker/retry.go", "		s.pending = append(s.take.updates, s.pending...)", "		s.pending = append(s.pending, s.take.updates...)",
	}}},
	{"field-dropped", "a merge keeps no more than three fields", []edit{{
		"contact/change.go",
		"		f.fields[x.Name] = &folded{value: x.Value, by: []int{i}}",
		"		if len(f.fields) < 3 {\n			f.fields[x.Name] = &folded{value: x.Value, by: []int{i}}\n		}",
	}}},
	{"lists-merged", "a list is amended where it should be replaced", []edit{
		{
			"contact/change.go",
			"		f.fields[x.Name] = &folded{value: x.Value, by: []int{i}}",
			"		value := x.Value\n		if was := f.fields[x.Name]; was != nil && x.Name == \"tags\" && len(was.value) > 0 {\n			value = united(was.value, value)\n		}\n		f.fields[x.Name] = &folded{value: value, by: []int{i}}",
		},
		{
			"contact/change.go",
			"// object is the field as an object to add to;",
			"func united(a, b json.RawMessage) json.RawMessage {\n	var x, y map[string][]json.RawMessage\n	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {\n		return b\n	}\n	for k := range y {\n		y[k] = append(x[k], y[k]...)\n	}\n	out, err := json.Marshal(y)\n	if err != nil {\n		return b\n	}\n	return out\n}\n\n// object is the field as an object to add to;",
		},
	}},
	{"objects-replaced", "an object that the CRM amends counts as replaced", []edit{{
		"crm/evance/evance.go", "	r := contact.Rules{Deep: []string{fieldAddress}}", "	r := contact.Rules{}",
	}}},
	{"wait-ignored", "what a CRM says of how long to wait is not heard", []edit{{
		"crm/hints.go", "		out.RetryAfter = clamp(until(v, now))", "		out.RetryAfter = 0",
	}}},
	{"reads-not-counted", "only the first request of a call is paid for", []edit{{
		"worker/call.go", "		if err := l.pay(ctx, wait); err != nil {", "		if err := ctx.Err(); err != nil && wait > 0 {",
	}}},
	{"no-backoff", "what failed is tried again at once", []edit{{
		"worker/retry.go",
		"	wait := max(atLeast, l.jitter(stepped(l.o.Retry.Base, l.o.Retry.Max, step)))",
		"	wait := max(atLeast, time.Duration(step))",
	}}},
	{"redirects-followed", "a request goes where a redirect sends it", []edit{
		{"crm/client.go", "	resp, err := c.transport.RoundTrip(req)", "	resp, err := (&http.Client{Transport: c.transport}).Do(req)"},
		{
			"crm/client.go", "	}).WithContext(ctx)\n",
			"	}).WithContext(ctx)\n	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil }\n",
		},
	}},
	{"late-not-repaired", "an older value that came late stays on top", []edit{{
		"worker/repair.go", "	if d.due.IsZero() && len(d.wrote) > 0 {", "	if d.due.IsZero() && len(d.wrote) > 1_000 {",
	}}},
	{"unknown-is-failed", "a lost answer counts as a request that was not carried out", []edit{
		{"crm/fault.go", "		a.Verdict = contact.VerdictUnknown", "		a.Verdict = contact.VerdictTransient"},
		{"worker/decide.go", "	s.maybeSent = s.maybeSent || r.begun\n", "	s.maybeSent = false\n"},
		{"worker/effect.go", "	if l.o.Effects == nil ||", "	if l.o.Effects != nil ||"},
	}},
	{"refusals-retried", "what the CRM refuses for good is tried again", []edit{{
		"crm/perfex/verdict.go",
		"	a.Verdict, a.Reason, a.Incident = contact.VerdictInvalid, contact.Invalid, false\n	switch {\n	case s.field",
		"	a.Verdict, a.Reason, a.Incident = contact.VerdictTransient, contact.Invalid, false\n	switch {\n	case s.field",
	}}},
	{"watermark-ignored", "what has settled is handed out again after a takeover", []edit{{
		"queue/source.go", "	if u.Seq <= of.covers[r.class] || s.forgotten(u) {", "	if s.forgotten(u) {",
	}}},
	{"older-class-not-fenced", "bulk writes over what newer live updates wrote", []edit{{
		"contact/fence.go", "	return ok && !m.After(n)\n}\n\n// membersBlock", "	return ok && !m.After(n) && m.Class == n.Class\n}\n\n// membersBlock",
	}}},
	{"redrive-is-new", "a letter that is sent again counts as newer than all before it", []edit{{
		"contact/contact.go", "	at := u.Place()\n", "	at := Place{Class: u.Class, Seq: u.Seq, Stored: u.Stored}\n",
	}}},
	{"outage-kills", "attempts that an outage costs are not given back", []edit{
		{"worker/hold.go", "	if a.Incident {\n		l.incident++\n		l.excuse(s)\n	} else {", "	if a.Incident && s == nil {\n		l.excuse(s)\n	} else {"},
		{"worker/hold.go", "	if l.incident < l.o.OutageAfter && len(l.streak) < l.o.OutageAfter {", "	if now.IsZero() || s != nil {"},
		{"worker/decide.go", "	if !a.Alive && l.streak[s.key.ID] > l.o.Retry.Attempts/2 {", "	if now.IsZero() {"},
	}},
	{"storm-kills", "a CRM that refuses everybody fills the dead letters", []edit{{
		"worker/storm.go", "		if len(r.contacts) >= limit {", "		if len(r.contacts) >= 100*limit {",
	}}},
	{"letter-without-body", "a dead letter does not hold what was sent", []edit{{
		"queue/record.go", "			r.Original, r.OriginalHeader = u.Raw, u.Header", "			r.Original, r.OriginalHeader = []byte(\"{}\"), u.Header",
	}}},
	{"no-audit", "a job is cancelled and the audit trail does not say so", []edit{{
		"queue/job.go", "		if !audited {", "		if audited {",
	}}},
	{"stop-goes-on", "a worker that was asked to stop begins new calls", []edit{
		{"worker/call.go", "	case l.draining:\n", "	case l.draining && l.ready.len() == 0:\n"},
		{"worker/lane.go", "		if l.draining {\n			l.drains()", "		if l.draining && l.ready.len() == 0 {\n			l.drains()"},
	}},
	{"forget-undone", "a person who was to be forgotten is sent on", []edit{{
		"queue/forget.go", "	if !s.q.goneSome.Load() {", "	if u != nil {",
	}}},
	{"ids-not-kept", "publishing again stores again", []edit{{
		"queue/publish.go", "	set(contact.HeaderMsgID, u.MsgID)\n", "	set(\"X-\"+contact.HeaderMsgID, u.MsgID)\n",
	}}},
}
