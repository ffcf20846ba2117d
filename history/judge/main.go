// Command judge reads histories and says which promises they break: a page for
// each file, or JSON with -json. It ends with 1 where one is broken, with 2 where a
// file cannot be read.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"crmsync/history"
)

func main() {
	asJSON := flag.Bool("json", false, "print the reports as JSON, one on each line")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: judge [-json] HISTORY.jsonl ...   (- reads standard input)")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	code := 0
	for _, path := range flag.Args() {
		broken, err := judge(os.Stdout, path, *asJSON)
		switch {
		case err != nil:
			fmt.Fprintln(os.Stderr, "judge:", err)
			code = 2
		case broken:
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

func judge(w io.Writer, path string, asJSON bool) (broken bool, err error) {
	f := os.Stdin
	if path != "-" {
		if f, err = os.Open(path); err != nil {
			return false, err
		}
		defer f.Close()
	}
	events, err := history.Read(f)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	r := history.Check(events)
	if asJSON {
		err = json.NewEncoder(w).Encode(r)
	} else {
		_, err = fmt.Fprintf(w, "%s: %s\n", path, r)
	}
	return len(r.Broken()) > 0, err
}
