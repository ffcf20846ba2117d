package queue

import (
	"fmt"
	"slices"
	"time"

	"crmsync/contact"
)

// groupHolding is a group that this process has claimed, or is claiming or
// giving back. It is guarded by ownership.mu.
type groupHolding struct {
	sess *session
	rev  uint64 // of the claim
	busy bool   // the claim or the release is under way
}

// check sorts what the options name; groups has the members of each.
func (opt OwnOptions) check() (targets []string, groups map[string][]string, err error) {
	groups = map[string][]string{}
	for _, t := range opt.Targets {
		if err := contact.CheckTarget(t.Name); err != nil {
			return nil, nil, fmt.Errorf("queue: %w", err)
		}
		if slices.Contains(targets, t.Name) {
			continue
		}
		targets = append(targets, t.Name)
		if t.Group == "" {
			continue
		}
		if contact.CheckTarget(t.Group) != nil {
			return nil, nil, fmt.Errorf("queue: target %s: its group %q is not a name: 1 to 32 characters of a-z, 0-9 and dash", t.Name, t.Group)
		}
		groups[t.Group] = append(groups[t.Group], t.Name)
	}
	slices.Sort(targets)
	return targets, groups, nil
}

// groupOf turns groups round.
func groupOf(groups map[string][]string) map[string]string {
	out := map[string]string{}
	for g, members := range groups {
		for _, t := range members {
			out[t] = g
		}
	}
	return out
}

// rightfulGroup is the session that should own a group, and with it all of its
// members. Where configurations differ, as they do while a new one is rolled
// out, it is one of those who know the most members: the others could not run
// the rest.
func (o *ownership) rightfulGroup(group string, sess *session, leaving bool) string {
	return o.elect(group, sess, leaving, len(o.groups[group]), func(p *peer) int { return p.shares[group] })
}

// mayRun says whether a target's lane may begin: always where it has no group,
// else while our session owns that and is to keep it.
func (o *ownership) mayRun(target string, sess *session) bool {
	g := o.groupOf[target]
	if g == "" {
		return true
	}
	h := o.heldGroups[g]
	return h != nil && h.sess == sess && !h.busy
}

// balanceGroup claims a group that should be ours and is free, and gives back
// one that should not and whose last member was released. Members that a lost
// session has left running come first: their lanes must have ended.
func (o *ownership) balanceGroup(group string, sess *session, leaving bool, now time.Time) {
	for _, t := range o.groups[group] {
		if o.held[t] != nil {
			return
		}
	}
	h := o.heldGroups[group]
	if h != nil && h.busy {
		return
	}
	if h != nil && h.sess != sess {
		h = nil // it went with its session
	}
	want := o.rightfulGroup(group, sess, leaving)
	switch {
	case h != nil && want != sess.id && (want != "" || leaving):
		h.busy = true
		o.wg.Go(func() { o.leaveGroup(group, h) })
	case h == nil && want != sess.id && !leaving && o.left(o.owners[groupKey+group], sess) && !now.Before(o.notBefore[groupKey+group]):
		o.notBefore[groupKey+group] = now.Add(afterFailed)
		h := &groupHolding{sess: sess, rev: o.owners[groupKey+group].rev, busy: true}
		o.heldGroups[group] = h
		o.wg.Go(func() { o.leaveGroup(group, h) })
	case h == nil && want == sess.id && !now.Before(o.notBefore[groupKey+group]):
		cur := o.owners[groupKey+group]
		if o.livesElsewhere(cur, sess) {
			return
		}
		h := &groupHolding{sess: sess, busy: true}
		o.heldGroups[group] = h
		o.wg.Go(func() { o.takeGroup(group, h, cur) })
	}
}

func (o *ownership) takeGroup(group string, h *groupHolding, cur claim) {
	rev, err := o.claim(groupKey+group, h.sess, cur)
	if err != nil && h.sess.ctx.Err() == nil {
		o.q.log.Debug().Err(err).Str("group", group).Msg("claim failed")
	}
	if rev != 0 {
		o.q.log.Info().Str("group", group).Str("session", h.sess.id).Msg("shared quota taken")
	} else {
		o.later(groupKey + group)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	h.rev, h.busy = rev, false
	if rev == 0 {
		delete(o.heldGroups, group)
	}
	poke(o.kick)
}

// leaveGroup gives a group back. Where a call of a member may still be at work,
// it waits for the session's end as that member does.
func (o *ownership) leaveGroup(group string, h *groupHolding) {
	if h.sess.ctx.Err() == nil && !h.sess.abandoned.Load() {
		o.letGo(groupKey+group, h.sess, h.rev)
		o.q.log.Info().Str("group", group).Msg("shared quota released")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.heldGroups, group)
	poke(o.kick)
}

// holdsGroup says whether a session has a group still.
func (o *ownership) holdsGroup(sess *session) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range o.heldGroups {
		if h.sess == sess {
			return true
		}
	}
	return false
}
