//go:build !linux

package e2e_test

import "syscall"

// dieWithParent does nothing where the system has no such thing.
func dieWithParent() *syscall.SysProcAttr { return nil }
