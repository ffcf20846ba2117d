//go:build linux || darwin || freebsd

package queue

import "syscall"

// diskSpace is what a process without privileges may still write to the disk of a
// folder, and the disk's size, in bytes.
func diskSpace(dir string) (free, size int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	unit := int64(st.Bsize)
	return int64(st.Bavail) * unit, int64(st.Blocks) * unit, nil
}
