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

	"github.com/minio/highwayhash"
)

const (
	metaFile = "meta.inf"
	metaSum  = "meta.sum"
	metaKey  = "meta.key" // there where the store is encrypted
)

// repair mends what a kill can do to a store between two writes: the server
// writes a stream's configuration and then its checksum, and it passes over a
// stream whose checksum does not match, with all its messages. known has the
// configurations as they were when all was well, by stream. Where the checksum is
// of that one, the configuration in the store was changed and nobody was told that
// it was, or it is damaged: it is put back. Else, where the configuration is whole,
// its checksum is written anew. One that is not whole is put back from what is
// known. A stream whose creation was cut off before it could take a message is
// removed. Anything else is refused: no server is started over a stream that would
// be passed over. It returns the paths it mended.
func repair(dir string, known map[string][]byte) (mended []string, err error) {
	names, err := streamDirs(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		did, err := repairStream(path, name, known[name])
		mended = append(mended, did...)
		if err != nil {
			return mended, err
		}
		did, err = repairConsumers(path, name)
		mended = append(mended, did...)
		if err != nil {
			return mended, err
		}
	}
	return mended, nil
}

func repairStream(path, name string, known []byte) (mended []string, err error) {
	meta := filepath.Join(path, metaFile)
	sound, err := whole(path)
	if err != nil {
		return nil, err
	}
	switch {
	case known != nil && !sound, known != nil && changedAlone(path, name, known):
		if err := writeSynced(meta, known); err != nil {
			return nil, fmt.Errorf("queue: store: %w", err)
		}
		mended = append(mended, meta)
	case sound:
	case hasMessages(path):
		return nil, fmt.Errorf("queue: %s is damaged but the stream has messages; restore the file from a backup of the store", meta)
	default:
		if err := os.RemoveAll(path); err != nil {
			return nil, fmt.Errorf("queue: store: %w", err)
		}
		return []string{path}, nil
	}
	did, err := repairSum(path, name)
	return append(mended, did...), err
}

// changedAlone says that a configuration differs from the one that is known, and
// its checksum does not.
func changedAlone(path, name string, known []byte) bool {
	if encrypted(path) {
		return false
	}
	meta, err := os.ReadFile(filepath.Join(path, metaFile))
	if err != nil || string(meta) == string(known) {
		return false
	}
	sum, err := os.ReadFile(filepath.Join(path, metaSum))
	return err == nil && string(sum) == metaChecksum(known, name)
}

// repairConsumers does the same for the durable consumers of a stream, of which
// none is ours. One without a whole configuration holds nothing but a place in the
// stream, and is put aside.
func repairConsumers(path, stream string) (mended []string, err error) {
	dir := filepath.Join(path, "obs")
	all, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("queue: store: %w", err)
	}
	for _, c := range all {
		path := filepath.Join(dir, c.Name())
		if !c.IsDir() {
			continue
		}
		sound, err := whole(path)
		if err != nil {
			return mended, err
		}
		if !sound {
			aside := filepath.Join(filepath.Dir(dir), ".obs-"+c.Name())
			if err := errors.Join(os.RemoveAll(aside), os.Rename(path, aside)); err != nil {
				return mended, fmt.Errorf("queue: store: %w", err)
			}
			mended = append(mended, path)
			continue
		}
		did, err := repairSum(path, stream+"/"+c.Name())
		mended = append(mended, did...)
		if err != nil {
			return mended, err
		}
	}
	return mended, nil
}

func encrypted(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, metaKey))
	return err == nil
}

// whole says that the configuration was written to its end. An encrypted one
// cannot be judged and counts as whole. One that cannot be read now, from a disk that
// fails, is an error: nothing may be concluded from it.
func whole(dir string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, metaFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("queue: store: %w", err)
	}
	return len(b) > 0 && (encrypted(dir) || json.Valid(b)), nil
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
	want := metaChecksum(meta, name)
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

func metaChecksum(meta []byte, name string) string {
	key := sha256.Sum256([]byte(name))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	_, _ = h.Write(meta)
	return hex.EncodeToString(h.Sum(nil))
}

// writeSynced replaces a file of the store in one step.
func writeSynced(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := writeFileSynced(tmp, b, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Rename(tmp, path), syncDir(filepath.Dir(path)))
}
