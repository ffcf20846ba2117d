package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

var rateUnits = map[string]string{
	"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d",
}

// ParseRate reads a rate as calls per second: a decimal number, a slash and s,
// m, h, d, one of their names or a duration, as in 4/s, 600/min, 1000/h or
// 100/10s. The result is finite and not negative.
func ParseRate(s string) (float64, error) {
	bad := errors.New(quote(s) + " is not a rate; write 4/s, 600/m or 1000/h")
	count, unit, ok := strings.Cut(s, "/")
	n, isNumber := decimal(strings.TrimSpace(count))
	if !ok || !isNumber {
		return 0, bad
	}
	unit = strings.TrimSpace(unit)
	if short, ok := rateUnits[unit]; ok {
		unit = short
	}
	if unit != "" && (unit[0] < '0' || unit[0] > '9') {
		unit = "1" + unit
	}
	per, err := ParseDuration(unit)
	if err != nil || per <= 0 {
		return 0, bad
	}
	rate := n / per.Seconds()
	if math.IsInf(rate, 0) {
		return 0, bad
	}
	return rate, nil
}

// FormatRate writes a rate as an operator would, in the shortest of the units in
// which it is a round number: 4/s, 2.5/s, 1000/h; [ParseRate] reads it.
func FormatRate(perSecond float64) string {
	if n := perSecond * 100; perSecond >= 1 && math.Abs(n-math.Round(n)) < 1e-6 {
		return strconv.FormatFloat(math.Round(n)/100, 'f', -1, 64) + "/s"
	}
	for _, u := range []struct {
		name string
		per  float64
	}{{"m", 60}, {"h", 3600}, {"d", 86400}} {
		if n := perSecond * u.per; n >= 1 && math.Abs(n-math.Round(n)) < 1e-6*n {
			return strconv.FormatFloat(math.Round(n), 'f', -1, 64) + "/" + u.name
		}
	}
	return strconv.FormatFloat(perSecond, 'f', 4, 64) + "/s"
}

// ParsePercent reads a share, written 20% or 0.2, as a number from 0 to 1.
func ParsePercent(s string) (float64, error) {
	text, percent := strings.CutSuffix(s, "%")
	n, ok := decimal(strings.TrimSpace(text))
	if percent {
		n /= 100
	}
	switch {
	case !ok:
		return 0, errors.New(quote(s) + " is not a share; write 20% or 0.2")
	case n > 1 && !percent:
		return 0, errors.New(quote(s) + " is more than everything; with a percent sign if percent is meant")
	case n > 1:
		return 0, errors.New(quote(s) + " is more than everything")
	}
	return n, nil
}

// ParseDuration reads a length of time as [time.ParseDuration] does, with d for
// 24 hours (90s, 1h30m, 7d), never negative and never without a unit.
func ParseDuration(s string) (time.Duration, error) {
	bad := errors.New(quote(s) + " is not a length of time; write 500ms, 15s, 5m, 2h or 7d")
	if s == "" || strings.ContainsAny(s, "+-") {
		return 0, bad
	}
	if _, isNumber := decimal(s); isNumber && strings.Trim(s, "0") != "" {
		return 0, errors.New(quote(s) + " has no unit; write " + s + "s for seconds")
	}
	var days time.Duration
	if text, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return 0, bad
		}
		days, s = time.Duration(n)*24*time.Hour, rest
		if s == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > math.MaxInt64-days {
		return 0, bad
	}
	return days + d, nil
}

var byteUnits = map[string]float64{
	"": 1, "b": 1,
	"k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12,
	"ki": 1 << 10, "kib": 1 << 10, "mi": 1 << 20, "mib": 1 << 20,
	"gi": 1 << 30, "gib": 1 << 30, "ti": 1 << 40, "tib": 1 << 40,
}

// ParseByteSize reads a number of bytes: 512, 64KiB, 10MB, 1.5GiB, 2Gi. Letter
// case does not matter; K, M, G and T are thousands, Ki, Mi, Gi and Ti are
// 1024s. A fraction of a byte is dropped.
func ParseByteSize(s string) (int64, error) {
	number := strings.TrimRight(s, "bBkKmMgGtTiI")
	n, ok := decimal(strings.TrimSpace(number))
	factor, known := byteUnits[strings.ToLower(s[len(number):])]
	if !ok || !known || n*factor >= math.MaxInt64 {
		return 0, errors.New(quote(s) + " is not a size; write 512, 64KiB, 10MB or 1GiB")
	}
	return int64(n * factor), nil
}

// decimal reads digits with at most one point in them. Narrower than
// [strconv.ParseFloat] on purpose: no sign, no exponent, no hexadecimal, no
// underscore, no infinity, no NaN.
func decimal(s string) (float64, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if len(s) > 32 || whole == "" || strings.HasSuffix(s, ".") || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil
}
