//go:build !linux

package caddymodule

// hideMemory does nothing here: core dumps are to be turned off where the
// process is started.
func hideMemory() error { return nil }
