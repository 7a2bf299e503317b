//go:build !linux

package fidelity_test

import "syscall"

// dieWithParent does nothing where the system has no such thing.
func dieWithParent() *syscall.SysProcAttr { return nil }
