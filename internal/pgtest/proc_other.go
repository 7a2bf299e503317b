//go:build !linux

package pgtest

import (
	"errors"
	"os"
	"syscall"
)

func child(*home) *syscall.SysProcAttr { return nil }

func ownSession() *syscall.SysProcAttr { return nil }

func childrenOf(int) []int { return nil }

func stop(*os.Process) error { return errors.ErrUnsupported }
