package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"crmsync/app"
)

type schemaCmd struct{}

func (schemaCmd) Run(g *Globals) error {
	_, err := g.std.out.Write(app.Schema())
	return err
}

type versionCmd struct{}

func (versionCmd) Run(g *Globals) error {
	v := struct {
		Version  string `json:"version"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
		Revision string `json:"revision,omitempty"`
	}{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	if g.JSON {
		return g.printJSON(v)
	}
	fmt.Fprintf(g.std.out, "crmsync %s %s %s\n", v.Version, v.Go, v.Platform)
	return nil
}
