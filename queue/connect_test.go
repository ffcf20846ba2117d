package queue

import (
	"testing"

	"github.com/nats-io/nats.go"
)

// Servers whose permissions keep inboxes apart see answers under the prefix and
// nowhere else.
func TestInboxPrefix(t *testing.T) {
	host := open(t, Options{Embedded: &Embedded{Dir: t.TempDir(), Port: -1}})
	tap, err := nats.Connect(host.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	var seen [2]*nats.Subscription
	for i, subject := range []string{"_INBOX_crmsync.>", "_INBOX.>"} {
		if seen[i], err = tap.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
	}
	if err := tap.Flush(); err != nil {
		t.Fatal(err)
	}
	q := open(t, Options{URL: host.URL(), InboxPrefix: "_INBOX_crmsync"})
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	if err := tap.Flush(); err != nil {
		t.Fatal(err)
	}
	var n [2]int
	for i, s := range seen {
		if n[i], _, err = s.Pending(); err != nil {
			t.Fatal(err)
		}
	}
	if n[0] == 0 || n[1] != 0 {
		t.Errorf("%d answers under the prefix, %d under _INBOX", n[0], n[1])
	}
}
