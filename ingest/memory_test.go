package ingest

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// generated is a reader of a text over and over, up to a size.
type generated struct {
	head string
	line func(n int64) string
	left int64

	n   int64
	buf []byte
}

func (e *generated) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	for len(e.buf) < len(p) {
		if e.n == 0 {
			e.buf = append(e.buf, e.head...)
		}
		e.n++
		e.buf = append(e.buf, e.line(e.n)...)
	}
	n := copy(p, e.buf)
	e.buf = e.buf[:copy(e.buf, e.buf[n:])]
	e.left -= int64(n)
	return n, nil
}

func customers(size int64) *generated {
	return &generated{head: "id;first name;e-mail;phone\r\n", left: size, line: func(n int64) string {
		return strconv.FormatInt(n, 10) + ";\"Jörg \"\"J\"\"\";joerg" + strconv.FormatInt(n, 10) + "@example.com;+49 30 1234567\r\n"
	}}
}

// peak reads a file to its end and returns the largest heap met on the way.
func peak(t testing.TB, r io.Reader, o Options) (rows int64, heap uint64, err error) {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	f, err := Open(r, o)
	for err == nil {
		if _, err = f.Next(); err == nil {
			rows++
		}
		if rows%100_000 == 0 {
			runtime.GC() // what is live, not what is garbage
			runtime.ReadMemStats(&m)
			heap = max(heap, m.HeapAlloc)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return rows, heap, err
}

// BenchmarkRead reads a generated file; with CRMSYNC_BENCH_GB that many GB.
func BenchmarkRead(b *testing.B) {
	size := int64(8 << 20)
	if gb, err := strconv.ParseInt(os.Getenv("CRMSYNC_BENCH_GB"), 10, 64); err == nil {
		size = gb << 30
	}
	b.ReportAllocs()
	b.SetBytes(size)
	rows, heap := int64(0), uint64(0)
	for b.Loop() {
		n, h, err := peak(b, customers(size), Options{Labels: labels})
		if err != nil {
			b.Fatal(err)
		}
		rows, heap = rows+n, max(heap, h)
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(heap)/(1<<20), "peak-MB")
}

// What is no table, and what would be too much, ends with a reason that names
// the place, within little memory.
func TestMonsters(t *testing.T) {
	x := strings.Repeat("x", 1<<20)
	filled := func(head, fill, tail string, times int) io.Reader {
		readers := []io.Reader{strings.NewReader(head)}
		for range times {
			readers = append(readers, strings.NewReader(fill))
		}
		return io.MultiReader(append(readers, strings.NewReader(tail))...)
	}
	for _, tc := range []struct {
		name string
		r    io.Reader
		want string // of the error that ends the file, or of the first rejected row
		rows int64  // 0: not looked at
	}{
		{"10,000 columns", strings.NewReader("id" + strings.Repeat(",x", 10_000) + "\n7\n"), "line 1: the header has more than 1024 cells", 0},
		{"a cell of 12 MB", filled("id,a\n7,", x, "\n8,b\n", 12), "a cell of more than 64 KiB", 2},
		{"a quoted cell of 12 MB", filled("id,a\n7,b\n8,\"", x, "\"\n9,b\n", 12), "line 3: a quote is opened here that is not closed within 64 KiB", 1},
		{"a header of 12 MB", filled("id,", x, "\n7,b\n", 12), "line 1: the header has a cell of more than 64 KiB", 0},
		{"one line of JSON of 12 MB", filled(`{"id":7,"a":"`, x, "\"}\n{\"id\":8,\"a\":1}\n", 12), "the line has more than 256 KiB", 2},
		{"nothing but blanks", filled("", strings.Repeat(" ", 1<<20), "", 12), "nothing but blanks", 0},
		{"100,000 empty lines", strings.NewReader(strings.Repeat("\n", 100_000) + "id,a\n7,b\n"), "", 1},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		rows, why := int64(0), ""
		f, err := Open(tc.r, Options{})
		for err == nil {
			var row Row
			if row, err = f.Next(); err == nil {
				rows++
			}
			if row.Err != nil && why == "" {
				why = row.Err.Error()
			}
		}
		if !errors.Is(err, io.EOF) {
			why = err.Error()
		}
		runtime.ReadMemStats(&after)
		if !strings.Contains(why, tc.want) || tc.want == "" && why != "" || tc.rows > 0 && rows != tc.rows {
			t.Errorf("%s: %d rows, %s", tc.name, rows, why)
		}
		if grown := int64(after.Sys) - int64(before.Sys); grown > 8<<20 {
			t.Errorf("%s: the process grew by %d MB", tc.name, grown>>20)
		}
	}
}
