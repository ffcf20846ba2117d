package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// sealed is how a value is kept in a file: with its checksum. The file before is
// kept as well.
type sealed struct {
	Sum   string          `json:"sum"`
	Value json.RawMessage `json:"value"`
}

const olderSuffix = ".old"

// errUnsealed is wrapped where a file's content is not what was written.
var errUnsealed = errors.New("its content is damaged")

// readSealed reads a value, or the one before it where that file is damaged; newest
// says that it need not. The zero value is what was never written. The error wraps
// errUnsealed where there is a file, and none that holds what was written; any other
// is of a disk that cannot be read now.
func readSealed[T any](path string) (v T, newest bool, err error) {
	var errs []error
	for _, name := range []string{path, path + olderSuffix} {
		v, err := readSealedOnce[T](name)
		switch {
		case err == nil:
			return v, name == path && len(errs) == 0, nil
		case errors.Is(err, errUnsealed):
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		case !errors.Is(err, fs.ErrNotExist):
			return v, false, err
		}
	}
	return v, false, errors.Join(errs...)
}

func readSealedOnce[T any](name string) (v T, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return v, err
	}
	var s sealed
	if err := json.Unmarshal(b, &s); err != nil {
		return v, fmt.Errorf("%w: %w", errUnsealed, err)
	}
	if sum := sha256.Sum256(s.Value); s.Sum != hex.EncodeToString(sum[:]) {
		return v, fmt.Errorf("%w: its checksum is wrong", errUnsealed)
	}
	if err := json.Unmarshal(s.Value, &v); err != nil {
		return v, fmt.Errorf("%w: %w", errUnsealed, err)
	}
	return v, nil
}

// writeSealed stores a value durably.
func writeSealed(path string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	b, err := json.Marshal(sealed{Sum: hex.EncodeToString(sum[:]), Value: body})
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := writeFileSynced(tmp, b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path, path+olderSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeFileSynced(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
