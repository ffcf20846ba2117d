package queue

// rightful is the session that should own a target: that of its group where it
// has one, else by rendezvous hashing among those who serve it. "" where none
// takes part.
func (o *ownership) rightful(target string, sess *session, leaving bool) string {
	if g := o.groupOf[target]; g != "" {
		return o.rightfulGroup(g, sess, leaving)
	}
	return o.elect(target, sess, leaving, 1, func(p *peer) int {
		if p.serves[target] {
			return 1
		}
		return 0
	})
}

// elect chooses by rendezvous hashing among the sessions that take the greatest
// part; mine is our own.
func (o *ownership) elect(name string, sess *session, leaving bool, mine int, part func(*peer) int) string {
	best, bestPart, bestScore := "", 0, uint64(0)
	if !leaving {
		best, bestPart, bestScore = sess.id, mine, score(sess.id, name)
	}
	for id, p := range o.live {
		if id == sess.id || p.Leaving {
			continue
		}
		n := part(p)
		if n == 0 || n < bestPart {
			continue
		}
		if s := score(id, name); n > bestPart || s > bestScore || s == bestScore && id > best {
			best, bestPart, bestScore = id, n, s
		}
	}
	return best
}

// score is FNV-1a over both names, mixed so that similar names spread.
func score(session, target string) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range []string{session, "/", target} {
		for i := 0; i < len(s); i++ {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
