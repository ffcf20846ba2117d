package ingest

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// numberFormat is what matters of how a cell shows a number.
type numberFormat struct {
	date    bool
	elapsed bool   // hours beyond a day, as 27:30:00
	pattern []rune // digits are 0, # and ?; anything else stands as it is. Nil: just the number
}

// readStyles reads how the styles of cells show numbers.
func (b *workbook) readStyles() error {
	related := b.related["styles"]
	if len(related) == 0 {
		return nil
	}
	p, err := b.part(related[0].target, maxPart)
	if err != nil {
		return err
	}
	defer p.close()
	codes, styles := map[int]string{}, false
	return p.each(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "numFmt":
			if id, err := strconv.Atoi(attribute(e, "numFmtId")); err == nil && len(codes) < maxStyles {
				codes[id] = attribute(e, "formatCode")
			}
		case "cellXfs":
			styles = true
		case "cellStyles", "dxfs":
			styles = false
		case "xf":
			if !styles {
				return nil
			}
			if len(b.formats) == maxStyles {
				return fmt.Errorf("the workbook has more than %d styles; save the sheet as CSV UTF-8", maxStyles)
			}
			id, _ := strconv.Atoi(attribute(e, "numFmtId"))
			b.formats = append(b.formats, formatOf(id, codes[id]))
		}
		return nil
	})
}

// formatOf reads a format: one of those that every spreadsheet knows by number,
// or one that is spelled out.
func formatOf(id int, code string) numberFormat {
	if code == "" {
		return numberFormat{
			date:    id >= 14 && id <= 22 || id >= 27 && id <= 36 || id >= 45 && id <= 47 || id >= 50 && id <= 58,
			elapsed: id == 46,
		}
	}
	var f numberFormat
	digits, plain, literal := 0, true, false
	runes := []rune(code)
	for i := 0; i < len(runes); i++ {
		c := runes[i]
		switch {
		case c == ';': // what follows is for negative numbers
			i = len(runes)
		case c == '"':
			for i++; i < len(runes) && runes[i] != '"'; i++ {
				f.pattern, literal = append(f.pattern, quoted(runes[i])), true
			}
		case c == '\\' && i+1 < len(runes):
			i++
			f.pattern, literal = append(f.pattern, quoted(runes[i])), true
		case (c == '_' || c == '*') && i+1 < len(runes): // a blank as wide as, or as many as fit
			i++
		case c == '[':
			end := i
			for end < len(runes) && runes[end] != ']' {
				end++
			}
			inner := strings.ToLower(string(runes[i+1 : min(end, len(runes))]))
			if inner != "" && strings.Trim(inner, "hms") == "" {
				f.date, f.elapsed = true, true
			}
			i, plain = end, false
		case strings.ContainsRune("yYmMdDhHsS", c):
			f.date = true
		case c == '0' || c == '#' || c == '?':
			digits++
			f.pattern = append(f.pattern, c)
		case strings.ContainsRune("+-() /:", c):
			f.pattern, literal = append(f.pattern, c), true
		default:
			plain = false
		}
	}
	if strings.EqualFold(code, "general") {
		f.date = false
	}
	if f.date || !plain || digits == 0 || digits == 1 && !literal {
		f.pattern = nil
	}
	return f
}

// quoted keeps a literal apart from what stands for a digit.
func quoted(c rune) rune {
	if c == '0' || c == '#' || c == '?' {
		return c + literalDigit
	}
	return c
}

const literalDigit = 0xe000 // into a range that has no characters

// number is the text of a number.
func (b *workbook) number(v string, style int) (text, doubt string, bad error) {
	var f numberFormat
	if style >= 0 && style < len(b.formats) {
		f = b.formats[style]
	}
	x, err := strconv.ParseFloat(v, 64)
	if err != nil || strings.Trim(v, "0123456789+-.eE") != "" {
		return "", "", errNoNumber
	}
	if f.date {
		if text := b.date(x, f.elapsed); text != "" {
			return text, "", nil
		}
	}
	whole := x == math.Trunc(x)
	switch {
	case whole && math.Abs(x) >= 1e15:
		if strings.Trim(v, "0123456789") != "" {
			v = shown(x)
		}
		return v, longNumber, nil
	case whole:
		digits := strconv.FormatInt(int64(x), 10)
		if f.pattern != nil && x >= 0 {
			digits = fill(f.pattern, digits)
		}
		return digits, "", nil
	}
	return shown(x), "", nil
}

// shown is a number without what binary fractions add behind the 15 digits that
// a spreadsheet keeps.
func shown(x float64) string {
	x, _ = strconv.ParseFloat(strconv.FormatFloat(x, 'g', 15, 64), 64) // it was one before
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// fill puts digits into a pattern, from its end.
func fill(pattern []rune, digits string) string {
	first := 0
	for !strings.ContainsRune("0#?", pattern[first]) {
		first++
	}
	out := make([]rune, 0, len(pattern)+len(digits))
	for i := len(pattern) - 1; i >= 0; i-- {
		switch c := pattern[i]; {
		case !strings.ContainsRune("0#?", c):
			if c >= literalDigit && c < literalDigit+utf8.RuneSelf {
				c -= literalDigit
			}
			out = append(out, c)
		case i == first && digits != "":
			for ; digits != ""; digits = digits[:len(digits)-1] {
				out = append(out, rune(digits[len(digits)-1]))
			}
		case digits != "":
			out = append(out, rune(digits[len(digits)-1]))
			digits = digits[:len(digits)-1]
		case c == '0':
			out = append(out, '0')
		}
	}
	slices.Reverse(out)
	return strings.TrimSpace(string(out))
}

// date is a day, a time, or both, as ISO 8601 writes them; "" for what is none.
func (b *workbook) date(x float64, elapsed bool) string {
	const day = 24 * 60 * 60
	if x < 0 || x >= 2_958_466 { // the year 10000
		return ""
	}
	seconds := int64(math.Round(x * day))
	if elapsed {
		return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
	}
	days := seconds / day
	epoch := time.Date(1899, 12, 30, 0, 0, 0, 0, time.UTC)
	switch {
	case b.from1904:
		epoch = time.Date(1904, 1, 1, 0, 0, 0, 0, time.UTC)
	case days < 61: // Excel knows a February 29th in 1900
		epoch = epoch.AddDate(0, 0, 1)
	}
	at := epoch.AddDate(0, 0, int(days)).Add(time.Duration(seconds%day) * time.Second)
	switch {
	case days == 0 && !b.from1904 && seconds > 0:
		return at.Format(time.TimeOnly)
	case seconds%day == 0:
		return at.Format(time.DateOnly)
	}
	return at.Format(time.DateTime)
}

// isoDate is a date that is stored as text, as the others are written.
func isoDate(v string) string {
	for _, layout := range []string{"2006-01-02T15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02T15:04"} {
		if at, err := time.Parse(layout, v); err == nil {
			if at.Hour() == 0 && at.Minute() == 0 && at.Second() == 0 {
				return at.Format(time.DateOnly)
			}
			return at.Format(time.DateTime)
		}
	}
	return v
}
