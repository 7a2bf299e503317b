package proxy

import (
	"context"
	"io"
	"net/http"
	"sync"
)

// tunnels are the connections of a Handler that switched to another protocol.
// Nobody else knows of them: a server that is shut down lets go of them.
type tunnels struct {
	mu   sync.Mutex
	open map[*call]*tunnelEnd // guarded by mu
	// asked counts the requests for one that are under way, and so those that
	// are open, too.
	asked int // guarded by mu
	// left is set once the Handler is no longer in force; kept are the clients
	// of the one that is.
	left bool     // guarded by mu
	kept []Client // guarded by mu
}

// tunnelEnd ends a tunnel and tells when it has ended.
type tunnelEnd struct {
	cancel context.CancelFunc
	over   chan struct{}
}

// ask counts a request for a tunnel until the function that it returns is called.
func (t *tunnels) ask() (over func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.asked--
	}
}

// enter notes a tunnel. It reports false if there may be none for c any more.
func (t *tunnels) enter(c *call, end *tunnelEnd) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left && !c.allowedBy(t.kept) {
		return false
	}
	if t.open == nil {
		t.open = map[*call]*tunnelEnd{}
	}
	t.open[c] = end
	return true
}

func (t *tunnels) leave(c *call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

// EndTunnels is for a Handler that is no longer in force: its tunnels go on,
// but for those that none of these clients, which are in force now, could have
// asked for with the key they were asked for with. It returns when those have
// ended, with how many go on or may yet come of requests under way: while there
// are any it has to be called again when other clients are in force. A tunnel
// that no key was asked for ends.
func (h *Handler) EndTunnels(kept []Client) (goOn int) {
	t := &h.tunnels
	t.mu.Lock()
	t.left, t.kept = true, kept
	var ends []*tunnelEnd
	for c, end := range t.open {
		if !c.allowedBy(kept) {
			ends = append(ends, end)
		}
	}
	goOn = t.asked - len(ends)
	t.mu.Unlock()
	for _, end := range ends {
		end.cancel()
	}
	for _, end := range ends {
		<-end.over
	}
	return goOn
}

// allowedBy reports whether one of these clients has the key of c and may do
// what c does.
func (c *call) allowedBy(clients []Client) bool {
	if c.client == nil {
		return false
	}
	now := match(clients, c.client.Key.Value)
	return now != nil && now.allows(c.grant) == "" && now.allowsCall(c.in, c.target, c.upstream) == ""
}

// tunnel carries a connection that switched to another protocol (RFC 9110
// section 7.8), until both sides have ended, one has failed, or the caller may
// use the connection no longer.
func (h *Handler) tunnel(ctx context.Context, rc *http.ResponseController, c *call, res *http.Response) {
	upstream, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !c.body.ended() { // a body would be read as the new protocol
		panic(http.ErrAbortHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	end := &tunnelEnd{cancel: cancel, over: make(chan struct{})}
	defer close(end.over)
	defer cancel()
	if !h.tunnels.enter(c, end) {
		panic(http.ErrAbortHandler)
	}
	defer h.tunnels.leave(c)

	ended, stop := h.cfg.Grants.Watch(c.grant.ConnectionID)
	defer stop()
	app, buffered, err := rc.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		_ = upstream.Close()
		_ = app.Close()
	})
	header := *res
	header.Body = nil // it is the connection, not a body to be written
	if header.Write(buffered) != nil || buffered.Flush() != nil {
		return
	}
	fromUpstream := make(chan struct{})
	work.Go(func() {
		defer close(fromUpstream)
		if !copyHalf(app, upstream) {
			cancel()
		}
	})
	// What the app sent too early is in the reader. The rest is not read through
	// it: the server ends the request once its reader has seen the app's end,
	// which is that of one direction only.
	early, _ := buffered.Peek(buffered.Reader.Buffered())
	if _, err := upstream.Write(early); err != nil || !copyHalf(upstream, app) {
		cancel()
	}
	<-fromUpstream
}

// copyHalf copies one direction and passes its end on. It reports false if it
// could not, so that the other direction has no use either.
func copyHalf(dst io.Writer, src io.Reader) bool {
	var in window
	defer in.free()
	for {
		n, err := src.Read(in.bytes())
		if n > 0 {
			if _, err := dst.Write(in.bytes()[:n]); err != nil {
				return false
			}
			in.fit(n)
		}
		if err == io.EOF {
			half, ok := dst.(interface{ CloseWrite() error })
			return ok && half.CloseWrite() == nil
		}
		if err != nil {
			return false
		}
	}
}
