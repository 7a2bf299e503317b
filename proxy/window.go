package proxy

import (
	"net/http"
	"strings"
	"sync"
)

const (
	// copyBuffer is how much is copied at a time where much comes.
	copyBuffer = 32 << 10
	// waitBuffer is what a stream holds that waits for more. A server-sent event
	// or a message seldom has more bytes, and a read of as many goes past the
	// transport's own buffer.
	waitBuffer = 4 << 10
)

var (
	buffers     = sync.Pool{New: func() any { return new([copyBuffer]byte) }} // :: *[copyBuffer]byte
	waitBuffers = sync.Pool{New: func() any { return new([waitBuffer]byte) }} // :: *[waitBuffer]byte
)

// window is the buffer of a copy. Whoever waits in a read holds what it reads
// into, and streams wait most of their time: so it is small while little comes
// and large while much does. The zero value is a small one.
type window struct {
	small *[waitBuffer]byte
	large *[copyBuffer]byte
}

// bytes returns what to read into.
func (w *window) bytes() []byte {
	if w.large != nil {
		return w.large[:]
	}
	if w.small == nil {
		w.small = waitBuffers.Get().(*[waitBuffer]byte)
	}
	return w.small[:]
}

// fit chooses by how much the last read brought.
func (w *window) fit(n int) {
	switch {
	case n >= waitBuffer:
		w.widen()
	case w.large != nil:
		buffers.Put(w.large)
		w.large = nil
	}
}

func (w *window) widen() {
	if w.large == nil {
		w.large = buffers.Get().(*[copyBuffer]byte)
	}
}

// free gives back what is held.
func (w *window) free() {
	if w.large != nil {
		buffers.Put(w.large)
	}
	if w.small != nil {
		waitBuffers.Put(w.small)
	}
}

// isEvents reports whether an answer is a stream of server-sent events, which
// may say nothing for long.
func isEvents(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}
