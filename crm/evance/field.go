package evance

// kind is the shape of a field.
type kind uint8

const (
	kindText kind = iota
	kindNeeded
	kindType
	kindCompany
	kindProse
	kindBool
	kindAddress
	kindRoles
	kindTags
	kindPassword
)

const (
	fieldAddress  = "address"
	fieldRoles    = "accessRoles"
	fieldTags     = "tags"
	fieldPassword = "password"
	fieldType     = "type"
	fieldEmail    = "email"
)

// version is what differs between the two generations of the API (crm-apis B1).
type version struct {
	name    string
	path    string // of contacts
	wrapper string
	fields  map[string]kind
	// readOnly fields are refused, with the reason.
	readOnly map[string]string
	// other are the other version's names for fields of this one.
	other   map[string]string
	address map[string]bool // members of an address
}

var (
	v1 = version{
		name: "1", path: "/api/contacts/", wrapper: "contact",
		fields: table(map[string]kind{
			"firstname": kindText, "lastname": kindText, "googlePlus": kindText,
		}),
		readOnly: readOnly("created", fieldPassword),
		other:    map[string]string{"firstName": "firstname", "lastName": "lastname", "createdOn": "created"},
		address:  addressMembers("firstname", "lastname"),
	}
	v2 = version{
		name: "2", path: "/api/v2/contacts/", wrapper: "data",
		fields: table(map[string]kind{
			"firstName": kindNeeded, "lastName": kindNeeded, fieldEmail: kindNeeded,
			"reference": kindText, "title": kindText, "division": kindText, "startDate": kindText, "leaveDate": kindText,
			"consentsToEmail": kindBool, "consentsToSms": kindBool, "consentsToPost": kindBool, "consentsToPhone": kindBool,
			fieldPassword: kindPassword,
		}),
		readOnly: readOnly("createdOn", "modifiedOn"),
		other:    map[string]string{"firstname": "firstName", "lastname": "lastName", "created": "createdOn", "modified": "modifiedOn"},
		address:  addressMembers("firstName", "lastName"),
	}
)

// table is the fields that both versions have, and those of one (crm-apis B3).
func table(own map[string]kind) map[string]kind {
	t := map[string]kind{
		fieldType: kindType, fieldEmail: kindText, "company": kindCompany, "biography": kindProse,
		fieldAddress: kindAddress, fieldRoles: kindRoles, fieldTags: kindTags,
	}
	for _, name := range []string{
		"registeredNumber", "taxNumber", "position", "phone", "mobile", "username", "website", "facebook", "flickr",
		"linkedIn", "pinterest", "instagram", "twitter", "vimeo", "youTube", "thumbnail", "department",
	} {
		t[name] = kindText
	}
	for name, k := range own {
		t[name] = k
	}
	return t
}

const derived = "Evance derives it"

func readOnly(more ...string) map[string]string {
	t := map[string]string{"id": "the contact is named by the update's subject"}
	for _, name := range []string{"isUser", "isGuest", "isBranch", "isHQ", "isRecipient", "hasNoType"} {
		t[name] = derived + " from type"
	}
	t["hasPassword"] = derived
	for _, name := range more {
		t[name] = "Evance sets it"
	}
	if _, ok := t[fieldPassword]; ok {
		t[fieldPassword] = "version 1 sets it on new contacts only"
	}
	return t
}

func addressMembers(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, name := range append(names, "line1", "line2", "line3", "city", "region", "countryCode", "zip", "title", "company") {
		m[name] = true
	}
	return m
}

// addressReadOnly are members of an address that Evance shows and derives.
var addressReadOnly = map[string]string{
	"id": "an update goes to the primary address", "isPrimary": "an update goes to the primary address",
	"country": "write countryCode", "latitude": derived, "longitude": derived,
}
