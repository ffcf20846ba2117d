package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"crmsync/contact"
)

// A stream that was removed and set up again goes on behind what its contacts'
// records cover; from 1 its updates would count as ended.
func TestRemovedStreamGoesOn(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office", "shop")
	l := own(t, q, "office")
	s := l.source(t)
	for n := range 5 {
		publish(t, q, update("office", 7, contact.Live, n))
	}
	settle(t, s, contact.Applied, take(t, s, contact.Live, 5)...)
	l.end(t)
	for _, name := range []string{"CRM_OFFICE_LIVE", "CRM_SHOP_LIVE"} {
		if err := q.js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Setup(t.Context(), []string{"office", "shop"}); err != nil {
		t.Fatal(err)
	}
	publish(t, q, update("office", 7, contact.Live, 5))
	publish(t, q, update("office", 8, contact.Live, 6))
	publish(t, q, update("shop", 7, contact.Live, 7))
	got := everything(t, own(t, q, "office").source(t))
	if len(got) != 2 || got[0].Seq != 6 {
		t.Errorf("handed out: %d, the first %+v", len(got), got)
	}
	if info, err := q.info(t.Context(), "CRM_SHOP_LIVE"); err != nil || info.State.FirstSeq != 1 {
		t.Errorf("a target without records begins at %+v, %v", info, err)
	}
}

// A target that was abandoned stays its session's until that runs out.
func TestAbandonedTargetIsNotHandedOn(t *testing.T) {
	t.Parallel()
	o := testOptions(t, t.TempDir())
	o.Lease = 2 * time.Second
	q := open(t, o)
	if err := q.Setup(t.Context(), []string{"office"}); err != nil {
		t.Fatal(err)
	}
	l := own(t, q, "office")
	l.source(t).Abandon()
	l.end(t)
	ended := time.Now()
	l2 := own(t, q, "office")
	l2.source(t)
	if d := time.Since(ended); d < time.Second {
		t.Errorf("taken over after %s, the lease is %s", d, o.Lease)
	}
}

// A record never outgrows what the server takes, whatever the names in it.
func TestRecordFits(t *testing.T) {
	t.Parallel()
	q := setUp(t, "office")
	s := own(t, q, "office").source(t)
	var fields []string
	for i := range contact.MaxMembers {
		fields = append(fields, fmt.Sprintf(`"%s%d":1`, strings.Repeat("<", 1000), i))
	}
	u := update("office", 7, contact.Live, 1)
	u.Fields, u.Raw = nil, []byte(`{"fields":{`+strings.Join(fields, ",")+`}}`)
	u.MsgID = strings.Repeat("<", 1000)
	publish(t, q, u)
	got := take(t, s, contact.Live, 1)
	st := settlement(contact.Dead, got...)
	st.Ended[0].Ending.Reason = contact.Invalid
	st.Ended[0].Ending.Fields = contact.Rules{}.Paths(got[0].Fields)
	if err := s.Settle(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	r := allRecords(t, q, Filter{Target: "office"})
	if len(r) != 1 || string(r[0].Original) != string(u.Raw) || r[0].Covers[contact.Live] != 1 {
		t.Errorf("%d records", len(r))
	}
}
