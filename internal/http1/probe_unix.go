//go:build unix

package http1

import (
	"errors"
	"syscall"
)

// probe looks whether anything has come on a connection that nobody reads.
type probe struct {
	raw  syscall.RawConn // nil: nothing can be said
	look func(fd uintptr) bool
	err  error // of the last look
}

func (p *probe) init(sc syscall.Conn) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	p.raw = raw
	p.look = func(fd uintptr) bool {
		var b [1]byte
		_, p.err = syscall.Read(int(fd), b[:])
		return true // it does not wait
	}
}

// silent reports whether nothing has come. It is the last look if not.
func (p *probe) silent() bool {
	if p.raw == nil {
		return false
	}
	p.err = nil
	return p.raw.Read(p.look) == nil && errors.Is(p.err, syscall.EAGAIN)
}
