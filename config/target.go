package config

import (
	"fmt"
	"path/filepath"
	"slices"
)

// checkTarget checks and fills in what concerns several keys of a target.
func (b *builder) checkTarget(t *Target) {
	path := "targets." + t.Name + "."
	if t.Kind == "" {
		b.blame(path+"kind", "is missing; write kind: perfex or kind: evance")
	}
	if t.URL == nil {
		b.blame(path+"url", "is missing; write the CRM's address, such as https://crm.example.com")
	} else if err := reachable(t); err != nil {
		b.blame(path+"url", err.Error())
	}
	switch t.Kind {
	case KindPerfex:
		b.checkPerfex(t, path)
	case KindEvance:
		b.checkEvance(t, path)
	}
	b.checkTargetQuota(t, path)
	if t.Retry.Base > t.Retry.Max && t.Retry.Max > 0 {
		b.blame(path+"retry.base", fmt.Sprintf("must be at most retry.max, but %s > %s", short(t.Retry.Base), short(t.Retry.Max)))
	}
}

func (b *builder) checkPerfex(t *Target, path string) {
	b.checkAPI(t, path, "auto", "auto", "2", "3")
	if !b.has(path + "token") {
		if !b.fromCredentialsDirectory(t.Name, path+"token", false, &t.Token) {
			b.blame(path+"token_file", "is missing: a perfex target needs its API token; write token_file: /path or token_env: NAME, or give systemd's LoadCredential="+t.Name)
		}
	}
	if !t.Permissions.Clear && len(t.Permissions.IDs) == 0 {
		b.blame(path+"permissions", "is missing: Perfex removes a contact's portal permissions at every write that does not name them, and no answer of it says what they were; write those that contacts shall have, such as [1, 2, 3], or clear for none")
	}
}

func (b *builder) checkEvance(t *Target, path string) {
	b.checkAPI(t, path, "1", "1", "2")
	byKey := t.ClientID != "" || b.has(path+"private_key")
	switch {
	case b.has(path+"credentials") && byKey:
		b.blame(path+"client_id", "is a second way to log in beside credentials_file; remove one of them")
	case b.has(path + "credentials"):
	case byKey && t.ClientID == "":
		b.blame(path+"client_id", "is missing: it goes with private_key_file")
	case byKey && !b.has(path+"private_key"):
		b.blame(path+"private_key_file", "is missing: it goes with client_id")
	case byKey:
	case !b.fromCredentialsDirectory(t.Name, path+"credentials", true, &t.Credentials):
		b.blame(path+"credentials_file", "is missing: an evance target needs the credentials file of its private app; write credentials_file: /path, or client_id and private_key_file, or give systemd's LoadCredential="+t.Name)
	}
}

// fromCredentialsDirectory takes the secret that systemd provides under the
// target's name, if systemd provides any.
func (b *builder) fromCredentialsDirectory(name, stem string, lines bool, s *Secret) bool {
	dir, ok := b.layers.env.lookup("CREDENTIALS_DIRECTORY")
	if !ok || !filepath.IsAbs(dir) {
		return false
	}
	file := filepath.Join(dir, name)
	v := value{text: file, from: origin{layer: layerEnv, name: "CREDENTIALS_DIRECTORY"}}
	b.values[stem+"_file"], b.secrets[stem] = v, v
	*s = fileSecret(file, lines)
	return true
}

func (b *builder) checkAPI(t *Target, path, def string, choices ...string) {
	if t.API == "" {
		t.API = def
	}
	if !slices.Contains(choices, t.API) {
		b.blame(path+"api", fmt.Sprintf("%s is not known for %s; write %s", quote(t.API), t.Kind, orList(choices)))
	}
}
