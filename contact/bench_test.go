package contact

import (
	"encoding/json"
	"fmt"
	"testing"
)

const typicalUpdate = `{"fields":{"firstname":"Roberta","lastname":"Example","email":"roberta@example.com","phonenumber":"+44 20 7946 0000","title":"Head of Purchasing"},"version":17,"occurred_at":"2026-11-21T19:05:00Z"}`

func BenchmarkDecode(b *testing.B) {
	body := []byte(typicalUpdate)
	header := map[string][]string{HeaderMsgID: {"import-7-12"}, HeaderJob: {"import-7"}, HeaderRow: {"12"}}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if u := Decode(body, header); u.Bad != nil {
			b.Fatal(u.Bad)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	u := Decode([]byte(typicalUpdate), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(u); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFold(b *testing.B) {
	r := Rules{Deep: []string{"address"}}
	settled := Fence{}
	for i, name := range []string{"firstname", "lastname", "email", "title", "address.city", "address.postcode"} {
		settled[name] = Mark{Seq: uint64(i + 1), Stored: int64(i + 1)}
	}
	for _, n := range []int{1, 10, 1000, 10000} {
		updates := make([]*Update, n)
		for i := range updates {
			f := parsed(fmt.Sprintf(`{"firstname":"R%d","email":"r%d@example.com","phonenumber":null,"address":{"city":"C%d","line%d":"x"}}`, i, i, i, i%5))
			updates[i] = updateAt(Mark{Seq: uint64(i + 100), Stored: int64(i + 100)}, f)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if f := Fold(r, settled, updates); len(f.Fields) != 4 {
					b.Fatal(f.Fields)
				}
			}
		})
	}
}

func BenchmarkFenceJSON(b *testing.B) {
	f := Fence{}
	for i := range 12 {
		f[fmt.Sprintf("field%d", i)] = Mark{Seq: uint64(1e6 + i), Stored: 1763751900000000000}
	}
	text, err := json.Marshal(f)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var g Fence
		if err := json.Unmarshal(text, &g); err != nil {
			b.Fatal(err)
		}
	}
}
