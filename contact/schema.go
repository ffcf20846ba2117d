package contact

import (
	"bytes"
	_ "embed" // for the schema
)

//go:embed update.schema.json
var updateSchema []byte

// Schema is the JSON Schema (2020-12) of an update's body, for producers. What
// it refuses, [Decode] refuses; Decode also refuses what a schema cannot say,
// which its description lists. Each call returns a copy.
func Schema() []byte { return bytes.Clone(updateSchema) }
