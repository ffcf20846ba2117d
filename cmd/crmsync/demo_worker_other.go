//go:build !linux

package main

import "syscall"

// demoWorkerAttr has nothing to ask of this system: a worker whose demo was
// killed loses NATS with it and applies nothing more.
func demoWorkerAttr() *syscall.SysProcAttr { return nil }
