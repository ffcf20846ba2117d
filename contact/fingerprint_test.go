package contact_test

import (
	"testing"

	"pgregory.net/rapid"

	"crmsync/contact"
)

func TestNormaliseTakesOutWhatDiffers(t *testing.T) {
	for _, same := range [][]string{
		{`The Email field must contain a unique value: bob@x.io`, `the email  field must contain a unique value: eve.long@y.example.com`},
		{`Contact 17 not found`, `contact 1234567 not found`},
		{`field "Bob" is too long`, `field "a much longer name, with 7 words" is too long`},
		{`request 6ba7b810-9dad-11d1-80b4-00c04fd430c8 failed`, `request 7ca7b810-9dad-11d1-80b4-00c04fd430c9 failed`},
		{`at 2026-11-21 19:05`, `at 2025-01-02 03:04`},
		{`see https://crm.example.com/contacts/7?x=1`, `see https://crm.example.com/contacts/8`},
		{`trace 0af7651916cd43dd8448eb211c80319c`, `trace 1bf7651916cd43dd8448eb211c80319d`},
	} {
		if a, b := contact.Normalise(same[0]), contact.Normalise(same[1]); a != b {
			t.Errorf("%q and %q differ: %q, %q", same[0], same[1], a, b)
		}
	}
	for _, other := range [][]string{
		{`email is taken`, `email is required`},
		{`field "a" is too long`, `field "a" is too short`},
		{`contact 7 not found`, `company 7 not found`},
	} {
		if a, b := contact.Normalise(other[0]), contact.Normalise(other[1]); a == b {
			t.Errorf("%q and %q are told as one: %q", other[0], other[1], a)
		}
	}
}

func TestNormaliseIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-f0-9@."' :/-]{0,40}`)).Draw(t, "message")
		once := contact.Normalise(s)
		if twice := contact.Normalise(once); twice != once {
			t.Fatalf("%q becomes %q, then %q", s, once, twice)
		}
	})
}

func TestFingerprint(t *testing.T) {
	base := contact.Ending{Reason: contact.Conflict, Status: 409, Field: "email", Detail: "taken by contact 88"}
	want := contact.CauseOf(base).Fingerprint()
	if got := contact.CauseOf(contact.Ending{Reason: contact.Conflict, Status: 409, Field: "email", Detail: "Taken by contact 7"}).Fingerprint(); got != want {
		t.Errorf("another contact's number makes another cause: %s, %s", got, want)
	}
	for name, e := range map[string]contact.Ending{
		"reason":  {Reason: contact.Invalid, Status: 409, Field: "email", Detail: "taken by contact 88"},
		"status":  {Reason: contact.Conflict, Status: 400, Field: "email", Detail: "taken by contact 88"},
		"field":   {Reason: contact.Conflict, Status: 409, Field: "phone", Detail: "taken by contact 88"},
		"message": {Reason: contact.Conflict, Status: 409, Field: "email", Detail: "refused"},
	} {
		if contact.CauseOf(e).Fingerprint() == want {
			t.Errorf("another %s makes no other cause", name)
		}
	}
	if len(want) != 12 {
		t.Errorf("fingerprint %q has %d digits, not 12", want, len(want))
	}
	// It stands in stored records: it must not change from version to version.
	known := contact.Ending{Reason: contact.Missing, Status: 404, Detail: "No data were found"}
	if got := contact.CauseOf(known).Fingerprint(); got != "80278b7f33ca" {
		t.Errorf("the fingerprint of a known cause has become %s", got)
	}
}
