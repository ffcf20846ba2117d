package app

import (
	"errors"

	"crmsync/config"
	"crmsync/contact"
	"crmsync/queue"
)

// Errors that the commands tell apart by their exit code.
var (
	// ErrUnreachable is wrapped where NATS cannot be reached.
	ErrUnreachable = queue.ErrUnreachable
	// ErrLocked is wrapped where another process serves the same data folder.
	ErrLocked = queue.ErrLocked
	// ErrDataGone is wrapped where the store does not hold what it must.
	ErrDataGone = queue.ErrDataGone
	// ErrNoSpace is wrapped where an update is not taken because the store's
	// disk is nearly full.
	ErrNoSpace = queue.ErrNoSpace
)

// LoadConfig reads the configuration: the file at path (none where it is
// empty), the environment over it, and over both what set says, each as
// key.path=value.
func LoadConfig(path string, env, set []string) (*config.Config, error) {
	overrides := make([]config.Override, 0, len(set))
	var errs config.Errors
	for _, s := range set {
		o, err := config.ParseOverride(s)
		if err != nil {
			errs = append(errs, config.Error{Msg: err.Error()})
			continue
		}
		overrides = append(overrides, o)
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return config.Load(path, env, overrides...)
}

// IsConfigError says whether an error is the configuration's.
func IsConfigError(err error) bool {
	var many config.Errors
	var one config.Error
	return errors.As(err, &many) || errors.As(err, &one)
}

// ExampleConfig is a configuration file with every key explained.
func ExampleConfig() []byte { return config.Example }

// Schema is the JSON Schema of an update's body.
func Schema() []byte { return contact.Schema() }

// ParseClass reads live or bulk.
func ParseClass(s string) (contact.Class, error) { return contact.ParseClass(s) }
