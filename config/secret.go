package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// maxSecretSize bounds what is read as a secret, in bytes.
const maxSecretSize = 64 << 10

// Secret is where a secret can be read, never the secret itself: it can be
// copied, compared with the zero value and printed in every way without harm.
// The zero value is no secret at all. Copies share their memory of the last
// Read. All methods may be called concurrently.
type Secret struct{ ref *secretRef }

type secretRef struct {
	file  string // or
	env   string
	vars  environ
	lines bool // more than one line is fine

	mu   sync.Mutex
	seen fs.FileInfo // of the last Read of file; nil before it
}

func fileSecret(path string, lines bool) Secret {
	return Secret{&secretRef{file: path, lines: lines}}
}

func envSecret(name string, env environ, lines bool) Secret {
	return Secret{&secretRef{env: name, vars: env, lines: lines}}
}

// IsZero reports that no secret is configured.
func (s Secret) IsZero() bool { return s.ref == nil }

// Read gets the secret from its file or environment variable, now. One newline
// at the end is not part of it. An absent or empty secret is an error, and so is
// one that is not a single line of text where a token belongs; errors never
// quote what was read.
func (s Secret) Read() (string, error) {
	if s.ref == nil {
		return "", errors.New("no secret is configured")
	}
	text, err := s.ref.read()
	if err == nil {
		text, err = s.ref.check(text)
	}
	if err != nil {
		return "", fmt.Errorf("secret from %s: %w", s.where(), err)
	}
	return text, nil
}

func (r *secretRef) read() (string, error) {
	if r.file == "" {
		text, ok := r.vars.lookup(r.env)
		if !ok {
			return "", errors.New("the variable is not set")
		}
		return text, nil
	}
	// A pipe would block in open until somebody writes to it.
	info, err := os.Stat(r.file)
	if err != nil {
		return "", reason(err)
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("is not a regular file")
	}
	f, err := os.Open(r.file)
	if err != nil {
		return "", reason(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", reason(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecretSize+1))
	if err != nil {
		return "", reason(err)
	}
	if len(data) > maxSecretSize {
		return "", fmt.Errorf("is longer than %d KiB", maxSecretSize>>10)
	}
	// Remembered even if it turns out to be useless: what Changed is asked then
	// is whether it is worth another look.
	r.mu.Lock()
	r.seen = info
	r.mu.Unlock()
	return string(data), nil
}

func (r *secretRef) check(text string) (string, error) {
	if strings.HasPrefix(text, "\ufeff") || strings.ContainsRune(text, 0) {
		return "", errors.New("is not plain text: it has a byte order mark or NULs, as some editors leave; save it as UTF-8 without BOM")
	}
	text = strings.TrimSuffix(text, "\n")
	text = strings.TrimSuffix(text, "\r")
	if strings.TrimSpace(text) == "" {
		return "", errors.New("is empty")
	}
	if !r.lines && strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", errors.New("must be a single line without control characters")
	}
	return text, nil
}

// Changed reports whether the file is another one, or another state of it, than
// the last Read saw or Changed reported; true before the first of either. So it
// says of each change once. It costs one stat. A file that
// is absent has not changed: there is nothing new to read. Environment variables
// do not change while a process runs.
func (s Secret) Changed() bool {
	if s.ref == nil || s.ref.file == "" {
		return false
	}
	info, err := os.Stat(s.ref.file)
	if err != nil {
		return false
	}
	s.ref.mu.Lock()
	defer s.ref.mu.Unlock()
	seen := s.ref.seen
	s.ref.seen = info
	return seen == nil || !os.SameFile(seen, info) ||
		seen.Size() != info.Size() || !seen.ModTime().Equal(info.ModTime())
}

// Warning says what is unwise about the secret's file now, or is empty: that
// others than its owner can write it.
func (s Secret) Warning() string {
	if s.ref == nil || s.ref.file == "" {
		return ""
	}
	info, err := os.Stat(s.ref.file)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o022 == 0 {
		return ""
	}
	return s.where() + " can be written by others than its owner; run: chmod go-w " + s.ref.file
}

func (s Secret) where() string {
	switch {
	case s.ref == nil:
		return "none"
	case s.ref.file != "":
		return "file " + s.ref.file
	}
	return "env " + s.ref.env
}

// String says where the secret is: "file /run/secrets/perfex", "env TOKEN" or
// "none".
func (s Secret) String() string { return s.where() }

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.where() }

// Format is String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.where()) }

// MarshalText is String, for JSON, YAML and logs.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.where()), nil }
