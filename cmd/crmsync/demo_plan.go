package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// The two CRMs of the demo.
const (
	demoOffice = "office"
	demoShop   = "shop"
)

// demoKind says which CRM a target is.
func demoKind(target string) string {
	if target == demoOffice {
		return "perfex"
	}
	return "evance"
}

// demoField is one value that an update sets. Its path has a dot where the
// field is part of an address.
type demoField struct {
	path  string
	value string
	clear bool // null: value is not used
}

// demoUpdate is one update of the plan, made before anything is sent.
type demoUpdate struct {
	n       int64 // counts the plan from 1; its texts hold the mark #n#
	target  string
	contact string
	class   string
	seq     uint64 // its place in the stream of its target and class
	fields  []demoField
	body    []byte
	fate    string // reason it must die for; "" is to be applied
}

// demoPlan is everything that will be published, in order.
type demoPlan struct {
	seed     uint64
	targets  []string
	contacts int // that exist, in each CRM: 1 to n
	wave     int // so many are published at once; the others follow bit by bit
	updates  []demoUpdate
}

// Shares of the plan.
const (
	demoContactsPer = 5    // updates for each contact, on average
	demoWave        = 0.6  // published at once
	demoBad         = 0.01 // that break a rule
	demoMissing     = 0.01 // for contacts that do not exist
	demoBulk        = 0.2  // of what follows the wave
	demoClears      = 0.05 // clear a field as well
)

// newDemoPlan draws a plan. The same arguments draw the same one.
func newDemoPlan(seed uint64, updates int, targets ...string) *demoPlan {
	p := &demoPlan{
		seed: seed, targets: targets,
		contacts: max(20, updates/demoContactsPer), wave: int(float64(updates) * demoWave),
	}
	d := &demoDraw{
		plan: p, rng: rand.New(rand.NewPCG(seed, 0x64656d6f)),
		seqs: map[string]uint64{}, spoiled: map[string]bool{},
	}
	d.zipf = rand.NewZipf(d.rng, 1.1, 8, uint64(p.contacts-1))
	for n := range updates {
		p.updates = append(p.updates, d.update(int64(n+1), n < p.wave))
	}
	return p
}

type demoDraw struct {
	plan    *demoPlan
	rng     *rand.Rand
	zipf    *rand.Zipf
	seqs    map[string]uint64
	spoiled map[string]bool // contacts with an update that breaks a rule: one each
}

func (d *demoDraw) update(n int64, wave bool) demoUpdate {
	u := demoUpdate{n: n, class: "live", target: d.plan.targets[d.rng.IntN(len(d.plan.targets))]}
	if wave || d.rng.Float64() < demoBulk {
		u.class = "bulk"
	}
	d.seqs[u.target+u.class]++
	u.seq = d.seqs[u.target+u.class]
	id := 1 + int(d.zipf.Uint64())
	u.contact = strconv.Itoa(id)
	switch x := d.rng.Float64(); {
	case x < demoMissing:
		u.contact, u.fate = strconv.Itoa(d.plan.contacts+1+d.rng.IntN(1000)), "missing"
		u.fields = []demoField{{path: "firstname", value: demoText("Nobody", n)}}
	case x < demoMissing+demoBad && !d.spoiled[u.target+u.contact]:
		d.spoiled[u.target+u.contact] = true
		d.spoil(&u, id)
	default:
		u.fields = d.fields(u.target, n)
	}
	u.body = demoBody(u.fields)
	return u
}

// spoil makes an update that its CRM must refuse: the e-mail address of another
// contact, or a type that no contact has.
func (d *demoDraw) spoil(u *demoUpdate, id int) {
	other := id%d.plan.contacts + 1
	u.fate = "conflict"
	u.fields = []demoField{
		{path: "email", value: fmt.Sprintf("contact%d@example.com", other)},
		{path: "firstname", value: demoText("Spoiled", u.n)},
	}
	if demoKind(u.target) == "evance" && d.rng.IntN(2) == 0 {
		u.fate = "invalid"
		u.fields[0] = demoField{path: "type", value: "hologram"}
	}
}

var (
	demoNames = []string{"Ada", "Bjørn", "Chloë", "Dmitri", "Eun-ji", "Fatima", "Grete", "Håkon", "Ines", "Jürgen", "Łucja", "Óscar"}
	demoTexts = map[string][]string{
		"perfex": {"firstname", "lastname", "phonenumber", "title"},
		"evance": {"firstname", "lastname", "phone", "company", "address.city", "address.line1"},
	}
	demoClearable = map[string][]string{
		"perfex": {"title", "phonenumber"},
		"evance": {"position", "mobile"},
	}
)

// fields draws one to three marked texts, and sometimes a field to clear.
func (d *demoDraw) fields(target string, n int64) []demoField {
	texts := demoTexts[demoKind(target)]
	var out []demoField
	taken := map[string]bool{}
	for _, i := range d.rng.Perm(len(texts))[:1+d.rng.IntN(3)] {
		taken[texts[i]] = true
		out = append(out, demoField{path: texts[i], value: demoText(demoNames[d.rng.IntN(len(demoNames))], n)})
	}
	if c := demoClearable[demoKind(target)]; d.rng.Float64() < demoClears {
		if path := c[d.rng.IntN(len(c))]; !taken[path] {
			out = append(out, demoField{path: path, clear: true})
		}
	}
	return out
}

// demoText is a value that says which update it is of.
func demoText(s string, n int64) string { return fmt.Sprintf("%s #%d#", s, n) }

// demoBody is the update as it is published.
func demoBody(fields []demoField) []byte {
	patch := map[string]any{}
	for _, f := range fields {
		into, name := patch, f.path
		if outer, inner, nested := strings.Cut(f.path, "."); nested {
			m, _ := patch[outer].(map[string]any)
			if m == nil {
				m = map[string]any{}
				patch[outer] = m
			}
			into, name = m, inner
		}
		if into[name] = f.value; f.clear {
			into[name] = nil
		}
	}
	b, err := json.Marshal(map[string]any{"fields": patch})
	if err != nil {
		panic(err) // texts and nulls
	}
	return b
}

// total is how many of a target's updates the plan has.
func (p *demoPlan) total(target string) (n int) {
	for _, u := range p.updates {
		if u.target == target {
			n++
		}
	}
	return n
}
