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
	"strings"

	"github.com/minio/highwayhash"
)

const (
	metaFile = "meta.inf"
	metaSum  = "meta.sum"
	metaKey  = "meta.key" // there where the store is encrypted
)

// repair mends what a kill can do to a store between two writes: the server
// writes a stream's configuration and then its checksum, and it passes over a
// stream whose checksum does not match, with all its messages. Where the
// configuration is whole, its checksum is written anew. A stream whose creation
// was cut off before it could take a message is removed. Anything else is
// refused: no server is started over a stream that would be passed over. It
// returns the paths it mended.
func repair(dir string) (mended []string, err error) {
	streams, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("queue: store: %w", err)
	}
	for _, s := range streams {
		if !s.IsDir() || strings.HasPrefix(s.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, s.Name())
		if !whole(path) {
			if hasMessages(path) {
				return mended, fmt.Errorf("queue: %s is damaged but the stream has messages; restore the file from a backup of the store", filepath.Join(path, metaFile))
			}
			if err := os.RemoveAll(path); err != nil {
				return mended, fmt.Errorf("queue: store: %w", err)
			}
			mended = append(mended, path)
			continue
		}
		did, err := repairSum(path, s.Name())
		if err != nil {
			return mended, err
		}
		mended = append(mended, did...)
		consumers, err := os.ReadDir(filepath.Join(path, "obs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return mended, fmt.Errorf("queue: store: %w", err)
		}
		for _, c := range consumers {
			path := filepath.Join(path, "obs", c.Name())
			if !c.IsDir() || !whole(path) {
				continue
			}
			did, err := repairSum(path, s.Name()+"/"+c.Name())
			if err != nil {
				return mended, err
			}
			mended = append(mended, did...)
		}
	}
	return mended, nil
}

// whole says that the configuration was written to its end. An encrypted one
// cannot be judged and counts as whole.
func whole(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil || len(b) == 0 {
		return false
	}
	if _, err := os.Stat(filepath.Join(dir, metaKey)); err == nil {
		return true
	}
	return json.Valid(b)
}

func hasMessages(dir string) bool {
	blocks, err := filepath.Glob(filepath.Join(dir, "msgs", "*.blk"))
	if err != nil {
		return true
	}
	for _, b := range blocks {
		if i, err := os.Stat(b); err != nil || i.Size() > 0 {
			return true
		}
	}
	return false
}

// repairSum writes the checksum of a directory's configuration where it is
// missing or wrong: HighwayHash-64 of the file, keyed by SHA-256 of the name.
func repairSum(dir, name string) ([]string, error) {
	meta, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return nil, fmt.Errorf("queue: store: %w", err)
	}
	key := sha256.Sum256([]byte(name))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		return nil, fmt.Errorf("queue: store: %w", err)
	}
	_, _ = h.Write(meta)
	want := hex.EncodeToString(h.Sum(nil))
	path := filepath.Join(dir, metaSum)
	have, err := os.ReadFile(path)
	if err == nil && string(have) == want {
		return nil, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("queue: store: %w", err)
	}
	if err := writeSynced(path, []byte(want)); err != nil {
		return nil, fmt.Errorf("queue: store: %w", err)
	}
	return []string{path}, nil
}

func writeSynced(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
