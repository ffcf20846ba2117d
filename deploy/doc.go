// Package deploy is for whoever runs crmsync for real: the container image, the
// compose file's parts, the systemd unit, the alerts, the users of a NATS server.
// There is no code in it: its tests hold those files against the code, so that no
// variable, port, key, flag or metric stands in them that crmsync does not have.
package deploy
