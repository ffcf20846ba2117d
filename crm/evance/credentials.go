package evance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Credentials are what the credentials file of a private app holds (crm-apis
// B2). They print as their account only.
type Credentials struct {
	Account    string // {name}.evance.me
	ClientID   string
	PrivateKey string // hexadecimal; used as it stands, not decoded
}

// String names the account; the rest is secret.
func (c Credentials) String() string { return "credentials of " + c.Account }

// GoString is String: %#v shows no key.
func (c Credentials) GoString() string { return c.String() }

// MarshalJSON writes the account only.
func (c Credentials) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"account": c.Account})
}

// ParseCredentials reads the JSON file as Evance issues it: account, client_id,
// private_key and algorithm (HS256). Other members are passed over. An error
// names the key, never a value.
func ParseCredentials(b []byte) (Credentials, error) {
	var f map[string]json.RawMessage
	d := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(b, []byte("\xEF\xBB\xBF"))))
	if err := d.Decode(&f); err != nil || f == nil {
		return Credentials{}, errors.New("evance credentials: not a JSON object; use the file as Evance issues it")
	}
	if _, err := d.Token(); err != io.EOF {
		return Credentials{}, errors.New("evance credentials: there is more than one JSON object")
	}
	var c Credentials
	for _, m := range []struct {
		key string
		to  *string
	}{{"account", &c.Account}, {"client_id", &c.ClientID}, {"private_key", &c.PrivateKey}} {
		var s string
		if json.Unmarshal(f[m.key], &s) != nil || s == "" {
			return Credentials{}, fmt.Errorf("evance credentials: %s is missing or not a string", m.key)
		}
		*m.to = s
	}
	if alg, ok := f["algorithm"]; ok {
		var s string
		if json.Unmarshal(alg, &s) != nil || s != "HS256" {
			return Credentials{}, errors.New("evance credentials: algorithm is not HS256")
		}
	}
	return c, c.check()
}

func (c Credentials) check() error {
	for _, m := range []struct{ key, value string }{
		{"account", c.Account}, {"client_id", c.ClientID}, {"private_key", c.PrivateKey},
	} {
		if m.value == "" || strings.ContainsFunc(m.value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("evance credentials: %s is empty or holds white space or characters beyond ASCII", m.key)
		}
	}
	if strings.ContainsAny(c.Account, "/@?#:") {
		return errors.New("evance credentials: account is not a host name, as shop.evance.me")
	}
	return nil
}
