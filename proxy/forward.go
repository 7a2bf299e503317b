package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/lanyard-proxy/lanyard/metrics"
)

// errBadStatus is a final answer that HTTP does not have.
var errBadStatus = errors.New("upstream answered with no final status")

// forward sends an accepted request and passes the answer on. It returns the
// status that was answered.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, c *call) int {
	rc := http.NewResponseController(w)
	if hasBody(r) {
		c.body, c.trailers = newSource(r.Body, h.spoolFor(r), hurry(w, r.ProtoMajor)), slices.Collect(maps.Keys(r.Trailer))
		// An early answer must not wait for the body: HTTP/1 servers do
		// otherwise. Where it isn't supported it isn't needed.
		_ = rc.EnableFullDuplex()
	}
	defer c.body.finish(rc, r.ProtoMajor)
	res, err := h.send(c.withInterim(w, h.cfg.KeepLinks), c) //nolint:contextcheck // the request's own
	c.early.stop()
	c.body.leave()
	if err == nil {
		defer func() {
			c.body.cut() // an HTTP/2 transport waits for whoever reads the app
			_ = res.Body.Close()
		}()
		if !validStatus(res.StatusCode, r) {
			err = errBadStatus
		}
	}
	if err != nil {
		if c.body.isGone(r.Context()) {
			h.failed(c, metrics.CallCanceled)
			panic(http.ErrAbortHandler)
		}
		closeAfter(w.Header(), r, c)
		p := h.problemUpstream(err, c)
		h.failed(c, p.Code)
		p.Write(w)
		return p.Status
	}
	h.answered(c, res.StatusCode)
	c.echo.header(res.Header)
	if !h.cfg.KeepLinks {
		c.turnBack(res.Header)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		h.tunnel(r.Context(), rc, c, res)
		return res.StatusCode
	}
	res.Body = c.echo.body(res)
	answer(w, rc, r, c, res)
	return res.StatusCode
}

// validStatus reports whether a final status can be passed on: the switch to
// another protocol only if it was asked for.
func validStatus(status int, r *http.Request) bool {
	return status >= 200 || (status == http.StatusSwitchingProtocols && upgrade(r.Header) != "")
}

// hasBody reports whether a request has a body, be it of unknown length.
func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// answer copies an upstream's answer.
func answer(w http.ResponseWriter, rc *http.ResponseController, r *http.Request, c *call, res *http.Response) {
	removeNamed(res.Header, res.Header["Connection"])
	header := w.Header()
	// What the server said of itself would stand beside what the provider says.
	delete(header, "Server")
	delete(header, "Alt-Svc")
	header["Content-Type"] = nil // nobody guesses one
	for name, values := range res.Header {
		if !ofHop(name) {
			header[name] = values
		}
	}
	announced := announce(header, res.Trailer)
	if res.StatusCode == http.StatusNotModified {
		keepOf304(header)
	}
	closeAfter(header, r, c)
	w.WriteHeader(res.StatusCode)
	if !copyBody(w, rc, res) {
		return
	}
	if len(res.Trailer) == 0 {
		return
	}
	_ = rc.Flush() // keeps the server from finding a length, which rules trailers out
	removeOwn(res.Trailer)
	c.echo.header(res.Trailer)
	for name, values := range res.Trailer {
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		header[name] = values
	}
}

// keepOf304 keeps the type and the length of what is not sent again (RFC 9110
// section 15.4.5): net/http drops them from a 304, by their usual names.
func keepOf304(header http.Header) {
	if _, err := strconv.ParseUint(header.Get("Content-Length"), 10, 63); err == nil {
		header["content-length"] = header["Content-Length"]
	}
	if values := header["Content-Type"]; values != nil {
		header["content-type"] = values
	}
	delete(header, "Content-Length")
	delete(header, "Content-Type")
}

// announce says in header which trailers will come, and returns them.
func announce(header, trailer http.Header) (names []string) {
	if len(trailer) == 0 { // nearly always
		return nil
	}
	removeOwn(trailer)
	if names = slices.Sorted(maps.Keys(trailer)); len(names) > 0 {
		header["Trailer"] = []string{strings.Join(names, ", ")}
	}
	return names
}

// closeAfter has an HTTP/1 connection closed after the answer if the app's
// body is not at its end: what is left of it must never be taken for a request.
func closeAfter(header http.Header, r *http.Request, c *call) {
	if r.ProtoMajor == 1 && !c.body.ended() {
		header["Connection"] = []string{"close"}
	}
}

// copyBody copies the body as it comes. It reports false if the app is gone,
// and panics if the upstream broke off.
func copyBody(w http.ResponseWriter, rc *http.ResponseController, res *http.Response) bool {
	left := res.ContentLength
	if left < 0 || left > copyBuffer {
		_ = rc.Flush() // the header does not wait for the body
	}
	var in window
	defer in.free()
	if !isEvents(res.Header) {
		in.widen() // most answers come whole
	}
	for {
		n, err := res.Body.Read(in.bytes())
		if n > 0 {
			if _, err := w.Write(in.bytes()[:n]); err != nil {
				return false
			}
			left -= int64(n)
		}
		switch {
		case err == io.EOF:
			return true
		case err != nil:
			panic(http.ErrAbortHandler)
		case n > 0 && left != 0:
			_ = rc.Flush()
			in.fit(n)
		}
	}
}

// maxInterim bounds the answers that come before the final one. A provider that
// shows its progress that way sends a few; one that sends them for ever would
// otherwise hold its caller for ever.
const maxInterim = 100

// errInterimFlood is an upstream that sends too many of them.
var errInterimFlood = errors.New("upstream sends interim answers without end")

// interim passes on the answers that come before the final one.
type interim struct {
	w         http.ResponseWriter
	c         *call
	keepLinks bool

	mu    sync.Mutex // guards what follows, and w until done
	done  bool
	count int
}

// withInterim returns the context of c with which the transport passes on to w
// what comes before the final answer.
func (c *call) withInterim(w http.ResponseWriter, keepLinks bool) context.Context {
	c.early = interim{w: w, c: c, keepLinks: keepLinks}
	c.trace.Got1xxResponse = c.early.pass
	return httptrace.WithClientTrace(c.in.Context(), &c.trace)
}

// pass is the hook of the transport's goroutine. A 100 is not passed on: the
// server says it itself as soon as the upstream wants the body. HTTP/1.0 knows
// no interim answers (RFC 9110 section 15.2).
func (i *interim) pass(code int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.count++; i.count > maxInterim {
		return errInterimFlood
	}
	if i.done || code == http.StatusContinue || !i.c.in.ProtoAtLeast(1, 1) {
		return nil
	}
	h := http.Header(header)
	removeOwn(h)
	removeHop(h)
	i.c.echo.header(h)
	if !i.keepLinks {
		i.c.turnBack(h)
	}
	own := i.w.Header()
	saved := maps.Clone(own)
	clear(own)
	maps.Copy(own, h)
	i.w.WriteHeader(code)
	clear(own)
	maps.Copy(own, saved)
	return nil
}

// stop waits for an interim answer that is being passed on, and lets no other.
func (i *interim) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.done = true
}
