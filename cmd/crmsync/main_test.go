package main

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

var kills = flag.Int("kills", 12, "how many workers the kill tests kill")

// TestMain makes this binary the crmsync command as well, and a NATS server: under
// those names it runs them, as processes that are looked at from outside only.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"crmsync": main, "natsd": natsd})
}

type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	flag.Parse()
	// Most tests here wait for other processes and need no core of their own.
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := l.m.Run()
	faults.tell(os.Stdout)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
