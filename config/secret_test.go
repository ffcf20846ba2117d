package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSecretRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	for _, tc := range []struct {
		text  string
		lines bool
		want  string
	}{
		{"tok", false, "tok"},
		{"tok\n", false, "tok"},
		{"tok\r\n", false, "tok"},
		{" tok ", false, " tok "},
		{"pässwörd%$#\n", false, "pässwörd%$#"},
		{"{\n}\n", true, "{\n}"},
		{"tok\n\n", true, "tok\n"},
		{"", false, "!is empty"},
		{"\n", false, "!is empty"},
		{" \t\n", true, "!is empty"},
		{"tok\n\n", false, "!single line"},
		{"tok\nHeader: x", false, "!single line"},
		{"tok\x7f", false, "!single line"},
		{"\ufefftok", false, "!byte order mark"},
		{"t\x00o\x00k\x00", true, "!byte order mark"},
		{strings.Repeat("x", maxSecretSize+1), false, "!longer than 64 KiB"},
		{strings.Repeat("x", maxSecretSize), false, strings.Repeat("x", maxSecretSize)},
	} {
		write(t, file, tc.text)
		for _, s := range []Secret{fileSecret(file, tc.lines), envSecret("S", newEnviron([]string{"S=" + tc.text}), tc.lines)} {
			got, err := s.Read()
			want, bad := strings.CutPrefix(tc.want, "!")
			switch {
			case bad && s.ref.file == "" && strings.Contains(want, "longer"): // the kernel bounds these
			case bad && (err == nil || !strings.Contains(err.Error(), want) || got != "" || strings.Contains(err.Error(), "tok")):
				t.Errorf("%.20q: %q, %v", tc.text, got, err)
			case !bad && (err != nil || got != want):
				t.Errorf("%.20q: %.20q, %v", tc.text, got, err)
			}
		}
	}
}

func TestSecretAbsent(t *testing.T) {
	dir := t.TempDir()
	if _, err := (Secret{}).Read(); err == nil {
		t.Error("no secret can be read")
	}
	missing := fileSecret(filepath.Join(dir, "none"), false)
	if _, err := missing.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := fileSecret(dir, false).Read(); err == nil {
		t.Error("a folder can be read")
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fileSecret(pipe, false).Read(); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("pipe: %v", err)
	}
	if _, err := envSecret("NONE", newEnviron(nil), false).Read(); err == nil || !strings.Contains(err.Error(), "env NONE: the variable is not set") {
		t.Errorf("unset: %v", err)
	}
}

func TestSecretChanged(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "s")
	s := fileSecret(file, false)
	expect := func(what string, want bool) {
		t.Helper()
		if s.Changed() != want {
			t.Errorf("%s: changed is %v", what, !want)
		}
	}
	read := func() {
		t.Helper()
		if _, err := s.Read(); err != nil {
			t.Fatal(err)
		}
	}
	expect("absent", false)
	write(t, file, "one")
	expect("never read", true)
	read()
	expect("just read", false)
	copied := s
	if copied.Changed() {
		t.Error("a copy does not know of the reading")
	}
	write(t, file, "longer")
	expect("rewritten longer", true)
	read()
	info, _ := os.Stat(file)
	if err := os.Chtimes(file, time.Time{}, info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	expect("another time", true)
	read()
	// The same size and time, but renamed into place.
	info, _ = os.Stat(file)
	other := filepath.Join(dir, "other")
	write(t, other, "LONGER")
	if err := errors.Join(os.Chtimes(other, time.Time{}, info.ModTime()), os.Rename(other, file)); err != nil {
		t.Fatal(err)
	}
	expect("replaced", true)
	read()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	expect("removed", false)
	write(t, file, "\n")
	expect("back, but empty", true)
	if _, err := s.Read(); err == nil {
		t.Error("an empty secret can be read")
	}
	expect("read in vain", false)
	if envSecret("S", newEnviron([]string{"S=x"}), false).Changed() || (Secret{}).Changed() {
		t.Error("an environment does not change")
	}
}

func TestSecretWarning(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	write(t, file, "x")
	s := fileSecret(file, false)
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o644: false, 0o440: false, 0o660: true, 0o602: true} {
		chmod(t, file, mode)
		if got := s.Warning(); (got != "") != warned {
			t.Errorf("%o: %q", mode, got)
		}
	}
	if (Secret{}).Warning() != "" || envSecret("S", newEnviron(nil), false).Warning() != "" {
		t.Error("warned of nothing")
	}
}

func TestSecretConcurrently(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	write(t, file, "x")
	s := fileSecret(file, false)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				s.Changed()
				if v, err := s.Read(); v != "x" || err != nil {
					t.Errorf("%q, %v", v, err)
				}
			}
		})
	}
	wg.Wait()
}

// Whatever is done to a configuration to print it, no secret comes out.
func TestNothingPrintsSecrets(t *testing.T) {
	const canary = "canary-4711"
	file := filepath.Join(t.TempDir(), "s")
	write(t, file, canary)
	c := mustParse(t, office+"nats: {url: h, user: u}\n", []string{
		"CRMSYNC_TARGETS_OFFICE_TOKEN=" + canary, "NATS_PASSWORD=" + canary, "CRMSYNC_HTTP_TOKEN_FILE=" + file,
	})
	for _, s := range []Secret{c.Targets["office"].Token, c.NATS.Password, c.HTTP.Token} {
		if v, err := s.Read(); v != canary || err != nil {
			t.Fatalf("the secret is %q, %v", v, err)
		}
	}
	var things []any
	for _, s := range []any{c, *c, c.NATS, c.HTTP, c.Targets, c.Targets["office"], c.Targets["office"].Token, c.NATS.Password, c.HTTP.Token, c.Show(), c.Warnings()} {
		things = append(things, s)
		if v := reflect.ValueOf(s); v.Kind() != reflect.Pointer {
			p := reflect.New(v.Type())
			p.Elem().Set(v)
			things = append(things, p.Interface())
		}
	}
	for _, x := range things {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			s := fmt.Sprintf(verb, x)
			if strings.Contains(s, canary) || strings.Contains(s, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s of %T: %s", verb, x, s)
			}
		}
		if js, err := json.Marshal(x); err != nil || strings.Contains(string(js), canary) {
			t.Errorf("JSON of %T: %s %v", x, js, err)
		}
	}
	if got := fmt.Sprintf("%v %#v %d", c.NATS.Password, c.HTTP.Token, Secret{}); got != "env NATS_PASSWORD file "+file+" none" {
		t.Errorf("secrets print as %s", got)
	}
	if js, _ := json.Marshal(c.NATS.Password); string(js) != `"env NATS_PASSWORD"` {
		t.Errorf("JSON %s", js)
	}
	for _, want := range []Setting{
		{"targets.office.token", "(secret)", "env CRMSYNC_TARGETS_OFFICE_TOKEN"},
		{"nats.password", "(secret)", "env NATS_PASSWORD"},
		{"http.token_file", file, "env CRMSYNC_HTTP_TOKEN_FILE"},
	} {
		if !slices.Contains(c.Show(), want) {
			t.Errorf("Show lacks %+v: %+v", want, c.Show())
		}
	}
	if source(c, "targets.office.token_file") != "absent" {
		t.Error("Show has a token_file that is not in force")
	}
}

func TestCheckSecrets(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "office"), "tok\n")
	doc := strings.Replace(office, "    token_file: /run/secrets/perfex\n", "", 1) + strings.TrimPrefix(shop, "targets:\n") + "nats: {url: h, user: u, password_env: NOPE}\n"
	c, err := Parse("f", []byte(doc), append([]string{"CREDENTIALS_DIRECTORY=" + dir}, home...))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Targets["office"].Token.Read(); err != nil || got != "tok" {
		t.Errorf("systemd's credential: %q, %v", got, err)
	}
	if got := source(c, "targets.office.token_file"); got != "env CREDENTIALS_DIRECTORY" {
		t.Errorf("its source: %s", got)
	}
	want := "f:9: targets.shop.credentials: secret from file /run/secrets/evance.json: no such file or directory\n" +
		"f:10: nats.password: secret from env NOPE: the variable is not set"
	if err := c.CheckSecrets(); err == nil || err.Error() != want {
		t.Errorf("\n got %v\nwant %s", err, want)
	}
	c, err = Parse("f", []byte("http: {token_file: "+filepath.Join(dir, "office")+"}"), home)
	if err != nil || c.CheckSecrets() != nil {
		t.Errorf("readable: %v %v", err, c.CheckSecrets())
	}
	// For Evance it is the credentials file.
	c, err = Parse("f", []byte("targets: {shop: {kind: evance, url: \"https://x.evance.me\"}}"), append([]string{"CREDENTIALS_DIRECTORY=" + dir}, home...))
	if err != nil || c.Targets["shop"].Credentials.String() != "file "+filepath.Join(dir, "shop") {
		t.Errorf("evance: %v, %v", c, err)
	}
}
