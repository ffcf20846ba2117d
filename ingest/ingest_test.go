package ingest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"crmsync/contact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// read is all of a file in a form to compare: a line for each row, then the
// error that ended it.
func read(text string, o Options) (string, Report) {
	var b strings.Builder
	r, err := Open(strings.NewReader(text), o)
	if err != nil {
		return "open: " + err.Error(), Report{}
	}
	for {
		row, err := r.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				fmt.Fprintf(&b, "end: %v\n", err)
			}
			if _, again := r.Next(); !errors.Is(again, err) {
				fmt.Fprintf(&b, "then: %v\n", again)
			}
			return b.String(), r.Report()
		}
		fmt.Fprintf(&b, "%d@%d ", row.N, row.Line)
		if row.Err != nil {
			fmt.Fprintf(&b, "! %v\n", row.Err)
			if row.Fields != nil {
				b.WriteString("a rejected row has fields\n")
			}
			continue
		}
		fields, _ := row.Fields.MarshalJSON()
		fmt.Fprintf(&b, "%s %s", row.ID, fields)
		if row.Versioned || !row.OccurredAt.IsZero() {
			fmt.Fprintf(&b, " v%d %s", row.Version, row.OccurredAt.Format("2006-01-02"))
		}
		for _, w := range row.Warnings {
			b.WriteString(" ~ " + w)
		}
		b.WriteByte('\n')
	}
}

var labels = map[string]string{"First Name": "firstname", "E-mail": "email", "phone": "phonenumber", "City": "address.city", "Street": "address.line1"}

func TestCSV(t *testing.T) {
	const two = "1@2 7 {\"email\":\"a@b\",\"name\":\"Bob\"}\n2@3 8 {\"email\":\"c@d\",\"name\":\"Ann\"}\n"
	for _, tc := range []struct {
		name, text string
		o          Options
		want       string
	}{
		{"plain", "id,name,email\n7,Bob,a@b\n8,Ann,c@d\n", Options{}, two},
		{"no last newline", "id,name,email\n7,Bob,a@b\n8,Ann,c@d", Options{}, two},
		{"CRLF", "id,name,email\r\n7,Bob,a@b\r\n8,Ann,c@d\r\n", Options{}, two},
		{"CR", "id,name,email\r7,Bob,a@b\r8,Ann,c@d\r", Options{}, two},
		{"BOM (C31)", "\ufeffid,name,email\n7,Bob,a@b\n8,Ann,c@d\n", Options{}, two},
		{"semicolon (C33)", "id;name;email\n7;Bob;a@b\n8;Ann;c@d\n", Options{}, two},
		{"tab", "id\tname\temail\n7\tBob\ta@b\n8\tAnn\tc@d\n", Options{}, two},
		{"pipe", "id|name|email\n7|Bob|a@b\n8|Ann|c@d\n", Options{}, two},
		{"delimiter by the id", "id;name, the first, the last\n7;Bob\n", Options{}, "1@2 7 {\"name, the first, the last\":\"Bob\"}\n"},
		{"delimiter inside quotes", "id;\"a,b,c,d\"\n7;x\n", Options{}, "1@2 7 {\"a,b,c,d\":\"x\"}\n"},
		{"delimiter named", "id;a,b\n7;x,y\n", Options{Delimiter: "comma", IDColumn: "id;a"}, "1@2 7;x {\"b\":\"y\"}\n"},
		{"delimiter unclear", "a,b;c\n7,1;2\n", Options{IDColumn: "x"}, "open: line 1: several delimiters would make the same number of columns; name the delimiter"},
		{"delimiter unknown", "id,a\n1,2\n", Options{Delimiter: "#"}, "open: delimiter \"#\" is not known; use auto, comma, semicolon, tab or pipe"},
		{"sep=", "sep=;\r\nid;a,b\r\n7;x\r\n", Options{}, "1@3 7 {\"a,b\":\"x\"}\n"},
		{"sep= and named", "sep=;\nid;a\n7;x\n", Options{Delimiter: ";"}, "1@3 7 {\"a\":\"x\"}\n"},
		{"empty (C35)", "", Options{}, "open: no rows: the file is empty"},
		{"blank lines only", "\n\r\n \n", Options{}, "open: no rows: the file is empty"},
		{"blank lines only, CSV", "\n\r\n \n", Options{Format: "csv"}, "open: no rows: the file is empty"},
		{"header only", "id,name\n", Options{}, "open: no rows: the file has a header, but nothing below it"},
		{"header and delimiters", "id,name\n,\n , \n", Options{}, "open: no rows: the file has a header, but nothing below it"},
		{"duplicate (C36)", "id,name,id\n1,2,3\n", Options{}, "open: line 1: columns 1 and 3 have the same name (\"id\"); rename or remove one"},
		{"duplicate but for case", "id,Name,na_me \n1,2,3\n", Options{}, "open: line 1: columns 2 and 3 have the same name (\"na_me\"); rename or remove one"},
		{"no id", "name,mail\nBob,x\n", Options{}, "open: line 1: no column is the contact's id (id or contact id); the columns are \"name\", \"mail\"; name the one it is, and check the delimiter"},
		{"no such id", "name,mail\nBob,x\n", Options{IDColumn: "key"}, "open: line 1: there is no column \"key\"; the columns are \"name\", \"mail\""},
		{"id named", "KEY,name\n7,Bob\n", Options{IDColumn: "k_e_y"}, "1@2 7 {\"name\":\"Bob\"}\n"},
		{"id variants", "name,Contact-ID\nBob,7\n", Options{}, "1@2 7 {\"name\":\"Bob\"}\n"},
		{"id before contact id", "contact_id,id\n1,7\n", Options{}, "1@2 7 {\"contact_id\":\"1\"}\n"},
		{"id only", "id\n7\n", Options{}, "open: line 1: no column is a field that can be imported; the columns are \"id\""},
		{"nothing mapped", "id,x\n7,1\n", Options{Labels: labels}, "open: line 1: no column is a field that can be imported; the columns are \"id\", \"x\""},
		{"labels", "ID;First_Name;e mail;Shoe size\n7;Bob;a@b;9\n", Options{Labels: labels}, "1@2 7 {\"email\":\"a@b\",\"firstname\":\"Bob\"}\n"},
		{"map", "id,a,b,email\n7,1,2,3\n", Options{Labels: labels, Map: map[string]string{"A": "title", "b": "", "email": "-"}}, "1@2 7 {\"title\":\"1\"}\n"},
		{"map of no column", "id,a\n7,1\n", Options{Map: map[string]string{"z": "x"}}, "open: line 1: the mapping names a column \"z\", but the columns are \"id\", \"a\""},
		{"two for one field", "id,a,email\n7,1,2\n", Options{Labels: labels, Map: map[string]string{"a": "email"}}, "open: line 1: columns \"a\" and \"email\" are both for the field \"email\"; ignore one"},
		{"field and member", "id,address,address.city\n7,1,2\n", Options{}, "open: line 1: columns \"address\" and \"address.city\" are both for the field \"address\"; ignore one"},
		{"field without a part", "id,a..b\n7,1\n", Options{}, "open: line 1: column \"a..b\" is for the field \"a..b\", which has a part without a name"},
		{"dots", "id,City,e-mail,street\n7,Ips,a@b,Mews\n8,Ips,,\n", Options{Labels: labels}, "1@2 7 {\"address\":{\"city\":\"Ips\",\"line1\":\"Mews\"},\"email\":\"a@b\"}\n2@3 8 {\"address\":{\"city\":\"Ips\"}}\n"},
		{"short and long (C37)", "id,name,email\n7,Bob\n8,Ann,c@d\n9,Al,e@f,x\n10,Cy,g@h,,\n", Options{}, "1@2 ! the row has 2 cells, but the header has 3 columns\n2@3 8 {\"email\":\"c@d\",\"name\":\"Ann\"}\n3@4 ! the row has 4 cells, but the header has 3 columns; a cell with the delimiter in it needs quotes\n4@5 10 {\"email\":\"g@h\",\"name\":\"Cy\"}\n"},
		{"header with a delimiter too many", "id,name,\n7,Bob,\n", Options{}, "1@2 7 {\"name\":\"Bob\"}\n"},
		{"quotes (C40)", "id,name\n7,\"Bob \"\"B\"\"\r\nJr, Sr\"\n8,Ann\n", Options{}, "1@2 7 {\"name\":\"Bob \\\"B\\\"\\nJr, Sr\"}\n2@4 8 {\"name\":\"Ann\"}\n"},
		{"blanks around quotes", "id, name , x\n7 , \"a,b\" ,y\n", Options{}, "1@2 7 {\"name\":\"a,b\",\"x\":\"y\"}\n"},
		{"quote inside", "id,name\n7,5\" pipe\n8,a\"b\"c\n", Options{}, "1@2 7 {\"name\":\"5\\\" pipe\"}\n2@3 8 {\"name\":\"a\\\"b\\\"c\"}\n"},
		{"text after a quote", "id,name\n7,\"Bob\" x,\"y\n8,Ann\n", Options{}, "1@2 ! text after the closing quote on line 2; double the quotes inside a cell\n2@3 8 {\"name\":\"Ann\"}\n"},
		{"quote after blank", "id,name\n7,\"Bob\" \"\n8,Ann\n", Options{}, "1@2 ! text after the closing quote on line 2; double the quotes inside a cell\n2@3 8 {\"name\":\"Ann\"}\n"},
		{"swallowed lines", "id,name\n7,\"Bob\n8,Ann\n9,\"Al\"\n10,Cy\n", Options{}, "1@2 ! lines 2 to 4: text after the closing quote on line 4; double the quotes inside a cell\n2@5 10 {\"name\":\"Cy\"}\n"},
		{"open quote (C38)", "id,name\n7,Bob\n\n8,\"Ann\n9,Al\n", Options{}, "1@2 7 {\"name\":\"Bob\"}\nend: line 4: a quote is opened here that is not closed to the end of the file; close or remove it\n"},
		{"open quote first", "id,name\n7,\"Bob\n", Options{}, "open: line 2: a quote is opened here that is not closed to the end of the file; close or remove it"},
		{"open quote in header", "id,\"name\n7,Bob\n", Options{}, "open: line 1: a quote is opened here that is not closed to the end of the file; close or remove it"},
		{"bad header", "id,\"name\" x\n7,Bob\n", Options{}, "open: line 1: the header has text after the closing quote on line 1; double the quotes inside a cell"},
		{"missing id", "id,name\n,Bob\n  ,Al\n 7 ,Ann\n", Options{}, "1@2 ! column \"id\": the contact's id is missing\n2@3 ! column \"id\": the contact's id is missing\n3@4 7 {\"name\":\"Ann\"}\n"},
		{"id cut short", "id,name\n4.47E+11,Bob\n8,Ann\n", Options{}, "1@2 ! column \"id\": the contact's id was cut short by a spreadsheet (4.47E+11); format the column as text\n2@3 8 {\"name\":\"Ann\"}\n"},
		{"id too long", "id,name\n" + strings.Repeat("9", 129) + ",Bob\n", Options{}, "1@2 ! column \"id\": contact id has 129 bytes, at most 128 are allowed\n"},
		{"cut short (C47)", "id,phone\n7,4.47E+11\n8,\"4,47E+11\"\n9,4E5\n", Options{}, "1@2 7 {\"phone\":\"4.47E+11\"} ~ column \"phone\" looks like a long number that a spreadsheet cut short (4.47E+11)\n2@3 8 {\"phone\":\"4,47E+11\"} ~ column \"phone\" looks like a long number that a spreadsheet cut short (4.47E+11)\n3@4 9 {\"phone\":\"4E5\"}\n"},
		{"empty ignored", "id,a,b\n7,,x\n8, ,\t\n", Options{}, "1@2 7 {\"b\":\"x\"}\n2@3 ! the row changes nothing: no mapped column has a value\n"},
		{"empty clears", "id,a,b\n7,,x\n8, ,\n", Options{Empty: EmptyClear}, "1@2 7 {\"a\":null,\"b\":\"x\"}\n2@3 8 {\"a\":null,\"b\":null}\n"},
		{"control characters", "id,a\n7,x\x01y\n8,x\x7fy\n9,x\u0085y\n10,a\tb\n", Options{}, "1@2 ! column \"a\": holds a control character (U+0001)\n2@3 ! column \"a\": holds a control character (U+007F)\n3@4 ! column \"a\": holds a control character (U+0085)\n4@5 10 {\"a\":\"a\\tb\"}\n"},
		{"lost characters", "id,a\n7,M\ufffdller\n", Options{}, "1@2 ! column \"a\": holds U+FFFD, which stands for a character lost in an earlier conversion\n"},
		{"zeros later", "id,a\n" + strings.Repeat("7,x\n", 200) + "8,\x00\n", Options{Map: map[string]string{}}, strings.Repeat("", 0)},
		{"formulas (C44)", "id,a\n7,\"=HYPERLINK(\"\"x\"\")\"\n8,@SUM\n9,+1+cmd|x\n10,-1<&>\n", Options{}, "1@2 7 {\"a\":\"=HYPERLINK(\\\"x\\\")\"}\n2@3 8 {\"a\":\"@SUM\"}\n3@4 9 {\"a\":\"+1+cmd|x\"}\n4@5 10 {\"a\":\"-1<&>\"}\n"},
		{"same contact (C43)", "id,a\n7,1\n7,2\n", Options{}, "1@2 7 {\"a\":\"1\"}\n2@3 7 {\"a\":\"2\"}\n"},
		{"blank rows", "\n\nid,a\n\n7,1\n,\n\n8,2\n\n", Options{}, "1@5 7 {\"a\":\"1\"}\n2@8 8 {\"a\":\"2\"}\n"},
		{"format", "id,a\n7,1\n", Options{Format: "xls"}, "open: format \"xls\" is not known; use auto, csv, ndjson or xlsx"},
		{"empty", "id,a\n7,1\n", Options{Empty: "null"}, "open: \"null\" is not a meaning of empty cells; use ignore or clear"},
	} {
		got, rep := read(tc.text, tc.o)
		if tc.name == "zeros later" {
			if rep.Rows != 201 || rep.Rejected != 1 || !strings.HasSuffix(got, "201@202 ! column \"a\": holds a control character (U+0000)\n") {
				t.Errorf("%s: %+v %s", tc.name, rep, got)
			}
			continue
		}
		if got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

func TestConvert(t *testing.T) {
	o := Options{Convert: func(field, text string) (json.RawMessage, error) {
		switch field {
		case "n":
			if text != "1" {
				return nil, errors.New("is not 1")
			}
			return json.RawMessage("1"), nil
		case "skip":
			return nil, nil
		case "broken":
			return json.RawMessage("{"), nil
		}
		return contact.JSONString(text), nil
	}}
	want := "1@2 7 {\"n\":1,\"s\":\"x\"}\n2@3 ! column \"n\": is not 1\n3@4 ! the row changes nothing: no mapped column has a value\n"
	if got, _ := read("id,n,skip,s\n7,1,y,x\n8,2,,\n9,,y,\n", o); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if got, _ := read("id,broken\n7,x\n8,\n", o); !strings.HasPrefix(got, "1@2 ! malformed: ") {
		t.Errorf("a converter's rubbish: %s", got)
	}
	want = "1@1 7 {\"n\":1,\"s\":true}\n2@2 ! member \"n\": is not 1\n3@3 9 {\"n\":\"\"}\n"
	if got, _ := read("{\"id\":7,\"n\":\"1\",\"s\":true}\n{\"id\":8,\"n\":\"2\"}\n{\"id\":9,\"n\":\"\"}\n", o); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestLimits(t *testing.T) {
	long := strings.Repeat("x", MaxCell)
	for name, tc := range map[string]struct{ text, want string }{
		"cell at the limit":        {"id,a\n7," + long + "\n8,b\n", ""},
		"quoted cell at the limit": {"id,a\n7,\"" + long + "\"\n8,b\n", ""},
		"cell":                     {"id,a\n7," + long + "x\n8,b\n", "! a cell of more than 64 KiB"},
		"quoted cell":              {"id,a\n7,b\n8,\"\n" + long + "\"\n8,b\n", "end: line 3: a quote is opened here that is not closed within 64 KiB"},
		"row":                      {"id,a\n7," + strings.Repeat(long[:1000]+",", 263) + "\n8,b\n", "! more than 256 KiB in a row"},
		"cells":                    {"id,a\n7," + strings.Repeat(",x", 1024) + "\n8,b\n", "! more than 1024 cells"},
		"long line":                {"{\"id\":1,\"a\":\"" + strings.Repeat(long, 4) + "\"}\n{\"id\":8,\"a\":\"b\"}\n", "1@1 ! the line has more than 256 KiB"},
		"very long line":           {"{\"id\":1,\"a\":\"" + strings.Repeat(long, 40) + "\"}\n{\"id\":8,\"a\":\"b\"}\n", "1@1 ! the line has more than 256 KiB"},
		"very long last line":      {"{\"id\":8,\"a\":\"b\"}\n{\"id\":1,\"a\":\"" + strings.Repeat(long, 40), "2@2 ! the line has more than 256 KiB"},
	} {
		got, _ := read(tc.text, Options{})
		if !strings.Contains(got, tc.want) || (tc.want == "") != !strings.Contains(got, "!") && !strings.HasPrefix(tc.want, "end") {
			t.Errorf("%s: %.300s", name, got)
		}
		if !strings.HasPrefix(tc.want, "end") && !strings.Contains(got, " 8 {\"a\":\"b\"}\n") {
			t.Errorf("%s: the rest does not go on: %.300s", name, got)
		}
	}
	if got, _ := read("id"+strings.Repeat(",x", 1025)+"\n", Options{}); !strings.Contains(got, "open: line 1: the header has more than 1024 cells") {
		t.Errorf("columns: %.300s", got)
	}
}

func TestNDJSON(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		o          Options
		want       string
	}{
		{"update", `{"id":"7","fields":{"First Name":"Bob","x":{"y":[1]}},"version":3,"occurred_at":"2026-01-02T03:04:05Z"}`, Options{Labels: labels}, "1@1 7 {\"First Name\":\"Bob\",\"x\":{\"y\":[1]}} v3 2026-01-02\n"},
		{"flat", `{"First Name":"Bob","contact_id":7,"e-mail":null,"phone":5,"shoe":1}`, Options{Labels: labels}, "1@1 7 {\"email\":null,\"firstname\":\"Bob\",\"phonenumber\":5}\n"},
		{"nested", `{"id":7,"city":"x","street":"y","email":"z"}`, Options{Labels: labels}, "1@1 7 {\"address\":{\"city\":\"x\",\"line1\":\"y\"},\"email\":\"z\"}\n"},
		{"blank lines", "\n{\"id\":1,\"a\":1}\r\n\n  \n{\"id\":2,\"a\":2}", Options{}, "1@2 1 {\"a\":1}\n2@5 2 {\"a\":2}\n"},
		{"bad line", "{\"id\":1,\"a\":1}\n{\"id\":2,\n{\"id\":3,\"a\":3}\n", Options{}, "1@1 1 {\"a\":1}\n2@2 ! malformed: not one JSON value: error near byte 8\n3@3 3 {\"a\":3}\n"},
		{"two on a line", `{"id":1,"a":1}{"id":2,"a":1}`, Options{}, "1@1 ! malformed: not one JSON value: error near byte 15\n"},
		{"duplicate", `{"id":1,"a":1,"a":2}`, Options{}, "1@1 ! malformed: a: the member stands there twice\n"},
		{"case", `{"id":1,"a":1,"A":2}`, Options{}, "1@1 ! malformed: a: two members differ only in upper and lower case\n"},
		{"unknown beside fields", `{"id":1,"fields":{"a":1},"versoin":2}`, Options{}, "1@1 ! malformed: versoin: unknown member; an update has fields, version and occurred_at\n"},
		{"fields null", `{"id":1,"fields":null}`, Options{}, "1@1 ! malformed: fields: not a JSON object\n"},
		{"no id", `{"a":1,"b":2}`, Options{}, "1@1 ! no member is the contact's id; the members are \"a\", \"b\"\n"},
		{"id forms", "{\"id\":1.5,\"a\":1}\n{\"id\":null,\"a\":1}\n{\"id\":\"\",\"a\":1}\n{\"id\":\" 1\",\"a\":1}\n{\"id\":-1,\"a\":1}\n{\"id\":1e3,\"a\":1}\n", Options{}, "1@1 ! member \"id\": the contact's id is neither a text nor a whole number\n2@2 ! member \"id\": the contact's id is neither a text nor a whole number\n3@3 ! member \"id\": the contact's id is missing\n4@4 ! member \"id\": contact id begins or ends with white space\n5@5 ! member \"id\": the contact's id is neither a text nor a whole number\n6@6 ! member \"id\": the contact's id is neither a text nor a whole number\n"},
		{"nothing", `{"id":1,"x":2}`, Options{Labels: labels}, "1@1 ! the row changes nothing: no mapped column has a value\n"},
		{"collision", `{"id":1,"e-mail":2,"email":3}`, Options{Labels: labels}, "1@1 ! the field \"email\" is there twice\n"},
		{"collision of depth", `{"id":1,"a":2,"a.b":3}`, Options{}, "1@1 ! the field \"a\" is there twice\n"},
		{"part without a name", `{"id":1,"a.":2}`, Options{}, "1@1 ! the field \"a.\" has a part without a name\n"},
		{"array", `[{"id":1}]`, Options{}, "open: the file is a JSON array; write one object a line, as jq -c '.[]' does"},
		{"not objects", "1\n", Options{Format: "ndjson"}, "1@1 ! malformed: not a JSON object\n"},
		{"invalid UTF-8", "{\"id\":1,\"a\":\"é\"}\n{\"id\":2,\"a\":\"\xe9\"}\n", Options{}, "1@1 1 {\"a\":\"é\"}\n2@2 ! malformed: the body is not valid UTF-8\n"},
	} {
		if got, _ := read(tc.text, tc.o); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

func TestReport(t *testing.T) {
	text := "ID;Shoe size;Phone;First name;;Notes\n7;9;1;Bob;;x\n\n8;9\n"
	_, got := read(text, Options{Labels: labels, Map: map[string]string{"notes": "-"}})
	sum := sha256.Sum256([]byte(text))
	want := Report{
		Format: "csv", Encoding: "utf-8", Delimiter: ";", IDColumn: "ID",
		Columns:  []string{"ID", "Shoe size", "Phone", "First name", "", "Notes"},
		Mapping:  []Column{{"Phone", "phonenumber"}, {"First name", "firstname"}},
		Unmapped: []string{"Shoe size"},
		Rows:     2, Rejected: 1, Blank: 1, Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:]),
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	_, got = read("_job,id,phone,_row\n j1 ,7,1,3\nj2,8,2,4\n", Options{Labels: labels})
	if fmt.Sprint(got.Remarks) != "map[_job:j1 _row:3]" || len(got.Unmapped) > 0 {
		t.Errorf("remarks %v, unmapped %q", got.Remarks, got.Unmapped)
	}
	_, got = read("{\"contact id\":1,\"b\":2,\"phone\":\"1\"}\n\n{\"id\":2,\"phone\":\"2\",\"c\":1}\n", Options{Labels: labels})
	if got.Format != "ndjson" || got.IDColumn != "contact id" || got.Blank != 1 || fmt.Sprint(got.Mapping, got.Unmapped) != "[{phone phonenumber}] [b c]" {
		t.Errorf("%+v", got)
	}
}

// A file that breaks off is an error and not a shorter file.
func TestReadErrors(t *testing.T) {
	for _, text := range []string{"id,a\n7,1\n8,2", "{\"id\":7,\"a\":1}\n{\"id\":8,\"a\":2}", "id,a\n7,\xe9\n8,2"} {
		r, err := Open(io.MultiReader(strings.NewReader(text), iotest.ErrReader(errors.New("the cable is out"))), Options{})
		for err == nil {
			_, err = r.Next()
		}
		if !strings.Contains(err.Error(), "the cable is out") {
			t.Errorf("%q: %v", text, err)
		}
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = io.WriteString(w, "id,a\n"+strings.Repeat("7,xyz\n", 20_000))
	_ = w.Close()
	got, rep := read(z.String(), Options{})
	if !rep.Compressed || rep.Rows != 20_000 || rep.Rejected != 0 || rep.Size != int64(z.Len()) {
		t.Errorf("gzip: %+v %.200s", rep, got)
	}
	got, _ = read(z.String()[:z.Len()-20], Options{})
	if !strings.Contains(got, "the compressed file is damaged") {
		t.Errorf("gzip cut off: %s", got[len(got)-200:])
	}
}

// One byte at a time comes to the same.
func TestSlowReader(t *testing.T) {
	text := "sep=;\r\nid;name\r\n7;\"a\r\nb\"\r\n8;\xe9\r\n"
	want, _ := read(text, Options{})
	r, err := Open(iotest.OneByteReader(strings.NewReader(text)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Next()
	b, err2 := r.Next()
	if err != nil || err2 != nil || a.Line != 3 || b.Line != 5 || want != "1@3 7 {\"name\":\"a\\nb\"}\n2@5 8 {\"name\":\"é\"}\n" {
		t.Errorf("%+v %v, %+v %v, %s", a, err, b, err2, want)
	}
}
