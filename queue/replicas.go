package queue

import (
	"context"
	"errors"
	"time"
)

// peersWait is how long Setup waits for the other servers of a cluster.
const peersWait = 15 * time.Second

// replicas is on how many servers streams are to be kept; chosen where that is
// certain. What was set up before decides for what comes later.
func (q *Queue) replicas(ctx context.Context) (n int, chosen bool, err error) {
	have, clustered, err := q.Replicas(ctx)
	for end := time.Now().Add(q.peersWait); clustered && err != nil && time.Now().Before(end); {
		// A cluster that has just been started has no leader yet.
		if apiErrorOf(err).ErrCode != errNoMeta && !errors.Is(err, ErrUnreachable) {
			break
		}
		if !sleep(ctx, 250*time.Millisecond) {
			return 0, true, err
		}
		have, clustered, err = q.Replicas(ctx)
	}
	switch {
	case q.opt.Replicas > 0:
		return q.opt.Replicas, true, nil
	case err != nil || have > 0:
		return have, true, err
	case clustered:
		return 3, false, nil
	}
	return 1, true, nil
}

// Replicas is on how many servers the streams are kept, 0 where they have not been
// set up, and whether there is a cluster that could keep them on several.
func (q *Queue) Replicas(ctx context.Context) (n int, clustered bool, err error) {
	clustered = q.clustered()
	info, err := q.info(ctx, outcomeStream)
	switch {
	case errors.Is(err, ErrNotSetUp):
		return 0, clustered, nil
	case err != nil:
		return 0, clustered, err
	}
	return max(1, info.Config.Replicas), clustered, nil
}

// clustered says whether the server that we are connected to belongs to a cluster.
func (q *Queue) clustered() bool { return q.srv == nil && q.nc.ConnectedClusterName() != "" }

// isFewPeers says that a stream cannot be kept on so many servers.
func isFewPeers(err error) bool {
	switch apiErrorOf(err).ErrCode {
	case errNoPeers, errReplicas:
		return true
	}
	return false
}
