//go:build race

package app

// raced says that the race detector watches: everything is some ten times slower,
// and more than one thread has to run.
const raced = true
