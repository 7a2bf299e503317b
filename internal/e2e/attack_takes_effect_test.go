package e2e_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestAttackTakesEffect goes on calling while what the calls need is taken away.
func TestAttackTakesEffect(t *testing.T) {
	key := "leaverskey" + rand.Text() + rand.Text()
	t.Setenv("LEAVER_KEY", key)
	const client = "client leaver {env.LEAVER_KEY}"
	a := newAttacked(t, client, "")
	a.secrets = append(a.secrets, key)
	deleted, revoked := a.connect("u2"), a.connect("u3")
	for _, tt := range []struct {
		name, key, id string
		away          func()
		statuses      []int
	}{
		{"A078 a connection is deleted", a.clientKey, deleted, func() { a.must(t, http.MethodDelete, "/v1/connections/"+deleted) }, []int{http.StatusNotFound}},
		{"A078 a connection is revoked", a.clientKey, revoked, func() { a.must(t, http.MethodPost, "/v1/connections/"+revoked+"/revoke") }, []int{http.StatusFailedDependency}},
		{"A078 a key is taken out", key, a.fakeID, func() {
			a.site.Extra = strings.Replace(a.site.Extra, client, "", 1)
			if err := a.reload(); err != nil {
				t.Fatal(err)
			}
		}, []int{http.StatusUnauthorized, http.StatusTooManyRequests}},
	} {
		a.in(t, tt.name, func(t *testing.T) {
			sockets := []*websocket.Conn{a.socket(t, tt.key, tt.id), a.socket(t, a.clientKey, a.fakeID)}
			revocations := len(a.fake.Ledger().Revocations)
			a.callUntil(t, tt.key, tt.id, tt.away, tt.statuses)
			if strings.Contains(tt.name, "connection") {
				a.eventually("the provider is told", func() error { return atLeast(len(a.fake.Ledger().Revocations), revocations+1) })
			}
			gone := time.Now()
			if _, _, err := sockets[0].Read(a.ctx()); err == nil {
				t.Error("the socket says something")
			} else if took := time.Since(gone); took > time.Second {
				t.Errorf("A102 the tunnel was open for %v", took)
			}
			if err := a.echo(sockets[1]); err != nil {
				t.Errorf("a tunnel of another connection ended: %v", err)
			}
		})
	}
	if got := a.call(a.fakeID, "/me"); got.Status != http.StatusOK {
		t.Errorf("what was not taken away: HTTP %d: %s", got.Status, got.Body)
	}
}

// TestAttackTakesEffectOnKeptTunnels: a tunnel that one reload has kept ends with
// a later one that takes its key.
func TestAttackTakesEffectOnKeptTunnels(t *testing.T) {
	key := "leaverskey" + rand.Text() + rand.Text()
	t.Setenv("LEAVER_KEY", key)
	const client = "client leaver {env.LEAVER_KEY}"
	a := newAttacked(t, client, "")
	a.secrets = append(a.secrets, key)
	a.in(t, "A102 a key is taken out by the second reload", func(t *testing.T) {
		leaver, other := a.socket(t, key, a.fakeID), a.socket(t, a.clientKey, a.fakeID)
		if err := a.reload(); err != nil { // nothing changes
			t.Fatal(err)
		}
		if err := a.echo(leaver); err != nil {
			t.Fatalf("the first reload: %v", err)
		}
		a.site.Extra = strings.Replace(a.site.Extra, client, "", 1)
		if err := a.reload(); err != nil {
			t.Fatal(err)
		}
		gone := time.Now()
		if _, _, err := leaver.Read(a.ctx()); err == nil {
			t.Error("the socket says something")
		} else if took := time.Since(gone); took > time.Second {
			t.Errorf("the tunnel was open for %v", took)
		}
		if err := a.echo(other); err != nil {
			t.Errorf("the tunnel of another key ended: %v", err)
		}
	})
}

// callUntil calls from 4 sides, 100 times a second or more, does away, and goes
// on for a while. No call that begins a second after it may come through.
func (a *attacked) callUntil(t *testing.T, key, id string, away func(), after []int) {
	t.Helper()
	var (
		wg           sync.WaitGroup
		stop         atomic.Bool
		gone         atomic.Int64 // when away had been done, in Unix nanoseconds; 0: not yet
		before, late atomic.Int32
	)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.proxyURL("/me"), nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Lanyard-Key", key)
				req.Header.Set("Connection-Id", id)
				since := gone.Load()
				begun := time.Now()
				res, err := client.Do(req)
				if err != nil {
					continue // a reload closes connections
				}
				_ = res.Body.Close()
				switch {
				case since == 0 && res.StatusCode == http.StatusOK:
					before.Add(1)
				case since != 0 && res.StatusCode == http.StatusOK && begun.After(time.Unix(0, since).Add(time.Second)):
					t.Errorf("%v later a call came through", begun.Sub(time.Unix(0, since)))
					return
				case since != 0 && begun.After(time.Unix(0, since).Add(time.Second)):
					late.Add(1)
					if !slices.Contains(after, res.StatusCode) {
						t.Errorf("HTTP %d, want %v", res.StatusCode, after)
						return
					}
				}
				time.Sleep(10 * time.Millisecond) // 100 a second each
			}
		})
	}
	defer func() {
		stop.Store(true)
		wg.Wait()
	}()
	a.eventually("calls come through", func() error { return atLeast(int(before.Load()), 20) })
	away()
	gone.Store(time.Now().UnixNano())
	a.eventually("calls are refused", func() error { return atLeast(int(late.Load()), 20) })
}

// socket opens a WebSocket over a connection.
func (a *attacked) socket(t *testing.T, key, id string) *websocket.Conn {
	t.Helper()
	c, res, err := websocket.Dial(a.ctx(), a.proxyURL("/ws"), &websocket.DialOptions{HTTPHeader: http.Header{"Lanyard-Key": {key}, "Connection-Id": {id}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range res.Header {
		if strings.Contains(fmt.Sprint(values), "fp_") {
			t.Errorf("A102 the answer to the handshake tells the token: %s", name)
		}
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	if err := a.echo(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// echo sends a word through a socket and back.
func (a *attacked) echo(c *websocket.Conn) error {
	if err := c.Write(a.ctx(), websocket.MessageText, []byte("word")); err != nil {
		return err
	}
	_, got, err := c.Read(a.ctx())
	if err == nil && string(got) != "word" {
		err = errors.New("not an echo: " + string(got))
	}
	return err
}
