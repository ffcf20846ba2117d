//go:build race

package worker

// The race detector makes everything some ten times slower.
const simDefault = 12
