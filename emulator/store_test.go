package emulator

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestStoreAgainstModel: seeds that are computed, differences and deletions
// behave like a plain map, the index included.
func TestStoreAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 9).Draw(t, "seeds")
		s := newStore(perfexSchema{}, n)
		model := map[int]record{}
		for id := 1; id <= n; id++ {
			model[id] = s.schema.seed(id)
		}
		emails := []string{"contact1@example.com", "Contact2@example.com", "contact3@example.com ", "x@x.io", "contact01@example.com"}
		id := rapid.IntRange(-1, 12)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				id := max(id.Draw(t, "id"), 1)
				r, ok := s.get(id)
				if !ok {
					r = s.schema.blank(id)
				}
				r["email"] = rapid.SampledFrom(emails).Draw(t, "email")
				r["userid"] = strconv.Itoa(rapid.IntRange(0, 3).Draw(t, "customer"))
				s.put(id, r)
				model[id] = maps.Clone(r)
			},
			"back to the seed": func(t *rapid.T) {
				id := id.Draw(t, "id")
				if id >= 1 && id <= n {
					s.put(id, s.schema.seed(id))
					model[id] = s.schema.seed(id)
				}
			},
			"delete": func(t *rapid.T) {
				id := id.Draw(t, "id")
				_, had := model[id]
				if s.delete(id) != had {
					t.Fatalf("delete %d: want %v", id, had)
				}
				delete(model, id)
			},
			"": func(t *rapid.T) {
				if got, want := s.ids(), slices.Sorted(maps.Keys(model)); !slices.Equal(got, want) {
					t.Fatalf("ids %v, want %v", got, want)
				}
				keys := map[string][]int{}
				for _, id := range s.ids() {
					r, ok := s.get(id)
					if !ok || !reflect.DeepEqual(r, model[id]) {
						t.Fatalf("contact %d is %v, want %v", id, r, model[id])
					}
					for _, k := range s.schema.keys(r) {
						keys[k] = append(keys[k], id)
					}
				}
				for _, e := range emails {
					k := "email:" + fold(e)
					if got := s.lookup(k); !slices.Equal(got, keys[k]) {
						t.Fatalf("%s: %v, want %v", k, got, keys[k])
					}
				}
				for customer := range 5 {
					k := "customer:" + strconv.Itoa(customer)
					if got := s.lookup(k); !slices.Equal(got, keys[k]) {
						t.Fatalf("%s: %v, want %v", k, got, keys[k])
					}
				}
			},
		})
	})
}

func TestPutAndDelete(t *testing.T) {
	c := NewEvance(Options{Contacts: 2})
	c.Put("2", map[string]any{"firstname": "Put"})
	c.Put("9", map[string]any{"firstname": "New"})
	if contact(t, c, "2")["firstname"] != "Put" || contact(t, c, "2")["email"] != seedEmail(2) || contact(t, c, "9")["type"] != "user" {
		t.Error("Put did not store")
	}
	r := contact(t, c, "2")
	r["firstname"] = "outside"
	if contact(t, c, "2")["firstname"] != "Put" {
		t.Error("Contact handed out its own map")
	}
	if !c.Delete("1") || c.Delete("1") || c.Delete("x") {
		t.Error("Delete")
	}
	if got := c.Contacts(); !slices.Equal(got, []string{"2", "9"}) {
		t.Errorf("contacts %v", got)
	}
	if _, ok := c.Contact("02x"); ok {
		t.Error("an id that is none")
	}
	defer func() {
		if recover() == nil {
			t.Error("Put took an id that is none")
		}
	}()
	c.Put("zero", nil)
}

func TestOptionsAreChecked(t *testing.T) {
	for name, f := range map[string]func(){
		"perfex mode":  func() { NewPerfex(Options{Mode: "v1"}) },
		"evance mode":  func() { NewEvance(Options{Mode: "3.0.3"}) },
		"negative":     func() { NewPerfex(Options{Contacts: -1}) },
		"retry form":   func() { NewPerfex(Options{Limits: Limits{RetryAfter: "x"}}) },
		"rate":         func() { NewEvance(Options{Limits: Limits{Rate: -1}}) },
		"no complaint": nil,
	} {
		func() {
			defer func() {
				if (recover() != nil) != (f != nil) {
					t.Errorf("%s: wrongly taken or refused", name)
				}
			}()
			if f == nil {
				NewPerfex(Options{})
				NewEvance(Options{})
				return
			}
			f()
		}()
	}
	if o := NewEvance(Options{}).Options(); o.Account == "" || o.ClientID == "" || o.PrivateKey == "" || o.TokenLife == 0 {
		t.Errorf("options %+v", o)
	}
}

// TestParallel: 16 clients at once lose nothing and the ledger stays in step
// with the store.
func TestParallel(t *testing.T) {
	const clients, each = 16, 40
	for _, c := range []*CRM{NewPerfex(Options{Contacts: 40}), NewEvance(Options{Contacts: 40})} {
		c.SetFaults(Faults{{Kind: ServerError, Probability: 0.1}, {Kind: LostAnswer, Probability: 0.1}})
		perfex := c.store.schema == perfexSchema{}
		token := ""
		if !perfex {
			c.SetFaults(Faults{{Kind: LostAnswer, Probability: 0.1, Operation: OpUpdate}})
			token = evanceToken(t, c)
		}
		var wg sync.WaitGroup
		for w := range clients {
			wg.Go(func() {
				for i := range each {
					id := 1 + (w*each+i)%40
					mark := fmt.Sprintf("#%d#", w*each+i)
					if perfex {
						perfexCall(c, "PUT", fmt.Sprintf("/api/contacts/%d", id), putBody(id, `"title":"`+mark+`"`))
					} else {
						call1(c, "PUT", fmt.Sprintf("/api/contacts/%d.json", id), `{"contact":{"position":"`+mark+`"}}`, "Authorization", "Bearer "+token)
					}
					if i%20 == 0 {
						c.Stats()
						c.Contact("1")
						c.Contacts()
						c.Faults()
						c.Mails()
					}
				}
			})
		}
		wg.Wait()
		field := map[bool]string{true: "title", false: "position"}[perfex]
		last, seen := map[string]any{}, map[int]bool{}
		entries := c.Ledger()
		slices.SortFunc(entries, func(a, b Entry) int { return a.Seq - b.Seq })
		updates := 0
		for _, e := range entries {
			if seen[e.N] {
				t.Fatalf("entry %d twice", e.N)
			}
			seen[e.N] = true
			if e.Operation == OpUpdate {
				updates++
			}
			if e.Applied {
				last[e.Contact] = e.Values[field]
			}
		}
		if updates != clients*each {
			t.Fatalf("%d updates in the ledger, want %d", updates, clients*each)
		}
		for id, v := range last {
			if got := contact(t, c, id)[field]; got != v {
				t.Errorf("contact %s has %v, the ledger says %v", id, got, v)
			}
		}
	}
}

// TestManyEntries bounds what a long run costs: 2 KiB for an update of a
// contact that was not written before, of which the ledger has the half.
func TestManyEntries(t *testing.T) {
	const n = 5_000
	c := NewPerfex(Options{Contacts: n})
	h := http.Header{"Authtoken": {DefaultToken}}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := 1; i <= n; i++ {
		body := putBody(i, `"title":"#`+strconv.Itoa(i)+`#"`)
		r, err := http.NewRequest("PUT", "http://x/api/contacts/"+strconv.Itoa(i), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = h
		c.ServeHTTP(discard{http.Header{}}, r)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if s := c.Stats(); s.Applied != n {
		t.Errorf("stats %+v", s)
	}
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; each > 2048 {
		t.Errorf("%d bytes for each entry", each)
	}
	runtime.KeepAlive(c)
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func BenchmarkPut(b *testing.B) {
	c := NewPerfex(Options{Contacts: 1000})
	h := http.Header{"Authtoken": {DefaultToken}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		id := 1 + i%1000
		r, _ := http.NewRequest("PUT", "http://x/api/contacts/"+strconv.Itoa(id), strings.NewReader(putBody(id, `"title":"#`+strconv.Itoa(i)+`#"`)))
		r.Header = h
		c.ServeHTTP(discard{http.Header{}}, r)
	}
}
