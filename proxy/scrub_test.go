package proxy_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// oddToken has what the encodings write in another way.
const oddToken = "canary/tok+en=~_-.1"

func scrubbing(c *proxy.Config, _ *proxy.Upstream) { c.Scrub = true }

// newScrubRig puts a proxy that masks before an upstream that writes pieces,
// each by itself.
func newScrubRig(t *testing.T, contentType string, pieces ...string) *rig {
	t.Helper()
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "Bearer "+oddToken {
			t.Errorf("upstream got Authorization %q", req.Header.Get("Authorization"))
		}
		if got := req.Header.Values("Accept-Encoding"); len(got) > 0 {
			t.Errorf("upstream got Accept-Encoding %q", got)
		}
		w.Header().Set("Content-Type", contentType)
		for _, p := range pieces {
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
		}
	}, scrubbing)
	r.grants.set(func(g *tokenstore.Grant) { g.Token.AccessToken = secret.New(oddToken) })
	return r
}

func (r *rig) get(t *testing.T) (*http.Response, string) {
	t.Helper()
	req := r.request(t, "GET", "/x", nil)
	req.Header.Set("Accept-Encoding", "gzip, br")
	return r.do(t, req)
}

func stars(s string) string { return strings.Repeat("*", len(s)) }

func TestA113EchoesInText(t *testing.T) {
	slash := strings.NewReplacer("/", `\/`).Replace(oddToken)
	lower := strings.NewReplacer("/", `\u002f`, "+", `\u002b`, "=", `\u003d`).Replace(oddToken)
	upper := strings.NewReplacer("/", `\u002F`, "+", `\u002B`).Replace(oddToken)
	lowerURL := strings.ToLower(url.QueryEscape(oddToken))
	for name, form := range map[string]string{
		"as it is": oddToken, "URL-encoded": url.QueryEscape(oddToken), "URL-encoded in lower case": lowerURL,
		"JSON": slash, "JSON escapes": lower, "JSON escapes in capitals": upper,
	} {
		text := "token: " + form + ", Bearer " + form + form + `{"a":"` + form + `"}` + oddToken[:10]
		want := "token: " + stars(form) + ", Bearer " + stars(form+form) + `{"a":"` + stars(form) + `"}` + oddToken[:10]
		t.Run(name, func(t *testing.T) {
			if _, got := newScrubRig(t, "text/html; charset=utf-8", text).get(t); got != want {
				t.Errorf("answer\n%s\nwant\n%s", got, want)
			}
		})
	}
	t.Run("base64 at any offset", func(t *testing.T) {
		for _, before := range []string{"", "a", "ab", "user:"} {
			for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
				text := enc.EncodeToString([]byte(before + oddToken + "after"))
				_, got := newScrubRig(t, "application/json", `{"v":"`+text+`"}`).get(t)
				shown := strings.TrimSuffix(strings.TrimPrefix(got, `{"v":"`), `"}`)
				if len(shown) != len(text) || strings.Count(shown, "*") < len(oddToken) {
					t.Errorf("%q came as %q", text, shown)
				}
			}
		}
	})
	t.Run("cut anywhere", func(t *testing.T) {
		text := "x" + url.QueryEscape(oddToken) + "yz" + slash + oddToken + "ca"
		want := "x" + stars(url.QueryEscape(oddToken)) + "yz" + stars(slash+oddToken) + "ca"
		var cut int
		r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, text[:cut])
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, text[cut:])
		}, scrubbing)
		r.grants.set(func(g *tokenstore.Grant) { g.Token.AccessToken = secret.New(oddToken) })
		for cut = range len(text) {
			if _, got := r.get(t); got != want {
				t.Errorf("cut at %d: %q, want %q", cut, got, want)
			}
		}
		if _, got := newScrubRig(t, "text/plain", strings.Split(text, "")...).get(t); got != want {
			t.Errorf("byte by byte: %q, want %q", got, want)
		}
	})
	t.Run("counted, not told", func(t *testing.T) {
		r := newScrubRig(t, "text/plain", oddToken+" "+oddToken)
		r.get(t)
		if !strings.Contains(r.logged.String(), `"tokens_masked":2`) || strings.Contains(r.logged.String(), oddToken) {
			t.Errorf("log: %s", r.logged.String())
		}
	})
}

func TestWhatIsScrubbed(t *testing.T) {
	for contentType, masked := range map[string]bool{
		"text/plain": true, "TEXT/Html;charset=x": true, "application/json": true, "application/problem+json": true,
		"application/atom+xml": true, "application/xml": true, "application/x-www-form-urlencoded": true, "application/javascript": true,
		"text/event-stream": true, "image/svg+xml": true, "application/yaml": true, "application/x-javascript": true,
		"text/html; charset=utf-8; charset=utf-8": true, `text/html; charset="utf-8`: true, "application/json; charset=": true,
		"application/json;;": true, "application/json, application/json": true,
		"application/octet-stream": false, "image/png": false, "application/zip": false, "application/jsonp": false,
	} {
		if _, got := newScrubRig(t, contentType, "<"+oddToken+">").get(t); (got == "<"+stars(oddToken)+">") != masked || len(got) != len(oddToken)+2 {
			t.Errorf("%s: %q, want masked %v", contentType, got, masked)
		}
	}
	t.Run("compressed is passed as it is", func(t *testing.T) {
		r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, token(1))
		}, scrubbing)
		if _, got := r.get(t); got != token(1) {
			t.Errorf("answer %q", got)
		}
	})
	t.Run("without a type, or in an encoding that is none", func(t *testing.T) {
		for _, head := range []http.Header{
			{"Content-Type": nil},
			{"Content-Type": {""}},
			{"Content-Type": {"text/html"}, "Content-Encoding": {"identity"}},
			{"Content-Type": {"text/html"}, "Content-Encoding": {""}},
		} {
			r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
				maps.Copy(w.Header(), head)
				_, _ = io.WriteString(w, token(1))
			}, scrubbing)
			if _, got := r.get(t); got != stars(token(1)) {
				t.Errorf("%v: %q", head, got)
			}
		}
	})
	t.Run("the first MiB", func(t *testing.T) {
		text := strings.Repeat("x", 1<<20-len(oddToken)) + oddToken + oddToken
		want := strings.Repeat("x", 1<<20-len(oddToken)) + stars(oddToken) + oddToken
		_, got := newScrubRig(t, "text/plain", text).get(t)
		if got != want {
			t.Errorf("%d bytes, %d stars", len(got), strings.Count(got, "*"))
		}
	})
	t.Run("not one that is in innocent words", func(t *testing.T) {
		r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "the weather is fine")
		}, scrubbing)
		r.grants.set(func(g *tokenstore.Grant) { g.Token.AccessToken = secret.New("weather") })
		if _, got := r.get(t); got != "the weather is fine" {
			t.Errorf("answer %q", got)
		}
	})
	t.Run("off by default", func(t *testing.T) {
		r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("X-Echo", req.Header.Get("Authorization"))
			_, _ = fmt.Fprint(w, req.Header["Accept-Encoding"], token(1))
		})
		if res, got := r.get(t); got != "[gzip, br]"+token(1) || res.Header.Get("X-Echo") != "Bearer "+token(1) {
			t.Errorf("answer %q", got)
		}
	})
}

// A backslash that stands for itself stays whole, whatever comes behind it.
func TestScrubLeavesJSONValid(t *testing.T) {
	got, err := proxy.Mask("gho_0123456789", []byte(`{"p":"C:\\gho_0123456789"}`))
	if want := `{"p":"C:\\**************"}`; err != nil || string(got) != want {
		t.Errorf("masked = %s, %v; want %s", got, err, want)
	}
}

// Headers, interim answers and trailers; the length stays; a replay sends two
// tokens.
func TestA113EchoesInHeaders(t *testing.T) {
	address, _ := rawUpstream(t, "HTTP/1.1 103 Early Hints\r\nLink: </x?t="+token(1)+">\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\nX-Echo: Bearer "+token(1)+"\r\nX-Echo: none\r\n"+
		"Location: /y?"+token(1)+"\r\n\r\n5\r\n{\"a\":\r\n0\r\nX-End: "+token(1)+"!\r\n\r\n")
	r := newRigFor(t, address, scrubbing)
	conn, reader := r.dial(t)
	if _, err := io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+slotLine+"\r\n"); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	masked := stars(token(1))
	if strings.Contains(string(all), token(1)) || strings.Count(string(all), masked) != 4 ||
		!strings.Contains(string(all), "X-Echo: Bearer "+masked+"\r\nX-Echo: none\r\n") || !strings.Contains(string(all), "X-End: "+masked+"!") {
		t.Errorf("answer:\n%s", all)
	}

	t.Run("both tokens of a replay", func(t *testing.T) {
		r := newRig(t, revoked(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Echo", token(1)+","+token(2))
			_, _ = io.WriteString(w, token(2)+" "+token(1))
		}), scrubbing)
		res, got := r.get(t)
		if want := masked + " " + masked; got != want || res.Header.Get("X-Echo") != masked+","+masked || res.ContentLength != int64(len(want)) {
			t.Errorf("answer %q, X-Echo %q, length %d", got, res.Header.Get("X-Echo"), res.ContentLength)
		}
	})
}

// Only what may be a token's beginning waits for what comes next.
func TestScrubbedStreamsStayLive(t *testing.T) {
	read, done := make(chan bool), make(chan bool)
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, event := range []string{"data: one\n\n", "data: two " + token(1)[:5] + "\n\n"} {
			_, _ = io.WriteString(w, event)
			_ = http.NewResponseController(w).Flush()
			<-read
		}
		close(done)
	}, scrubbing)
	res, err := r.client.Do(r.request(t, "GET", "/x", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for _, event := range []string{"data: one\n\n", "data: two " + token(1)[:5] + "\n\n"} {
		got := make([]byte, len(event))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != event {
			t.Errorf("event %q, %v", got, err)
		}
		read <- true
	}
	<-done
}

// A text that is made to cost time is passed on in a bounded one.
func TestScrubIsBounded(t *testing.T) {
	long := strings.Repeat("a", 4096)
	text := strings.Repeat(long[1:]+"b", 256)
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, text)
	}, scrubbing)
	r.grants.set(func(g *tokenstore.Grant) { g.Token.AccessToken = secret.New(long) })
	if _, got := r.get(t); got != text {
		t.Errorf("%d bytes, want %d", len(got), len(text))
	}
}
