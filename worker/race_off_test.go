//go:build !race

package worker

const simDefault = 120
