package fakeprovider_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

func TestAPIChecksTheToken(t *testing.T) {
	c := start(t, nil)
	if resp, _ := c.get("/api/me", ""); resp.StatusCode != http.StatusUnauthorized || strings.Contains(resp.Header.Get("WWW-Authenticate"), "error") {
		t.Errorf("without a token: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := c.get("/api/me", "fp_at_no"); resp.StatusCode != http.StatusUnauthorized || !strings.Contains(resp.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("with a wrong token: %d %v", resp.StatusCode, resp.Header)
	}
	tok := c.connect()
	if resp, _ := c.get("/api/scope/read", tok.Access); resp.StatusCode != http.StatusOK {
		t.Errorf("scope read: %d", resp.StatusCode)
	}
	if resp, _ := c.get("/api/scope/admin", tok.Access); resp.StatusCode != http.StatusForbidden || !strings.Contains(resp.Header.Get("WWW-Authenticate"), `error="insufficient_scope"`) {
		t.Errorf("scope admin: %d %v", resp.StatusCode, resp.Header)
	}
	l := c.s.Ledger()
	if n := l.Calls[fakeprovider.Call{Method: "GET", Path: "/api/me", Status: 401}]; n != 2 {
		t.Errorf("calls: %v", l.Calls)
	}
}

func TestAPIPages(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	next, pages, items := "/api/items", 0, 0
	for next != "" && pages < 5 {
		resp, body := c.get(next, tok.Access)
		var list []struct{ ID int }
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatalf("%s: %s", next, body)
		}
		pages, items, next = pages+1, items+len(list), ""
		for link := range strings.SplitSeq(resp.Header.Get("Link"), ", ") {
			if to, ok := strings.CutSuffix(link, `>; rel="next"`); ok {
				next = strings.TrimPrefix(to, "<"+c.url)
			}
		}
	}
	if pages != 3 || items != 30 {
		t.Errorf("%d pages with %d items", pages, items)
	}
}

func TestAPISeesTheRequestAsSent(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	_, body := c.get("/api/raw//a%2Fb/../x?a;b=%zz&a=", tok.Access)
	var got fakeprovider.Seen
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if got.Path != "/api/raw//a%2Fb/../x" || got.Query != "a;b=%zz&a=" || !got.HasQuery || got.Header.Get("Authorization") != "Bearer [masked]" {
		t.Errorf("seen: %+v", got)
	}
	resp, body := c.get("/api/status/418?body=tea&header=X-A:+1&header=X-A:2", tok.Access)
	if resp.StatusCode != http.StatusTeapot || body != "tea" || strings.Join(resp.Header["X-A"], ",") != "1,2" {
		t.Errorf("status: %d %q %v", resp.StatusCode, body, resp.Header)
	}
	resp, _ = c.get("/api/trailers", tok.Access)
	if resp.Trailer.Get("X-Sum") != "sum" {
		t.Errorf("trailers: %v", resp.Trailer)
	}
}

func TestAPIBodies(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	const size = 3<<20 + 17
	send := func(path string) (*http.Response, []byte) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+path, io.MultiReader(fakeprovider.Pattern(size)))
		req.Header.Set("Authorization", "Bearer "+tok.Access)
		req.Header.Set("Content-Type", "application/x-thing")
		resp, err := c.c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, b
	}
	sum := sha256.New()
	_, _ = io.Copy(sum, fakeprovider.Pattern(size))
	want := hex.EncodeToString(sum.Sum(nil))
	if _, b := send("/api/upload"); !strings.Contains(string(b), want) || !strings.Contains(string(b), fmt.Sprintf(`"bytes":%d`, size)) {
		t.Errorf("upload: %s", b)
	}
	resp, b := send("/api/echo")
	if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != want || resp.Header.Get("Content-Type") != "application/x-thing" {
		t.Errorf("echo: %d bytes, %v", len(b), resp.Header)
	}
	_, down := c.get(fmt.Sprintf("/api/download?bytes=%d", size), tok.Access)
	if got := sha256.Sum256([]byte(down)); hex.EncodeToString(got[:]) != want {
		t.Errorf("download: %d bytes, another sum", len(down))
	}
}

func TestAPIRefusesWithoutReadingTheBody(t *testing.T) {
	c := start(t, nil)
	body, feed := io.Pipe()
	// And no more, but for a server that waits for the whole body.
	defer time.AfterFunc(5*time.Second, func() { feed.Close() }).Stop()
	defer feed.Close()
	go func() { _, _ = feed.Write(make([]byte, 1000)) }()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/api/upload", body)
	req.Header.Set("Authorization", "Bearer fp_at_no")
	resp, err := c.c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestAPIStreams(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	resp, body := c.get("/api/events?count=3&interval=1ms", tok.Access)
	if resp.Header.Get("Content-Type") != "text/event-stream" || strings.Count(body, "event: tick") != 3 {
		t.Errorf("events: %v %q", resp.Header, body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ws, _, err := websocket.Dial(ctx, strings.Replace(c.url, "http", "ws", 1)+"/api/ws", &websocket.DialOptions{
		HTTPClient: c.c, HTTPHeader: http.Header{"Authorization": {"Bearer " + tok.Access}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := ws.Read(ctx); err != nil || string(msg) != "hello" {
		t.Errorf("echo %q, %v", msg, err)
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	if n := c.s.Ledger().CallCount(http.StatusSwitchingProtocols); n != 1 {
		t.Errorf("%d calls with 101", n)
	}
}
