package contact

// Delivery is one update handed to a lane, in its order.
type Delivery struct {
	// Update is the update, or nil: then everything that waited when the
	// ownership began (or as much of it as may be out at once) has been handed
	// out in this class. That is said once a class; before it was said for
	// every class, no call may start, or a smaller merge than the one a former
	// owner may have sent would put the contact back.
	Update *Update
}

// Ref names one update of a target, pending or ended.
type Ref struct {
	ID    string `json:"contact"`
	Class Class  `json:"class"`
	Seq   uint64 `json:"seq"`
}

// Ended is one update with its ending.
type Ended struct {
	Update *Update
	Ending Ending
}

// Settlement is the end of one or more updates of one contact that end
// together. It is stored as one act. In each class the updates are a prefix of
// what was handed out and not yet settled for this contact: the record says
// "all up to here is finished".
type Settlement struct {
	Contact Key
	Ended   []Ended // in the order they were handed out
	Fence   Fence   // the contact's fence after it
}
