package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/rs/zerolog"

	"crmsync/contact"
	"crmsync/emulator"
)

// BenchmarkImport queues the rows of a file, 20,000 or CRMSYNC_BENCH_ROWS, in an
// embedded server that syncs each batch. It is server and importer in one
// process; peak-MB is of what is live in both.
func BenchmarkImport(b *testing.B) {
	rows := 20_000
	if n, err := strconv.Atoi(os.Getenv("CRMSYNC_BENCH_ROWS")); err == nil {
		rows = n
	}
	dir := b.TempDir()
	path := filepath.Join(dir, "c.csv")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	fmt.Fprintln(f, "id;first name;last name;phone;position")
	for i := 1; i <= rows; i++ {
		fmt.Fprintf(f, "%d;Jörg;Müller %d;+49 30 %d;Head of sales\n", i, i, i)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	h := newHouse(b, emulator.Options{}, emulator.Options{})
	b.ReportAllocs()
	peak := uint64(0)
	for n := 0; b.Loop(); n++ {
		a, err := Open(context.Background(), h.cfg, Options{Host: true, Port: AnyPort, Log: zerolog.Nop()})
		if err != nil {
			b.Fatal(err)
		}
		rep, err := a.Import(context.Background(), Import{
			Target: "office", Path: path, Class: contact.Bulk, Job: fmt.Sprint("bench", n),
			Progress: func(ImportReport) {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			},
		})
		if err != nil || rep.Queued != int64(rows) {
			b.Fatalf("%+v, %v", rep, err)
		}
		if err := a.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MB")
}
