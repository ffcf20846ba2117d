package config

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseRate(t *testing.T) {
	for s, want := range map[string]float64{
		"4/s": 4, "0/s": 0, "0.5/s": 0.5, "600/m": 10, "3600/h": 1, "86400/d": 1, "100/10s": 10, " 4 / s ": 4,
		"60/min": 1, "4/sec": 4, "4/second": 4, "60/minute": 1, "3600/hour": 1, "86400/day": 1, "1/100ms": 10, "007/s": 7,
	} {
		if got, err := ParseRate(s); err != nil || math.Abs(got-want) > 1e-9 {
			t.Errorf("%q: %v, %v, not %v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "4", "/", "/s", "4/", "4/x", "-4/s", "+4/s", "4/-1s", "1e3/s", "0x4/s", "1_000/s", "NaN/s", "Inf/s", "4s", "4/0s", "4/s/s",
		"4./s", ".5/s", "1.2.3/s", "4/10", "٤/s", "99999999999999999999999999999999999999/s", "4/fortnight", "4\x00/s",
	} {
		if got, err := ParseRate(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestFormatRate(t *testing.T) {
	for rate, want := range map[float64]string{
		4: "4/s", 2.5: "2.5/s", 10000: "10000/s", 0.5: "30/m", 1000. / 3600: "1000/h", 7. / 86400: "7/d", 0.0000001: "0.0000/s", 100. / 3: "2000/m",
	} {
		if got := FormatRate(rate); got != want {
			t.Errorf("%v is written %s, not %s", rate, got, want)
		}
		if got, err := ParseRate(FormatRate(rate)); err != nil || math.Abs(got-rate) > 1e-4 {
			t.Errorf("%v comes back as %v, %v", rate, got, err)
		}
	}
}

func TestParsePercent(t *testing.T) {
	for s, want := range map[string]float64{"20%": .2, "0.2": .2, "0": 0, "0%": 0, "100%": 1, "1": 1, "12.5%": .125, "20 %": .2} {
		if got, err := ParsePercent(s); err != nil || math.Abs(got-want) > 1e-12 {
			t.Errorf("%q: %v, %v, not %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "%", "-1%", "101%", "20", "1.01", "a%", "20%%", "%20", "1e-1", "NaN", "NaN%"} {
		if got, err := ParsePercent(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "15s": 15 * time.Second, "1h30m": 90 * time.Minute, "500ms": 500 * time.Millisecond, "1.5s": 1500 * time.Millisecond,
		"7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "0d1s": time.Second,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%q: %v, %v, not %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "15", "1.5", "-1s", "+1s", "s", "d", "1.5d", "1d2d", "1h1d", "-1d", "1w", "1 s", "99999d", "9999999h", "65535d9999999h", "2562047h48m", "1d2562047h40m", "inf", "NaN"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestParseByteSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "512": 512, "512B": 512, "64KiB": 65536, "64Ki": 65536, "64kib": 65536, "10MB": 1e7, "10M": 1e7, "1.5GiB": 3 << 29, "2 GiB": 2 << 30, "1k": 1000, "1TB": 1e12, "1.7": 1, "8388607TiB": 8388607 << 40,
	} {
		if got, err := ParseByteSize(s); err != nil || got != want {
			t.Errorf("%q: %v, %v, not %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "B", "KiB", "-1", "1e3", "1KK", "1iB", "1PB", "8388608TiB", "1 K B", "NaN", "0x10"} {
		if got, err := ParseByteSize(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

// What is written by the rules is read as it is meant.
func TestUnitsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 1_000_000).Draw(t, "n")
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "d"))
		if got, err := ParseDuration(d.String()); err != nil || got != d {
			t.Fatalf("%v: %v, %v", d, got, err)
		}
		if got, err := ParseDuration(short(d)); err != nil || got != d {
			t.Fatalf("%v written %s: %v, %v", d, short(d), got, err)
		}
		per := time.Duration(rapid.Int64Range(1, int64(48*time.Hour)).Draw(t, "per"))
		if got, err := ParseRate(fmt.Sprintf("%d/%s", n, per)); err != nil || math.Abs(got-float64(n)/per.Seconds()) > 1e-6*got {
			t.Fatalf("%d/%s: %v, %v", n, per, got, err)
		}
		if got, err := ParseByteSize(fmt.Sprintf("%dMiB", n)); err != nil || got != int64(n)<<20 {
			t.Fatalf("%d MiB: %v, %v", n, got, err)
		}
	})
}

func FuzzUnits(f *testing.F) {
	for _, s := range []string{"4/s", "600/min", "20%", "0.2", "1h30m", "7d", "64KiB", "1.5G", "-0", "1e9/s", "∞/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := ParseRate(s); err == nil && (r < 0 || math.IsNaN(r) || math.IsInf(r, 0)) {
			t.Fatalf("rate %q: %v", s, r)
		}
		if p, err := ParsePercent(s); err == nil && (p < 0 || p > 1 || math.IsNaN(p)) {
			t.Fatalf("share %q: %v", s, p)
		}
		if d, err := ParseDuration(s); err == nil && d < 0 {
			t.Fatalf("duration %q: %v", s, d)
		}
		if n, err := ParseByteSize(s); err == nil && n < 0 {
			t.Fatalf("size %q: %v", s, n)
		}
	})
}
