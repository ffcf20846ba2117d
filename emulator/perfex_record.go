package emulator

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// perCustomer seeded contacts belong to each customer.
const perCustomer = 4

// sort of a column.
type columnType int

const (
	text columnType = iota
	tiny
	integer
	datetime
)

type column struct {
	typ  columnType
	size int // characters, text only
	null bool
}

// perfexColumns are the columns of tblcontacts (crm-apis A4). None of them is
// protected from writing.
var perfexColumns = map[string]column{
	"id":                         {typ: integer},
	"userid":                     {typ: integer},
	"is_primary":                 {typ: integer},
	"firstname":                  {size: 191},
	"lastname":                   {size: 191},
	"email":                      {size: 100},
	"phonenumber":                {size: 100},
	"title":                      {size: 100, null: true},
	"datecreated":                {typ: datetime},
	"password":                   {size: 255, null: true},
	"new_pass_key":               {size: 32, null: true},
	"new_pass_key_requested":     {typ: datetime, null: true},
	"email_verified_at":          {typ: datetime, null: true},
	"email_verification_key":     {size: 32, null: true},
	"email_verification_sent_at": {typ: datetime, null: true},
	"last_ip":                    {size: 40, null: true},
	"last_login":                 {typ: datetime, null: true},
	"last_password_change":       {typ: datetime, null: true},
	"active":                     {typ: tiny},
	"profile_image":              {size: 191, null: true},
	"direction":                  {size: 3, null: true},
	"invoice_emails":             {typ: tiny},
	"estimate_emails":            {typ: tiny},
	"credit_note_emails":         {typ: tiny},
	"contract_emails":            {typ: tiny},
	"task_emails":                {typ: tiny},
	"project_emails":             {typ: tiny},
	"ticket_emails":              {typ: tiny},
}

// perfexFlags are the seven columns that a PUT sets by presence.
var perfexFlags = []string{
	"invoice_emails", "estimate_emails", "credit_note_emails", "contract_emails",
	"task_emails", "project_emails", "ticket_emails",
}

// customFields are the contact custom fields that exist, by id.
var customFields = map[string]string{"1": "Region", "2": "Segment"}

// Names of what is stored of a contact beside its columns.
const (
	permissionsField = "permissions"
	customField      = "custom_fields"
)

type perfexSchema struct{}

var (
	firstNames = []string{"Ada", "Bob", "Chidi", "Dora", "Emre", "Fatima", "Goran", "Hana"}
	lastNames  = []string{"Byron", "Bobsworth", "Anagonye", "Marsh", "Yilmaz", "Haddad", "Petrov"}
)

func seedEmail(id int) string { return fmt.Sprintf("contact%d@example.com", id) }

// seedOf returns the id whose seeded address a folded e-mail is, or 0.
func seedOf(email string) int {
	digits, ok := strings.CutPrefix(email, "contact")
	if digits, ok2 := strings.CutSuffix(digits, "@example.com"); ok && ok2 && canonical(digits) == digits {
		return atoi(digits)
	}
	return 0
}

func (perfexSchema) blank(id int) record {
	r := record{
		"id": strconv.Itoa(id), "userid": "0", "is_primary": "0", "firstname": "", "lastname": "", "email": "",
		"phonenumber": "", "title": nil, "datecreated": "2020-05-19 20:07:49", "password": fakeHash("", id), "new_pass_key": nil,
		"new_pass_key_requested": nil, "email_verified_at": nil, "email_verification_key": nil,
		"email_verification_sent_at": nil, "last_ip": nil, "last_login": nil, "last_password_change": nil, "active": "1",
		"profile_image": nil, "direction": nil,
		permissionsField: []string{}, customField: map[string]string{},
	}
	for _, f := range perfexFlags {
		r[f] = "0"
	}
	return r
}

func (s perfexSchema) seed(id int) record {
	r := s.blank(id)
	r["userid"] = strconv.Itoa((id-1)/perCustomer + 1)
	r["firstname"] = firstNames[id%len(firstNames)]
	r["lastname"] = lastNames[id%len(lastNames)]
	r["email"] = seedEmail(id)
	r["email_verified_at"] = "2020-08-28 21:36:06"
	r["phonenumber"] = fmt.Sprintf("+44 1473 %06d", id)
	r[customField] = map[string]string{"1": "EU"}
	if id%perCustomer == 1 {
		r["is_primary"] = "1"
		r["title"] = "Manager"
		for _, f := range perfexFlags {
			r[f] = "1"
		}
		r[permissionsField] = []string{"1", "2", "3", "4", "5", "6"}
	} else {
		r["invoice_emails"] = "1"
		r[permissionsField] = []string{"1", "5"}
	}
	return r
}

// fold is how the database's collation compares an e-mail.
func fold(email string) string { return strings.TrimRight(strings.ToLower(email), " ") }

func (perfexSchema) keys(r record) []string {
	return []string{"email:" + fold(r.text("email")), "customer:" + r.text("userid")}
}

func (perfexSchema) seeded(key string) []int {
	if email, ok := strings.CutPrefix(key, "email:"); ok {
		return []int{seedOf(email)}
	}
	customer := atoi(strings.TrimPrefix(key, "customer:"))
	if customer < 1 {
		return nil
	}
	ids := make([]int, perCustomer)
	for i := range ids {
		ids[i] = (customer-1)*perCustomer + 1 + i
	}
	return ids
}

func (perfexSchema) hidden(string) bool { return false }
func (perfexSchema) nested(string) bool { return false }

func (perfexSchema) public(_ int, r record) record { return r }

// store converts a JSON value to what a column keeps; ok is false when the
// statement would fail. Strict mode is off: what does not fit is cut or
// becomes zero without a word (crm-apis A3).
func (c column) store(v any, threeByte bool) (kept any, ok bool) {
	if v == nil {
		if c.null {
			return nil, true
		}
		v = ""
	}
	s, ok := scalar(v)
	if !ok {
		return nil, false
	}
	switch c.typ {
	case tiny:
		return strconv.Itoa(leadingInt(s, -128, 127)), true
	case integer:
		return strconv.Itoa(leadingInt(s, -1<<31, 1<<31-1)), true
	case datetime:
		if t, err := time.Parse(time.DateTime, s); err == nil {
			return t.Format(time.DateTime), true
		}
		return "0000-00-00 00:00:00", true
	}
	return cut(s, c.size, threeByte), true
}

// cut shortens text to a column's size in characters.
func cut(s string, size int, threeByte bool) string {
	n := 0
	for i, r := range s {
		if n == size || threeByte && utf8.RuneLen(r) > 3 {
			return s[:i]
		}
		n++
	}
	return s
}

// leadingInt reads text as MySQL reads a number: its leading digits, zero if
// there are none, clamped.
func leadingInt(s string, lowest, highest int) int {
	s = strings.TrimLeft(s, " \t\n\r")
	i := 0
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	start := i
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		i++
	}
	if i == start {
		return 0
	}
	n, err := strconv.Atoi(s[:i])
	if err != nil { // more digits than any integer has
		if s[0] == '-' {
			return lowest
		}
		return highest
	}
	return min(max(n, lowest), highest)
}

// fakeHash looks like the bcrypt hash of a password, a different one for each
// salt.
func fakeHash(password string, salt int) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(salt) + ":" + password))
	s := base64.RawStdEncoding.EncodeToString(append(sum[:], sum[:8]...))
	return "$2a$08$" + strings.ReplaceAll(s, "+", ".")[:53]
}

func (r record) clone() record { return maps.Clone(r) }
