package console

import (
	"embed"
	"net/http"
)

//go:embed page
var pageFS embed.FS

// pageFile is a file of the page. The same bytes go to everybody, so they are
// served without the token that the page then asks for.
type pageFile struct {
	path        string
	contentType string
	body        []byte
}

const javascript = "text/javascript; charset=utf-8"

var pageFiles = []pageFile{
	{"/{$}", "text/html; charset=utf-8", embedded("index.html")},
	{"/console.css", "text/css; charset=utf-8", embedded("console.css")},
	{"/console.js", javascript, embedded("console.js")},
	{"/card.js", javascript, embedded("card.js")},
	{"/dom.js", javascript, embedded("dom.js")},
	{"/format.js", javascript, embedded("format.js")},
	{"/letters.js", javascript, embedded("letters.js")},
	{"/quota.js", javascript, embedded("quota.js")},
	{"/icon.svg", "image/svg+xml", embedded("icon.svg")},
}

func (f pageFile) serve(w http.ResponseWriter, _ *http.Request) {
	send(w, http.StatusOK, f.contentType, f.body)
}

// embedded panics where the build has left the file out.
func embedded(name string) []byte {
	body, err := pageFS.ReadFile("page/" + name)
	if err != nil {
		panic(err)
	}
	return body
}
