package app

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"crmsync/config"
	"crmsync/contact"
	"crmsync/ingest"
)

// opened is a file about to be imported: found, named, its header understood.
type opened struct {
	im     *Import
	target config.Target
	client client
	file   io.ReadCloser
	rows   ingest.Reader
	job    string
	// digest is of the file and of all that says what its rows mean; "" for a
	// stream, which can be read only once. sum is of the file alone.
	digest, sum string
}

// begin opens the file of an import and reads its header.
func (im *Import) begin(cfg *config.Config, version string) (*opened, error) {
	t, err := findTarget(cfg, im.Target)
	if err != nil {
		return nil, err
	}
	o := &opened{im: im, target: t, job: im.Job}
	if o.client, err = newClient(t, version); err != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, err)
	}
	if o.file, err = im.open(); err == nil {
		err = o.read()
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *opened) close() {
	if o.rows != nil {
		_ = o.rows.Close() // a copy of what was only read
	}
	if o.file != nil {
		_ = o.file.Close() // only read
	}
	o.client.CloseIdle()
}

func (o *opened) read() error {
	if err := o.identify(); err != nil {
		return fmt.Errorf("%s: %w", o.im.name(), err)
	}
	if o.job == "" {
		o.job = "j" + strconv.FormatInt(time.Now().UnixNano(), 36)
		if o.digest != "" {
			o.job = "j" + o.digest[:12]
		}
	}
	var err error
	if o.rows, err = ingest.Open(o.file, o.options()); err != nil {
		return fmt.Errorf("%s: %w", o.im.name(), err)
	}
	return nil
}

// identify hashes a file that can be read twice.
func (o *opened) identify() error {
	f, ok := o.file.(io.Seeker)
	if !ok {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil // a pipe
	}
	content, im := sha256.New(), o.im
	if _, err := io.Copy(content, o.file); err != nil {
		return err
	}
	o.sum = hex.EncodeToString(content.Sum(nil))
	all := sha256.New()
	fmt.Fprintf(all, "%s %q %q %q %q %q %q %q %q %v", o.sum, im.Target, im.ID, im.Map, im.Constants, im.Empty, im.Format, im.Charset, im.Comma, im.Class)
	if im.Sheet != "" {
		fmt.Fprintf(all, " %q", im.Sheet)
	}
	o.digest = hex.EncodeToString(all.Sum(nil))
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// unchanged refuses a file that was written to while it was read: which rows it
// had is not known.
func (o *opened) unchanged() error {
	if r := o.rows.Report(); o.sum != "" && r.SHA256 != o.sum {
		return fmt.Errorf("%s was changed while it was read; import it again", o.im.name())
	}
	return nil
}

// options say how the file is read.
func (o *opened) options() ingest.Options {
	im := o.im
	return ingest.Options{
		Format: im.Format, IDColumn: im.ID, Map: im.Map, Constants: im.Constants, Empty: im.Empty,
		Encoding: im.Charset, Sheet: im.Sheet, Delimiter: im.Comma, Labels: o.client.Labels(), Convert: o.client.Convert,
	}
}

// update makes the update of a row, or says why there is none.
func (o *opened) update(row ingest.Row) (*contact.Update, error) {
	if row.Err != nil {
		return nil, row.Err
	}
	u := &contact.Update{
		Contact: contact.Key{Target: o.im.Target, ID: row.ID}, Class: o.im.Class, Fields: row.Fields,
		Version: row.Version, Versioned: row.Versioned, OccurredAt: row.OccurredAt,
		Job: o.job, Row: row.N, MsgID: o.job + ":" + strconv.FormatInt(row.N, 10),
	}
	if err := contact.CheckID(row.ID); err != nil {
		return nil, err
	}
	if bad := o.client.Check(u); bad != nil {
		return nil, bad
	}
	return u, nil
}

func (im *Import) name() string {
	if im.Path == "-" {
		return "standard input"
	}
	return im.Path
}

func (im *Import) open() (io.ReadCloser, error) {
	if im.Path == "-" {
		return io.NopCloser(im.Stdin), nil
	}
	f, err := os.Open(im.Path)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, errors.Join(fmt.Errorf("%s is a folder, not a file", im.Path), f.Close())
	}
	return f, nil
}
