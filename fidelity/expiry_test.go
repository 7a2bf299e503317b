package fidelity_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"
)

// tokenLife is how long the token of wsPastExpiry lives: time enough to run the
// import, which is told of its end, and open a WebSocket with it, on a machine
// that runs all rows at once.
const tokenLife = 12 * time.Second

// expiring is an API and its token endpoint, which gives another token.
type expiring struct {
	refreshes atomic.Int32
	api       chan *end   // gets the API's end of each WebSocket
	opened    chan string // gets the Authorization it was opened with
}

const nextToken = "nexttoken-0123456789"

// ServeHTTP implements http.Handler.
func (x *expiring) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/token":
		x.refreshes.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token": %q, "token_type": "Bearer", "expires_in": 3600}`, nextToken)
	case "/socket":
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, switching(r))
		x.opened <- r.Header.Get("Authorization")
		x.api <- &end{Conn: conn, r: buffered.Reader}
	default:
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}
}

func wsPastExpiry(ctx context.Context, w *world) error {
	if w.proxy != "lanyard" {
		return errors.New(noTokens)
	}
	x := &expiring{api: make(chan *end, 1), opened: make(chan string, 1)}
	srv := httptest.NewServer(x)
	defer srv.Close()
	f, err := w.via(spec{URL: srv.URL, TokenURL: srv.URL + "/token", Life: tokenLife})
	if err != nil {
		return err
	}
	imported := time.Now() // or somewhat earlier
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", f.Addr)
	if err != nil {
		return err
	}
	deadlineOf(ctx, conn)
	p := &pair{app: &end{Conn: conn, r: bufio.NewReader(conn), app: true}}
	defer conn.Close()
	if _, err := io.WriteString(conn, ask{}.request(w, "/socket")); err != nil {
		return err
	}
	if p.answer, err = http.ReadResponse(p.app.r, nil); err != nil || p.answer.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("answer is %v, %w", p.answer, err)
	}
	p.api = <-x.api
	defer p.api.Close()
	deadlineOf(ctx, p.api)
	if got := <-x.opened; got != "Bearer "+token {
		return broken("the WebSocket was opened with another token: the machine is too slow")
	}
	time.Sleep(time.Until(imported.Add(tokenLife)))
	hello := frame{fin: true, op: opText, payload: []byte("still here")}
	if err := p.bothWays(hello); err != nil {
		return fmt.Errorf("past the expiry: %w", err)
	}
	call, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+"/call", nil)
	if err != nil {
		return broken("request: %w", err)
	}
	w.authorize(call.Header)
	res, err := h1.RoundTrip(call)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != "Bearer "+nextToken || x.refreshes.Load() != 1 {
		return fmt.Errorf("a call past the expiry is answered %s %q after %d refreshes, %w", res.Status, got, x.refreshes.Load(), err)
	}
	if err := p.bothWays(hello, frame{fin: true, op: opPing}, frame{fin: true, op: opBinary, payload: noise(1 << 20)}); err != nil {
		return fmt.Errorf("past the refresh: %w", err)
	}
	if err := frames(p.app, p.api, frame{fin: true, op: opClose, payload: closing(1000, "done")}); err != nil {
		return err
	}
	_ = p.api.Close()
	return wantEnd(p.app)
}
