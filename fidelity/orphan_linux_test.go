package fidelity_test

import "syscall"

// dieWithParent lets a child end with the program that has started it, however
// that ends.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
