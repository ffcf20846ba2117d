package main

import "syscall"

// demoWorkerAttr lets a worker not outlive a demo that was killed, and keeps it
// from the terminal's Ctrl-C: the demo ends it.
func demoWorkerAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
