package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

const (
	manyIdle = 200 // of each sort
	manyBusy = 50  // of each sort
	manySlow = 300
)

// Many streams that say nothing, some that always talk, and many calls that
// wait: a reload takes nothing from any of them, and they leave nothing behind.
func TestManyStreamsThroughAReload(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	if err := w.wantCall(id, http.StatusOK); err != nil {
		t.Fatal(err)
	}
	before, files := w.goroutines(), w.openFiles()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := &many{w: w, id: id, ctx: ctx, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}}
	var calm, busy, slow sync.WaitGroup
	for range manyIdle {
		m.begin(&calm, m.silentEvents)
		m.begin(&calm, m.silentSocket)
	}
	for range manyBusy {
		m.begin(&busy, m.busyEvents)
		m.begin(&busy, m.busySocket)
	}
	m.opening.Wait()
	release := make(chan struct{})
	w.fake.Faults.API(fakeprovider.Hold(release).Times(manySlow))
	for range manySlow {
		slow.Go(func() {
			if err := m.call(); err != nil {
				t.Errorf("a slow call: %v", err)
			}
		})
	}
	w.eventually("all slow calls are under way", func() error { return atLeast(-w.fake.Faults.APILeft(), 0) })

	w.whileCalling(id, func() {
		if err := w.reload(); err != nil {
			t.Error(err)
		}
	})
	close(release)
	slow.Wait()
	m.reloaded.Store(true)
	busy.Wait()
	m.over.Store(true)
	cancel()
	calm.Wait()
	m.client.CloseIdleConnections()
	w.eventually("nothing is left of them", func() error {
		if n := w.goroutines(); n > before+40 { // idle connections of both sides, and what a reload begins
			return fmt.Errorf("%d goroutines, %d before", n, before)
		}
		if n := w.openFiles(); n > files+20 {
			return fmt.Errorf("%d files, %d before", n, files)
		}
		return nil
	})
}

// many opens streams and watches them.
type many struct {
	w       *world
	id      string
	ctx     context.Context //nolint:containedctx // the life of the streams
	client  *http.Client
	opening sync.WaitGroup
	// reloaded is set after the reload; over when the silent ones may end.
	reloaded, over atomic.Bool
}

// begin runs a stream, which says when it is open.
func (m *many) begin(group *sync.WaitGroup, stream func(open func()) error) {
	m.opening.Add(1)
	group.Go(func() {
		open := sync.OnceFunc(m.opening.Done)
		defer open()
		if err := stream(open); err != nil && !m.over.Load() {
			m.w.t.Errorf("a stream: %v", err)
		}
	})
}

func (m *many) call() error {
	res, err := m.get("/me")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func (m *many) get(path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(m.ctx, http.MethodGet, m.w.proxyURL(path), nil)
	if err != nil {
		return nil, err
	}
	m.w.name(req, m.id)
	res, err := m.client.Do(req)
	if err == nil && res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		err = errors.New(res.Status)
	}
	return res, err
}

// silentEvents waits for a second event, which does not come.
func (m *many) silentEvents(open func()) error {
	return m.events("/events?count=2&interval=1h", 2, open)
}

func (m *many) busyEvents(open func()) error {
	return m.events("/events?count=100&interval=50ms", 100, open)
}

// events reads events, which come in order.
func (m *many) events(path string, count int, open func()) error {
	res, err := m.get(path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got := 0
	for in := bufio.NewScanner(res.Body); in.Scan(); {
		var n int
		if _, err := fmt.Sscanf(in.Text(), "data: event %d", &n); err != nil {
			continue
		}
		if got++; n != got {
			return fmt.Errorf("event %d came where %d should", n, got)
		}
		open()
	}
	if got != count {
		return fmt.Errorf("%d of %d events", got, count)
	}
	return nil
}

func (m *many) dial() (*websocket.Conn, error) {
	conn, _, err := websocket.Dial(m.ctx, m.w.proxyURL("/ws"), &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + m.w.clientKey + "." + m.id}},
	})
	return conn, err
}

// silentSocket waits for a message, which does not come.
func (m *many) silentSocket(open func()) error {
	conn, err := m.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	open()
	_, _, err = conn.Read(m.ctx)
	return err
}

// busySocket has messages echoed until some came after the reload.
func (m *many) busySocket(open func()) error {
	conn, err := m.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n, after := 0, 0; after < 3; n++ {
		if m.reloaded.Load() {
			after++
		}
		message := strconv.Itoa(n)
		if err := conn.Write(m.ctx, websocket.MessageText, []byte(message)); err != nil {
			return err
		}
		if _, got, err := conn.Read(m.ctx); err != nil || string(got) != message {
			return fmt.Errorf("message %d came back as %q: %w", n, got, err)
		}
		open()
		<-tick.C
	}
	return conn.Close(websocket.StatusNormalClosure, "")
}

var goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)

// goroutines returns how many the child has.
func (w *world) goroutines() int {
	w.t.Helper()
	_, b, err := w.admin(w.ctx(), "/debug/pprof/goroutine?debug=1")
	found := goroutineTotal.FindSubmatch(b)
	if err != nil || found == nil {
		w.t.Fatalf("the admin API tells no goroutines: %v, %.100q", err, b)
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}
