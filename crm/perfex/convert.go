package perfex

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"crmsync/contact"
	"crmsync/crm"
)

// Labels are what people call the fields in spreadsheets, with the field each
// means. Letter case, spaces, dashes and underscores are the reader's to
// ignore; the field names themselves are labels too.
func (c *Client) Labels() map[string]string {
	m := map[string]string{
		"Customer ID": fieldCustomer, "Client ID": fieldCustomer,
		"First Name": "firstname", "Last Name": "lastname", "Surname": "lastname",
		"E-mail": fieldEmail, "Email Address": fieldEmail, "E-mail Address": fieldEmail,
		"Phone": "phonenumber", "Phone Number": "phonenumber", "Telephone": "phonenumber",
		"Position": "title", "Job Title": "title",
		"Text Direction": "direction",
		"Primary":        fieldPrimary, "Primary Contact": fieldPrimary,
		"Invoices": "invoice_emails", "Estimates": "estimate_emails", "Credit Notes": "credit_note_emails",
		"Contracts": "contract_emails", "Tasks": "task_emails", "Projects": "project_emails", "Tickets": "ticket_emails",
	}
	for _, name := range fieldNames() {
		m[name] = name
	}
	return m
}

// permissionNames are the words for the portal permissions (crm-apis A4).
var permissionNames = []string{"invoices", "estimates", "contracts", "proposals", "support", "projects"}

// Convert reads a spreadsheet's cell as a field's value: yes and no in their
// usual spellings for flags, ids or names separated by comma or semicolon for
// permissions, text as it stands for the rest; custom_fields.12 is the custom
// field of that id. An empty cell clears, where that means something. The
// error does not hold the text. What Convert lets pass, Check may refuse.
func (c *Client) Convert(field, cell string) (json.RawMessage, error) {
	if _, ok := columns[field]; ok || field == fieldPassword || strings.HasPrefix(field, fieldCustom+".") {
		if field == fieldEmail {
			cell = strings.TrimSpace(cell) // what somebody typed behind it is no part of it
		}
		return quote(cell), nil
	}
	word := strings.ToLower(strings.TrimSpace(cell))
	switch {
	case field == fieldMail || field == "active" || slices.Contains(flags, field):
		on, ok := crm.YesNo(word)
		if !ok && word != "" && word != field || word == "" && field == "active" {
			return nil, errors.New("not a yes or no; write yes, no, true, false, 1 or 0")
		}
		return json.RawMessage(strconv.FormatBool(on || word == field)), nil
	case field == fieldCustomer:
		return quote(word), nil
	case field == fieldPermissions:
		return permissionCell(word)
	case field == fieldCustom:
		return nil, errors.New("name the custom field by its id, as custom_fields.12")
	}
	return nil, fmt.Errorf("%s is not a field of a Perfex contact", field)
}

func quote(s string) json.RawMessage { return contact.JSONString(s) }

func permissionCell(word string) (json.RawMessage, error) {
	ids := []int{}
	for _, p := range strings.FieldsFunc(word, func(r rune) bool { return r == ',' || r == ';' }) {
		p = strings.TrimSpace(p)
		n, err := strconv.Atoi(p)
		if i := slices.Index(permissionNames, p); i >= 0 {
			n, err = i+1, nil
		}
		if err != nil || n < 1 || n > len(permissionNames) {
			return nil, fmt.Errorf("not a permission; write ids from 1 to 6 or %s", strings.Join(permissionNames, ", "))
		}
		ids = append(ids, n)
	}
	return json.Marshal(ids)
}
