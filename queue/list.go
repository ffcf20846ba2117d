package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// listed are streams as a server lists them.
type listed struct {
	infos []jetstream.StreamInfo
	// unled are those of a cluster of which nobody answers for: their servers are
	// gone, or choose a leader. The server leaves them out of infos, or puts in what
	// it made up: nothing is in them. nats.go's lister says nothing of them, and
	// counts on without them, so that it passes others over.
	unled []string
}

// list lists the streams that take a subject; all where it is "".
func (q *Queue) list(ctx context.Context, subject string) (listed, error) {
	var out listed
	for offset := 0; ; {
		var page struct {
			Total   int                    `json:"total"`
			Limit   int                    `json:"limit"`
			Streams []jetstream.StreamInfo `json:"streams"`
			Missing []string               `json:"missing"`
		}
		request := struct {
			Offset  int    `json:"offset,omitempty"`
			Subject string `json:"subject,omitempty"`
		}{offset, subject}
		if err := q.ask(ctx, "STREAM.LIST", request, &page); err != nil {
			return listed{}, fmt.Errorf("queue: list streams: %w", err)
		}
		for _, info := range page.Streams {
			if !slices.Contains(page.Missing, info.Config.Name) {
				out.infos = append(out.infos, info)
			}
		}
		out.unled = append(out.unled, page.Missing...)
		if offset += max(page.Limit, len(page.Streams), 1); offset >= page.Total {
			return out, nil
		}
	}
}

// whole is an error that wraps [ErrUnled] where something is not known of streams of
// ours.
func (l listed) whole() error {
	var names []string
	for _, name := range l.unled {
		if ours(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("queue: %s: %w; try again in a moment", strings.Join(names, ", "), ErrUnled)
}
