package queue

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors of the server that this package acts upon.
const (
	errNoPeers      = 10005
	errNoMeta       = 10008 // the cluster has no leader yet
	errResources    = 10023
	errNoMessage    = 10037
	errNoSequence   = 10043
	errEraseFailed  = 10057
	errNoStream     = 10059
	errStorage      = 10047
	errOverlap      = 10065
	errWrongLast    = 10071
	errReplicas     = 10074
	errStoreFailed  = 10077
	errWrongLastNow = 10164 // another message of the same condition is under way
	errDuplicate    = 10201
	errBatchBusy    = 10210
	errBatchGone    = 10176 // a part of the batch did not arrive, or waited too long for the rest
)

// apiError is the server's refusal of a publish or request: nothing was stored.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// Unwrap makes refusals recognisable by this package's errors.
func (e *apiError) Unwrap() error {
	switch {
	case e.ErrCode == errStoreFailed && (strings.Contains(e.Description, "maximum messages") || strings.Contains(e.Description, "maximum bytes")),
		e.ErrCode == errStorage, e.ErrCode == errResources:
		return ErrFull
	}
	return nil
}

// apiErrorOf finds the server's refusal in an error of ours or of the client
// library; the zero value where there is none.
func apiErrorOf(err error) apiError {
	var own *apiError
	if errors.As(err, &own) {
		return *own
	}
	var lib *jetstream.APIError
	if errors.As(err, &lib) {
		return apiError{Code: lib.Code, ErrCode: int(lib.ErrorCode), Description: lib.Description}
	}
	return apiError{}
}

// refused says that the server answered and stored nothing; any other error
// leaves that open.
func refused(err error) bool {
	return apiErrorOf(err).ErrCode != 0 || errors.Is(err, nats.ErrMaxPayload)
}
