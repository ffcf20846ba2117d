package app

import "crmsync/ingest"

// again is how an import is told to read columns as a job's import did: the flags
// of its command, none where they would be found anyway. What constants are is
// stored nowhere: they stand there as TEXT.
func (a *App) again(j Job) []string {
	t, err := a.target(j.Target)
	if err != nil {
		return nil
	}
	c, err := newClient(t, a.o.Version)
	if err != nil {
		return nil
	}
	defer c.CloseIdle()
	natural := map[string]string{}
	for label, field := range c.Labels() {
		natural[ingest.Normalize(label)] = field
	}
	fields := map[string]string{}
	for _, m := range j.Mapping {
		fields[m.Column] = m.Field
	}
	var flags []string
	if j.IDColumn != "" && !ingest.IsID(j.IDColumn) {
		flags = append(flags, "--id-column", j.IDColumn)
	}
	for _, name := range j.Columns {
		would := natural[ingest.Normalize(name)]
		if ingest.IsRemark(name) {
			would = ""
		}
		if name != j.IDColumn && fields[name] != would {
			flags = append(flags, "--map", name+"="+fields[name])
		}
	}
	for _, field := range j.Constants {
		flags = append(flags, "--constant", field+"=TEXT")
	}
	if j.Empty != "" && j.Empty != ingest.EmptyIgnore {
		flags = append(flags, "--empty", j.Empty)
	}
	return flags
}
