package queue

import "context"

// ContinueRedrive has somebody go on with an operation, who need not be the one
// that began it: from the next [Queue.RunRedrive] on its letters are sent in that
// name; a process that is at work on it ends when that takes it over. The audit trail tells of it
// before, as redrive-continue. One that has ended is returned as it is.
func (q *Queue) ContinueRedrive(ctx context.Context, who Actor, id string) (Operation, error) {
	audited := false
	for n := 0; ; n++ {
		o, err := q.Operation(ctx, id)
		if err != nil || o.State.Final() {
			return o, err
		}
		if !audited {
			if err := q.Audit(ctx, Entry{Actor: who, Action: "redrive-continue", Target: o.Target, Detail: "operation " + id}); err != nil {
				return Operation{}, err
			}
			audited = true
		}
		o.Acting = &who
		err = q.saveOperation(ctx, &o)
		if err == nil || apiErrorOf(err).ErrCode != errWrongLast || !sleep(ctx, pause(min(n, 2))) {
			return o, err
		}
	}
}

// actor is in whose name the letters are sent.
func (o *Operation) actor() Actor {
	if o.Acting != nil {
		return *o.Acting
	}
	return o.Actor
}
