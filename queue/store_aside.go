package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// copyAside keeps a copy of a file of the store, and returns where.
func (s *store) copyAside(stream, file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("queue: store: %w", err)
	}
	to, err := s.aside(stream, file)
	if err == nil {
		err = writeFileSynced(to, b, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("queue: keep a copy of %s: %w", file, err)
	}
	return to, nil
}

// putAside moves files out of the way, those that are there, and returns where one
// of them is.
func (s *store) putAside(stream string, files ...string) (kept string, err error) {
	for _, file := range files {
		to, err := s.aside(stream, file)
		if err != nil {
			return "", fmt.Errorf("queue: keep %s: %w", file, err)
		}
		switch err := os.Rename(file, to); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", fmt.Errorf("queue: keep %s: %w", file, err)
		default:
			kept = to
		}
	}
	return kept, nil
}

func (s *store) aside(stream, file string) (string, error) {
	dir := filepath.Join(s.dir+damagedSuffix, time.Now().UTC().Format("20060102T150405.000000000"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return filepath.Join(dir, strings.TrimPrefix(stream+"-"+filepath.Base(file), "-")), nil
}

func folderSize(path string) (n int64) {
	dir, numbers, err := blockFiles(path)
	if err != nil {
		return 0
	}
	for _, b := range numbers {
		if i, err := os.Stat(filepath.Join(dir, strconv.Itoa(b)+blockSuffix)); err == nil {
			n += i.Size()
		}
	}
	return n
}
