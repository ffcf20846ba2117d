//go:build race

package ingest

// raced says that the race detector slows everything down.
const raced = true
