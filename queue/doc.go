// Package queue is everything of crmsync that must survive a restart: updates
// that wait, who owns which target, how each update ended, dead letters, and
// the state that processes share. It keeps all of it in NATS JetStream, on a
// server elsewhere or on one that it runs inside this process, and it is the
// only package that knows NATS.
//
// # How it works
//
// Each target has one stream for each class, CRM_<TARGET>_LIVE and
// CRM_<TARGET>_BULK. No consumer acknowledges anything: the stream itself is the
// checkpoint. The owner of a target reads its streams in order, stores an
// outcome record for what has ended, and purges the stream up to the last update
// before which everything has ended. What was not purged is read again by the
// next owner, which skips what the records say is done.
//
// The outcome record is the commit. It is published under the condition that the
// contact has no newer record than the one its writer knew, so of two owners
// that believe in themselves only one can store an ending. It says up to which
// update of each class its contact is finished (the watermark) and which update
// wrote which field (the fence), and it carries the dead letter where there is
// one. Records of one settlement are stored together or not at all; records of
// different contacts that are ready at the same time travel in one batch,
// because a store that syncs each write pays once a batch.
//
// A process is a session: a key with a lifetime that one goroutine renews. Which
// session owns which target is decided by rendezvous hashing and held in a key
// that changes only by compare-and-set.
//
// A dead letter is a record. It is sent again as a new update that is as old as
// the original (redrive.go), alone or with many others (operation.go, redriver.go);
// edited, discarded, listed from its headers (letters.go). A key that only one can
// create keeps it in one pair of hands, and the target's owner ends what was cut
// short (tend.go). A person is removed from everywhere by a tombstone (forget.go).
// What operators do is told in the audit trail before it is done (audit.go).
//
// All methods of [Queue] and [Source] may be called concurrently unless they say
// otherwise.
package queue
