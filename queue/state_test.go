package queue

import (
	"errors"
	"sync"
	"testing"
)

// Two who write at once: one of them hears of it and loses nothing.
func TestPutAt(t *testing.T) {
	q := setUp(t)
	ctx := t.Context()
	type value struct{ N int }
	v := value{1}
	found, rev, err := q.GetAt(ctx, "desired.office", &v)
	if found || rev != 0 || err != nil || v.N != 1 {
		t.Fatalf("a key that is not there: %t, %d, %v", found, rev, err)
	}
	first, err := q.PutAt(ctx, "desired.office", value{2}, 0)
	if err != nil || first == 0 {
		t.Fatal(first, err)
	}
	if _, err := q.PutAt(ctx, "desired.office", value{3}, 0); !errors.Is(err, ErrChanged) {
		t.Errorf("written over one's back: %v", err)
	}
	if found, rev, err := q.GetAt(ctx, "desired.office", &v); !found || rev != first || err != nil || v.N != 2 {
		t.Errorf("read %+v at %d: %t, %v", v, rev, found, err)
	}
	if err := q.Delete(ctx, "desired.office"); err != nil {
		t.Fatal(err)
	}
	found, rev, err = q.GetAt(ctx, "desired.office", &v)
	if found || rev <= first || err != nil {
		t.Errorf("deleted: %t, %d, %v", found, rev, err)
	}
	if _, err := q.PutAt(ctx, "desired.office", value{4}, rev); err != nil {
		t.Errorf("written where a deleted one was: %v", err)
	}
	for _, key := range []string{"", "a b"} {
		if _, err := q.PutAt(ctx, key, 1, 0); err == nil {
			t.Errorf("key %q is taken", key)
		}
		if _, _, err := q.GetAt(ctx, key, &v); err == nil {
			t.Errorf("key %q is read", key)
		}
	}
	if _, err := q.PutAt(ctx, "k", make(chan int), 0); err == nil {
		t.Error("a channel is stored")
	}

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := 0; n < 10; {
				var c value
				_, rev, err := q.GetAt(ctx, "count", &c)
				if err != nil {
					t.Error(err)
					return
				}
				c.N++
				if _, err := q.PutAt(ctx, "count", c, rev); err == nil {
					n++
				} else if !errors.Is(err, ErrChanged) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if _, err := q.Get(ctx, "count", &v); err != nil || v.N != 40 {
		t.Errorf("counted %d, %v", v.N, err)
	}
}
