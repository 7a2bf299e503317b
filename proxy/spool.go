package proxy

import "sync"

const (
	// largeBuffer is how much of a large body is read at a time. HTTP/2 sends each
	// read as a frame, and waits for the system to take it.
	largeBuffer = 128 << 10
	// fewBuffers is how many buffers of copyBuffer come before the large ones.
	fewBuffers = 4
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }} // :: *[largeBuffer]byte

// spool keeps the beginning of a body in the buffers that it was read into: a
// slice that grows is copied several times over, and each copy is left to the
// garbage collector. The first buffer is small, as most bodies are, and the others
// are large once much has come. The zero value is empty.
type spool struct {
	size  int // bytes that are kept
	first *[waitBuffer]byte
	more  []*[copyBuffer]byte // fewBuffers at most
	large []*[largeBuffer]byte
}

// room returns where the next bytes are to be read into. They are kept once
// size has been put forward.
func (s *spool) room() []byte {
	switch {
	case s.first == nil:
		s.first = waitBuffers.Get().(*[waitBuffer]byte)
	case s.size < waitBuffer+len(s.more)*copyBuffer+len(s.large)*largeBuffer: // there is room
	case len(s.more) < fewBuffers:
		s.more = append(s.more, buffers.Get().(*[copyBuffer]byte))
	default:
		s.large = append(s.large, largeBuffers.Get().(*[largeBuffer]byte))
	}
	return s.from(s.size)
}

// from returns the buffer that has the byte at pos, from there on.
func (s *spool) from(pos int) []byte {
	if pos < waitBuffer {
		return s.first[pos:]
	}
	pos -= waitBuffer
	if pos < len(s.more)*copyBuffer {
		return s.more[pos/copyBuffer][pos%copyBuffer:]
	}
	pos -= len(s.more) * copyBuffer
	return s.large[pos/largeBuffer][pos%largeBuffer:]
}

// read copies what is kept at pos to p, as much as stands in one buffer.
func (s *spool) read(p []byte, pos int) int {
	kept := s.from(pos)
	return copy(p, kept[:min(len(kept), s.size-pos)])
}

// free gives the buffers back. Nobody may be reading into them.
func (s *spool) free() {
	if s.first != nil {
		waitBuffers.Put(s.first)
	}
	for _, b := range s.more {
		buffers.Put(b)
	}
	for _, b := range s.large {
		largeBuffers.Put(b)
	}
	*s = spool{}
}
