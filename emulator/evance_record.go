package emulator

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const created = "2015-11-13T10:09:02+00:00"

// evanceTexts are the writable text fields under their v1 names, and whether
// they may be null (crm-apis B3).
var evanceTexts = map[string]bool{
	"firstname": false, "lastname": false, "email": false, "username": true, "company": true,
	"registeredNumber": true, "taxNumber": true, "position": true, "phone": true, "mobile": true, "website": true,
	"facebook": true, "flickr": true, "googlePlus": true, "linkedIn": true, "pinterest": true, "instagram": true,
	"twitter": true, "vimeo": true, "youTube": true, "thumbnail": true, "biography": true, "department": true,
	// Known of v2 only.
	"reference": true, "title": true, "division": true, "startDate": true, "leaveDate": true,
}

// v2Only are left out of v1's answers.
var v2Only = []string{
	"reference", "title", "division", "startDate", "leaveDate", "consentsToEmail", "consentsToSms", "consentsToPost",
	"consentsToPhone", "modifiedOn",
}

var evanceBools = []string{"consentsToEmail", "consentsToSms", "consentsToPost", "consentsToPhone"}

// v2Names are the fields that have another name in v2.
var v2Names = map[string]string{"firstname": "firstName", "lastname": "lastName", "created": "createdOn"}

var addressTexts = []string{
	"title", "firstname", "lastname", "company", "line1", "line2", "line3", "city", "region", "countryCode", "zip", "latitude", "longitude",
}

var countries = map[string]string{"GB": "United Kingdom", "DE": "Germany", "FR": "France", "IE": "Ireland", "US": "United States"}

type evanceSchema struct{}

func (evanceSchema) blank(id int) record {
	r := record{
		"id": strconv.Itoa(id), "type": "user", "created": created, "modifiedOn": created, "hasPassword": false,
		"address": nil, "accessRoles": map[string]any{}, "tags": map[string]any{"contact": []string{}},
	}
	for name := range evanceTexts {
		r[name] = ""
	}
	for _, name := range []string{
		"facebook", "flickr", "googlePlus", "linkedIn", "pinterest", "instagram", "twitter", "vimeo", "youTube", "thumbnail",
		"reference", "title", "division", "startDate", "leaveDate",
	} {
		r[name] = nil
	}
	for _, name := range evanceBools {
		r[name] = false
	}
	return r
}

func (s evanceSchema) seed(id int) record {
	r := s.blank(id)
	r["firstname"] = firstNames[id%len(firstNames)]
	r["lastname"] = lastNames[id%len(lastNames)]
	r["email"] = seedEmail(id)
	r["company"] = "Company " + strconv.Itoa(id)
	r["phone"] = fmt.Sprintf("01473 %06d", id)
	r["hasPassword"] = true
	r["accessRoles"] = map[string]any{"customer": map[string]any{"name": "Customer", "status": "active", "expires": nil}}
	if id%3 != 0 {
		r["address"] = map[string]any{
			"id": strconv.Itoa(500 + id), "title": "", "firstname": r["firstname"], "lastname": r["lastname"],
			"company": r["company"], "line1": strconv.Itoa(id) + " Sorrel Horse Mews", "line2": "Grimwade Street", "line3": "",
			"city": "Ipswich", "region": "Suffolk", "country": "United Kingdom", "countryCode": "GB", "zip": "IP4 1LN",
			"latitude": "52.05345000", "longitude": "1.16292100", "isPrimary": true,
		}
	}
	return r
}

func (evanceSchema) keys(r record) []string {
	keys := []string{"email:" + fold(r.text("email"))}
	if ref := r.text("reference"); ref != "" {
		keys = append(keys, "reference:"+ref)
	}
	return keys
}

func (evanceSchema) seeded(key string) []int {
	if email, ok := strings.CutPrefix(key, "email:"); ok {
		return []int{seedOf(email)}
	}
	return nil
}

func (evanceSchema) hidden(field string) bool { return field == "modifiedOn" }
func (evanceSchema) nested(field string) bool { return field == "address" }

// public adds what is derived from the type.
func (evanceSchema) public(_ int, r record) record {
	kind := r.text("type")
	r["isUser"], r["isGuest"], r["isBranch"] = kind == "user", kind == "guest", kind == "branch"
	r["isHQ"], r["isRecipient"], r["hasNoType"] = kind == "hq", kind == "recipient", kind == ""
	return r
}

// shown is a contact as a version's answer has it.
func shown(r record, v2 bool) map[string]any {
	r = evanceSchema{}.public(0, r.clone())
	delete(r, "password")
	if !v2 {
		for _, name := range v2Only {
			delete(r, name)
		}
		return r
	}
	rename(r, false)
	if a, ok := r["address"].(map[string]any); ok {
		a = record(a).clone()
		rename(a, false)
		r["address"] = a
	}
	return r
}

// rename turns v1 names into those of v2, or back. Names of the other
// generation are foreign and go (crm-apis B8).
func rename(r map[string]any, back bool) {
	for one, two := range v2Names {
		from, to := one, two
		if back {
			from, to = two, one
		}
		v, ok := r[from]
		delete(r, from)
		delete(r, to)
		if ok {
			r[to] = v
		}
	}
}

func atom(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05-07:00") }
