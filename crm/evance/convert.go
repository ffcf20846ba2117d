package evance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"crmsync/contact"
	"crmsync/crm"
)

// Labels are what people call the fields in spreadsheets, with the field each
// means. Letter case, spaces, dashes and underscores are the reader's to
// ignore; the field names themselves are labels too.
func (c *Client) Labels() map[string]string {
	first, last := "firstname", "lastname"
	if c.v.name == API2 {
		first, last = "firstName", "lastName"
	}
	m := map[string]string{
		"First Name": first, "Last Name": last, "Surname": last,
		"E-mail": fieldEmail, "Email Address": fieldEmail, "E-mail Address": fieldEmail,
		"Phone Number": "phone", "Telephone": "phone", "Mobile Phone": "mobile", "Mobile Number": "mobile",
		"Company Name": "company", "Organisation": "company", "Organization": "company",
		"Job Title": "position", "VAT Number": "taxNumber", "Tax Number": "taxNumber",
		"Registered Number": "registeredNumber", "Company Number": "registeredNumber",
		"Contact Type": fieldType, "Tag": fieldTags, "Roles": fieldRoles, "Access Roles": fieldRoles,
		"Address Line 1": "address.line1", "Address Line 2": "address.line2", "Address Line 3": "address.line3",
		"Street": "address.line1", "City": "address.city", "Town": "address.city",
		"Region": "address.region", "County": "address.region", "State": "address.region",
		"Country Code": "address.countryCode", "Zip": "address.zip", "Zip Code": "address.zip",
		"Post Code": "address.zip", "Postal Code": "address.zip",
	}
	for name := range c.v.fields {
		if name != fieldAddress {
			m[name] = name
		}
	}
	for name := range c.v.address {
		m[fieldAddress+"."+name] = fieldAddress + "." + name
	}
	return m
}

// Convert reads a spreadsheet's cell as a field's value: yes and no in their
// usual spellings for flags, tags and references of roles separated by comma
// or semicolon, address parts and the rest as text. An empty cell is "". The
// error does not hold the text. What Convert lets pass, Check may refuse.
func (c *Client) Convert(field, cell string) (json.RawMessage, error) {
	if part, ok := strings.CutPrefix(field, fieldAddress+"."); ok {
		if !c.v.address[part] {
			return nil, fmt.Errorf("%s is not a part of an Evance address", field)
		}
		if part == "countryCode" {
			cell = strings.ToUpper(strings.TrimSpace(cell))
		}
		return quote(cell), nil
	}
	k, ok := c.v.fields[field]
	if !ok {
		return nil, fmt.Errorf("%s is not a field of an Evance contact", field)
	}
	switch k {
	case kindAddress:
		return nil, errors.New("write the address by its parts, as address.city")
	case kindBool:
		on, ok := crm.YesNo(cell)
		if !ok {
			return nil, errors.New("not a yes or no; write yes, no, true, false, 1 or 0")
		}
		return json.RawMessage(strconv.FormatBool(on)), nil
	case kindRoles:
		return json.Marshal(list(cell))
	case kindTags:
		return json.Marshal(map[string][]string{"contact": list(cell)})
	case kindType:
		return quote(strings.ToLower(strings.TrimSpace(cell))), nil
	}
	if field == "email" {
		cell = strings.TrimSpace(cell) // what somebody typed behind it is no part of it
	}
	return quote(cell), nil
}

func quote(s string) json.RawMessage { return contact.JSONString(s) }

// list splits a cell at commas and semicolons; never nil.
func list(cell string) []string {
	out := []string{}
	for _, s := range strings.FieldsFunc(cell, func(r rune) bool { return r == ',' || r == ';' }) {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
