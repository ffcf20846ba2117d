package queue

import "context"

// choose finds the next letters.
func (r *redriver) choose(ctx context.Context) error {
	if ids := r.op.IDs; len(ids) > 0 {
		r.page, r.read = ids[min(int(r.op.Cursor), len(ids)):], true
		return nil
	}
	f := r.op.Filter
	f.After = r.op.Cursor
	page := redrivePage
	if f.Limit > 0 {
		page = min(page, f.Limit-int(r.op.Chosen))
	}
	r.read = true
	if page <= 0 {
		return nil
	}
	f.Limit = page
	clear(r.letters)
	add := func(id uint64) error {
		if id > r.op.Last {
			return errEnough
		}
		r.page = append(r.page, id)
		r.read = len(r.page) < page
		return nil
	}
	if f.needsHeads() {
		return r.q.choose(ctx, f, func(h letterHead) error { return add(h.id) })
	}
	size := 0 // nothing would be passed over: the letters come with it
	err := r.q.Records(ctx, f, func(l Record) error {
		if size > redrivePageBytes {
			return errEnough
		}
		size += len(l.Original)
		r.letters[l.Seq] = &l
		return add(l.Seq)
	})
	r.read = r.read && size <= redrivePageBytes
	return err
}

// lettersOf reads those that were not sent before; at is the place of each among the
// ids, errs says of the others what stands in the way, nil where they are sent.
func (r *redriver) lettersOf(ctx context.Context, ids []uint64, errs []error) (letters []*Record, at []int) {
	all := make([]*Record, len(ids))
	first := map[uint64]int{}
	for i, id := range ids {
		if _, twice := first[id]; !twice {
			first[id] = i
		}
	}
	aside(len(ids), atOnce, func(i int) {
		if id := ids[i]; first[id] == i && r.open[id] == nil && !r.over[id] {
			if all[i] = r.letters[id]; all[i] != nil {
				return // that it is gone meanwhile shows when it is claimed
			}
			var l Record
			if l, errs[i] = r.q.deadLetter(ctx, id); errs[i] == nil {
				all[i] = &l
			}
		}
	})
	for i, l := range all {
		if l != nil {
			letters, at = append(letters, l), append(at, i)
		}
	}
	return letters, at
}
