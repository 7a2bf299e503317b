package proxy_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
)

func TestWebSocket(t *testing.T) {
	chat := func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			t.Errorf("accepting: %v", err)
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(1 << 21)
		for {
			kind, message, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			_ = conn.Write(r.Context(), kind, message)
		}
	}
	for name, upstream := range map[string]http.HandlerFunc{"at once": chat, "after a 401": revoked(chat)} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, upstream)
			conn, res, err := websocket.Dial(t.Context(), r.proxy.URL+"/ws", &websocket.DialOptions{
				HTTPClient: r.client, Subprotocols: []string{"chat"},
				HTTPHeader: http.Header{"Authorization": {"Bearer " + clientKey + "." + connID}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseNow()
			if conn.Subprotocol() != "chat" || res.Header.Get("Server") != "" {
				t.Errorf("handshake = %v", res.Header)
			}
			conn.SetReadLimit(1 << 21)
			for _, message := range [][]byte{[]byte("hello"), noise(1 << 20)} {
				if err := conn.Write(t.Context(), websocket.MessageBinary, message); err != nil {
					t.Fatal(err)
				}
				if _, got, err := conn.Read(t.Context()); err != nil || !bytes.Equal(got, message) {
					t.Errorf("echo of %d bytes = %d bytes, %v", len(message), len(got), err)
				}
			}
			if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Errorf("closing: %v", err)
			}
		})
	}
}

// tunnelled returns a tunnel through r to an upstream that echoes.
func tunnelled(t *testing.T, r *rig) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, reader := r.dial(t)
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"+
		"Authorization: Bearer "+clientKey+"."+connID+"\r\n\r\n")
	res, err := http.ReadResponse(reader, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || len(res.Header["Authorization"]) > 0 {
		t.Fatalf("answer = %v, %v", res, err)
	}
	wantEcho(t, conn, reader)
	return conn, reader
}

func wantEcho(t *testing.T, conn net.Conn, reader *bufio.Reader) {
	t.Helper()
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := reader.ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("echo = %q, %v", line, err)
	}
}

// switching is an upstream that switches to a protocol of lines that come back.
// It tells on ended when a connection has.
func switching(t *testing.T, ended chan<- bool) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { ended <- true }()
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, rw.Reader)
	}
}

func TestA102TunnelsEndWithTheConnection(t *testing.T) {
	ended := make(chan bool, 10)
	r := newRig(t, switching(t, ended))
	conn, reader := tunnelled(t, r)
	r.grants.end(otherID)
	wantEcho(t, conn, reader)
	r.grants.end(connID)
	if _, err := reader.ReadByte(); err == nil {
		t.Error("the app's end is still open")
	}
	<-ended // the provider's, too
}

// A reload leaves the tunnels whose key may have them still.
func TestA102TunnelsAndReloads(t *testing.T) {
	key := func(name, value string) proxy.Client {
		return proxy.Client{Key: guard.Key{Name: name, Value: secret.New(value)}}
	}
	limit := func(c proxy.Client, paths ...string) proxy.Client {
		c.Paths = paths
		return c
	}
	tests := []struct {
		name string
		kept []proxy.Client
		ends bool
	}{
		{"the same", []proxy.Client{key("app", clientKey)}, false},
		{"another name", []proxy.Client{key("new", clientKey)}, false},
		{"another key", []proxy.Client{key("app", wrongKey)}, true},
		{"limited otherwise", []proxy.Client{limit(key("app", clientKey), "/admin")}, true},
		{"limited to it", []proxy.Client{limit(key("app", clientKey), "/ws")}, false},
		{"nobody", nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ended := make(chan bool, 10)
			server := httptest.NewServer(switching(t, ended))
			t.Cleanup(server.Close)
			cfg, r := newConfig(t, server.URL)
			h, err := proxy.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			r.serve(t, h)
			conn, reader := tunnelled(t, r)
			h.EndTunnels(tt.kept)
			if tt.ends {
				if _, err := reader.ReadByte(); err == nil {
					t.Error("the tunnel goes on")
				}
				<-ended
			} else {
				wantEcho(t, conn, reader)
			}
			// Nor does a request that was under way get one that ends.
			conn, reader = r.dial(t)
			_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"+slotLine+"\r\n")
			if res, err := http.ReadResponse(reader, nil); (err == nil && res.StatusCode == http.StatusSwitchingProtocols) == tt.ends {
				t.Errorf("a late tunnel: %v, %v", res, err)
			}
			h.EndTunnels(nil)
		})
	}
}

// A request for a tunnel that is under way at one reload is known to the next.
func TestA102TunnelsUnderWayAtAReload(t *testing.T) {
	came, goOn := make(chan bool), make(chan bool)
	ended := make(chan bool, 10)
	switches := switching(t, ended)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came <- true
		<-goOn
		switches(w, r)
	}))
	t.Cleanup(server.Close)
	cfg, r := newConfig(t, server.URL)
	h, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.serve(t, h)
	conn, reader := r.dial(t)
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"+slotLine+"\r\n")
	<-came
	if n := h.EndTunnels(cfg.Clients); n != 1 {
		t.Errorf("%d tunnels may go on or come, want the one that is asked for", n)
	}
	close(goOn)
	if res, err := http.ReadResponse(reader, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the tunnel did not come: %v, %v", res, err)
	}
	if n := h.EndTunnels(nil); n != 0 {
		t.Errorf("%d tunnels go on without their key", n)
	}
	<-ended
}

// One direction of a tunnel can end before the other.
func TestTunnelHalfClosed(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: all\r\n\r\n")
		all, err := io.ReadAll(rw.Reader)
		if err != nil {
			t.Errorf("the app's end does not arrive: %v", err)
		}
		_, _ = conn.Write(all)
	})
	conn, reader := r.dial(t)
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: all\r\n"+slotLine+"\r\nearly, ")
	res, err := http.ReadResponse(reader, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer = %v, %v", res, err)
	}
	large := noise(1 << 20)
	_, _ = conn.Write(large)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, append([]byte("early, "), large...)) {
		t.Errorf("after its end the app got %d bytes, %v; want %d", len(got), err, len("early, ")+len(large))
	}
}

// A switch that the upstream refuses is an answer like any other.
func TestRefusedUpgrade(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusUpgradeRequired) })
	res := r.raw(t, "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+slotLine+"\r\n")
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusUpgradeRequired || string(body) != "no\n" {
		t.Errorf("answer = %d %q", res.StatusCode, body)
	}
}
