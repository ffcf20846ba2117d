package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"crmsync/queue"
)

// parentRemark is the column in which an export of a job's rows names the job.
const parentRemark = "_job"

// announceEvery is how often a job's registration is brought up to date.
const announceEvery = 2 * time.Second

// resume finds out what an earlier run of the job has done, and registers the
// job where this is the first.
func (in *intake) resume(ctx context.Context) error {
	im := in.o.im
	was, err := in.a.q.Job(ctx, im.Target, in.o.job)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return in.begin(ctx)
	case err != nil:
		return err
	}
	in.job = was
	in.rep.Resumed = &Resumed{At: was.Created, By: was.By, Complete: !was.Loaded.IsZero()}
	if err := in.same(); err != nil {
		return fmt.Errorf("%w (imported %s by %s); name another job with --job", err, was.Created.Local().Format(time.DateTime), orSomebody(was.By))
	}
	order, err := in.a.q.JobOrder(ctx, im.Target, in.o.job)
	if err != nil {
		return err
	}
	if order.State == queue.JobCancelled { // what it added would end cancelled
		return fmt.Errorf("job %s: %w by %s; to send the rows all the same, name another job with --job", in.o.job, queue.ErrJobCancelled, orSomebody(order.By))
	}
	if in.rep.Resumed.Complete {
		in.after = math.MaxInt64
		return nil
	}
	in.after, err = in.a.q.LastRow(ctx, im.Target, im.Class, in.o.job)
	return err
}

// same refuses to go on with a job whose rows are not those of this file.
func (in *intake) same() error {
	switch {
	case in.o.digest == "":
		return fmt.Errorf("job %s is there already, and whether it came from the same stream cannot be told; give it as a file", in.o.job)
	case in.job.Digest != in.o.digest:
		return fmt.Errorf("job %s: %w", in.o.job, ErrOtherFile)
	}
	return nil
}

// begin registers the job.
func (in *intake) begin(ctx context.Context) error {
	im, r := in.o.im, in.o.rows.Report()
	last, err := in.a.lastSeq(ctx, im.Target, im.Class)
	if err != nil {
		return err
	}
	in.job = Job{
		ID: in.o.job, Target: im.Target, Class: im.Class, SHA256: in.o.sum, Digest: in.o.digest,
		Format: r.Format, Encoding: r.Encoding, Delimiter: r.Delimiter, Sheet: r.Sheet, IDColumn: r.IDColumn, Columns: r.Columns,
		Constants: slices.Sorted(maps.Keys(im.Constants)), Empty: im.Empty,
		By: im.By, Created: time.Now().UTC(), Parent: im.Parent, First: last + 1,
	}
	if in.job.Parent == "" {
		in.job.Parent = r.Remarks[parentRemark]
	}
	if im.Path != "-" {
		in.job.File = im.Path
		if path, err := filepath.Abs(im.Path); err == nil {
			in.job.Path = path
			in.job.Host, _ = os.Hostname() // without it the path is of no use, and not used
		}
	}
	entry := queue.Entry{Actor: queue.Actor{By: im.By, Via: "cli"}, Action: "import", Target: im.Target, Detail: "job " + in.o.job}
	if err := in.a.q.Audit(ctx, entry); err != nil {
		return err
	}
	return in.announce(ctx)
}

// announce stores how far the job's loading is.
func (in *intake) announce(ctx context.Context) error {
	r := in.o.rows.Report()
	in.job.Encoding, in.job.Mapping = r.Encoding, nil // a guess may come late, and so may columns of JSON
	for _, c := range r.Mapping {
		in.job.Mapping = append(in.job.Mapping, JobColumn{Column: c.Name, Field: c.Field})
	}
	in.job.Queued, in.job.Rejected = in.rep.Queued+in.rep.Duplicates, in.rep.Rejected
	in.job.Read = in.job.Queued + in.job.Rejected
	in.told = time.Now()
	return in.a.SaveJob(ctx, in.job)
}

// complete notes that every row was dealt with.
func (in *intake) complete(ctx context.Context) error {
	if err := in.o.unchanged(); err != nil {
		return err
	}
	if !in.job.Loaded.IsZero() {
		return nil
	}
	return outlast(ctx, func() error {
		last, err := in.a.lastSeq(ctx, in.job.Target, in.job.Class)
		if err != nil {
			return err
		}
		in.job.Last, in.job.Size, in.job.Loaded = last, in.o.rows.Report().Size, time.Now().UTC()
		return in.announce(ctx)
	}, func() {})
}

func orSomebody(by string) string {
	if by == "" {
		return "somebody"
	}
	return by
}
