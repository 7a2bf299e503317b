package provider_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// worded is the entry of some words, with its endpoints at base.
func worded(t *testing.T, base, words string) provider.Entry {
	t.Helper()
	text := `{"authorize_url":"BASE/authorize","token_url":"BASE/token","revoke_url":"BASE/revoke","api_url":"BASE/api","allow_private":true}`
	var all map[string]any
	for _, part := range []string{text, words} {
		if err := json.Unmarshal([]byte(strings.ReplaceAll(part, "BASE", base)), &all); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	e, err := provider.ParseEntry("acme.json", b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func wordedProvider(t *testing.T, base, words string, params map[string]string) *provider.Provider {
	t.Helper()
	p, err := provider.New(provider.Config{
		Entry: worded(t, base, words), ClientID: "id", ClientSecret: secret.New("pw"), Params: params,
		RedirectURI: "https://lanyard.example/callback/acme",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// onTheWire is a request, in short.
type onTheWire struct {
	At     string // method and path, the query sorted
	Basic  string // user:password
	Type   string // Content-Type
	Body   string
	Header string // the one that the test names
}

func wire(r *recorded, header string) onTheWire {
	path, query, found := strings.Cut(r.Path, "?")
	if values, err := url.ParseQuery(query); err == nil && found {
		path += "?" + values.Encode()
	}
	out := onTheWire{At: r.Method + " " + path, Type: r.Header.Get("Content-Type"), Body: r.Body, Header: r.Header.Get(header)}
	if r.User != "" {
		out.Basic = r.User + ":" + r.Password
	}
	return out
}

// Each provider's requests for a token, as its documentation shows them.
func TestTokenDialectsOnTheWire(t *testing.T) {
	const (
		form     = "application/x-www-form-urlencoded"
		asJSON   = "application/json"
		redirect = "https%3A%2F%2Flanyard.example%2Fcallback%2Facme"
		noPKCE   = `"authorize":{"pkce_off":"it is not in the documentation"},`
	)
	tests := []struct {
		name, words, header string
		params              map[string]string
		code, refresh       onTheWire
		exchange            onTheWire // of a provisional token
	}{
		{
			name:  "Notion: JSON and Basic",
			words: `{` + noPKCE + `"token":{"body":"json","headers":{"Notion-Version":"2022-06-28"}}}`, header: "Notion-Version",
			code:    onTheWire{"POST /token", "id:pw", asJSON, `{"code":"c","grant_type":"authorization_code","redirect_uri":"https://lanyard.example/callback/acme"}`, "2022-06-28"},
			refresh: onTheWire{"POST /token", "id:pw", asJSON, `{"grant_type":"refresh_token","refresh_token":"rt"}`, "2022-06-28"},
		},
		{
			name:    "TikTok: client_key",
			words:   `{` + noPKCE + `"client_auth":"post","token":{"rename":{"client_id":"client_key"}}}`,
			code:    onTheWire{"POST /token", "", form, "client_key=id&client_secret=pw&code=c&grant_type=authorization_code&redirect_uri=" + redirect, ""},
			refresh: onTheWire{"POST /token", "", form, "client_key=id&client_secret=pw&grant_type=refresh_token&refresh_token=rt", ""},
		},
		{
			name: "WeChat: GET, other names, another URL for refreshes",
			words: `{` + noPKCE + `"client_auth":"post","token":{"method":"GET","rename":{"client_id":"appid","client_secret":"secret"},"drop":["redirect_uri"]},
				"refresh":{"url":"BASE/sns/refresh","drop":["client_secret"]}}`,
			code:    onTheWire{"GET /token?appid=id&code=c&grant_type=authorization_code&secret=pw", "", "", "", ""},
			refresh: onTheWire{"GET /sns/refresh?appid=id&grant_type=refresh_token&refresh_token=rt", "", "", "", ""},
		},
		{
			name: "Basecamp: type in place of grant_type",
			words: `{` + noPKCE + `"client_auth":"post","token":{"params":{"type":"web_server"},"drop":["grant_type"],"headers":{"User-Agent":"Lanyard ({client_id})"}},
				"refresh":{"params":{"type":"refresh"}}}`, header: "User-Agent",
			code:    onTheWire{"POST /token", "", form, "client_id=id&client_secret=pw&code=c&redirect_uri=" + redirect + "&type=web_server", "Lanyard (id)"},
			refresh: onTheWire{"POST /token", "", form, "client_id=id&client_secret=pw&refresh_token=rt&type=refresh", "Lanyard (id)"},
		},
		{
			name: "Instagram: the short token is exchanged, the long one renewed with itself",
			words: `{` + noPKCE + `"client_auth":"post",
				"exchange":{"url":"BASE/graph/access_token","method":"GET","params":{"grant_type":"ig_exchange_token"},"drop":["client_id"]},
				"refresh":{"url":"BASE/graph/refresh_access_token","method":"GET","with":"access_token","params":{"grant_type":"ig_refresh_token"},"drop":["client_id","client_secret"]}}`,
			code:     onTheWire{"POST /token", "", form, "client_id=id&client_secret=pw&code=c&grant_type=authorization_code&redirect_uri=" + redirect, ""},
			refresh:  onTheWire{"GET /graph/refresh_access_token?access_token=rt&grant_type=ig_refresh_token", "", "", "", ""},
			exchange: onTheWire{"GET /graph/access_token?access_token=rt&client_secret=pw&grant_type=ig_exchange_token", "", "", "", ""},
		},
		{
			name: "Facebook: fb_exchange_token",
			words: `{` + noPKCE + `"client_auth":"post","token":{"method":"GET","drop":["grant_type"]},
				"exchange":{"params":{"grant_type":"fb_exchange_token"},"rename":{"access_token":"fb_exchange_token"},"drop":[]},
				"refresh":{"with":"access_token","params":{"grant_type":"fb_exchange_token"},"rename":{"access_token":"fb_exchange_token"},"drop":[]}}`,
			code:     onTheWire{"GET /token?client_id=id&client_secret=pw&code=c&redirect_uri=" + redirect, "", "", "", ""},
			refresh:  onTheWire{"GET /token?client_id=id&client_secret=pw&fb_exchange_token=rt&grant_type=fb_exchange_token", "", "", "", ""},
			exchange: onTheWire{"GET /token?client_id=id&client_secret=pw&fb_exchange_token=rt&grant_type=fb_exchange_token", "", "", "", ""},
		},
		{
			name:    "Withings: action",
			words:   `{` + noPKCE + `"client_auth":"post","token":{"params":{"action":"requesttoken"}}}`,
			code:    onTheWire{"POST /token", "", form, "action=requesttoken&client_id=id&client_secret=pw&code=c&grant_type=authorization_code&redirect_uri=" + redirect, ""},
			refresh: onTheWire{"POST /token", "", form, "action=requesttoken&client_id=id&client_secret=pw&grant_type=refresh_token&refresh_token=rt", ""},
		},
		{
			name:    "Stripe Apps: the secret key is the user name",
			words:   `{` + noPKCE + `"client_auth":"basic_secret"}`,
			code:    onTheWire{"POST /token", "pw:", form, "code=c&grant_type=authorization_code&redirect_uri=" + redirect, ""},
			refresh: onTheWire{"POST /token", "pw:", form, "grant_type=refresh_token&refresh_token=rt", ""},
		},
		{
			name:    "a parameter of the connection in a path and in a parameter",
			words:   `{` + noPKCE + `"params":{"tenant":{}},"token_url":"BASE/{tenant}/token?v=2","token":{"params":{"resource":"at {tenant}"},"body":"query"}}`,
			params:  map[string]string{"tenant": "acme"},
			code:    onTheWire{"POST /acme/token?code=c&grant_type=authorization_code&redirect_uri=" + redirect + "&resource=at+acme&v=2", "id:pw", "", "", ""},
			refresh: onTheWire{"POST /acme/token?grant_type=refresh_token&refresh_token=rt&resource=at+acme&v=2", "id:pw", "", "", ""},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t, answering(200, asJSON, okBody))
			p := wordedProvider(t, l.URL, tt.words, tt.params)
			if _, err := p.Exchange(t.Context(), secret.New("c"), secret.New("v"), nil); err != nil {
				t.Fatal(err)
			}
			tok := tokenstore.Token{AccessToken: secret.New("at"), RefreshToken: secret.New("rt")}
			if _, err := p.Refresh(t.Context(), tok); err != nil {
				t.Fatal(err)
			}
			want := []onTheWire{tt.code, tt.refresh}
			if tt.exchange != (onTheWire{}) {
				tok.Provisional = true
				if _, err := p.Refresh(t.Context(), tok); err != nil {
					t.Fatal(err)
				}
				want = append(want, tt.exchange)
			}
			var got []onTheWire
			for _, r := range l.all() {
				got = append(got, wire(&r, tt.header))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUUIDHeader(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", okBody))
	p := wordedProvider(t, l.URL, `{"token":{"headers":{"WM_QOS.CORRELATION_ID":"{uuid}"}}}`, nil)
	seen := map[string]bool{}
	for range 3 {
		if _, err := p.Refresh(t.Context(), oldToken()); err != nil {
			t.Fatal(err)
		}
	}
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for _, r := range l.all() {
		id := r.Header.Get("WM_QOS.CORRELATION_ID")
		if !form.MatchString(id) || seen[id] {
			t.Errorf("the header is %q; want a new UUID each time", id)
		}
		seen[id] = true
	}
}

// A request without a body that HTTP/2 refuses net/http sends again on its own,
// and a GET in HTTP/1 whose connection it had used before. A code in the URL of
// one works once.
func TestOneRequestWithoutBody(t *testing.T) {
	for _, words := range []string{
		`{"client_auth":"post","refresh":{"method":"GET"}}`, `{"client_auth":"post","refresh":{"body":"query"}}`,
	} {
		s := newRefuser(t)
		p := wordedProvider(t, s.url, words, nil)
		p.Trust(s.pool)
		for i := range 3 {
			a, err := p.Exchange(t.Context(), secret.New("c"), secret.New("v"), nil)
			if err != nil || a.Body.Reveal() != okBody {
				t.Fatalf("Exchange() = %q, %v", a.Body.Reveal(), err)
			}
			_, err = p.Refresh(t.Context(), oldToken())
			if !errors.Is(err, tokenstore.ErrOutcomeUnknown) || errors.Is(err, tokenstore.ErrNotSent) {
				t.Errorf("Refresh() = %v; want ErrOutcomeUnknown", err)
			}
			noSecrets(t, err)
			if n := int(s.refused.Load()); n != i+1 {
				t.Fatalf("%s: %d requests after %d calls", words, n, i+1)
			}
		}
	}
}

// refuser answers requests with a body, and refuses those without in a way that
// lets net/http repeat them.
type refuser struct {
	url     string
	pool    *x509.CertPool
	refused atomic.Int32
}

func newRefuser(t *testing.T) *refuser {
	t.Helper()
	borrowed := httptest.NewTLSServer(http.NotFoundHandler())
	cert := borrowed.TLS.Certificates[0]
	s := &refuser{pool: x509.NewCertPool()}
	s.pool.AddCert(borrowed.Certificate())
	borrowed.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	s.url = "https://" + l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				if tc := conn.(*tls.Conn); tc.HandshakeContext(t.Context()) != nil {
					return
				} else if tc.ConnectionState().NegotiatedProtocol == "h2" {
					s.http2(conn)
				} else {
					s.http1(conn)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return s
}

// http1 reads a request and closes the connection.
func (s *refuser) http1(conn net.Conn) {
	if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil && r.ContentLength == 0 {
		s.refused.Add(1)
	}
}

func (s *refuser) http2(conn net.Conn) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if frame.StreamEnded() {
				s.refused.Add(1)
				_ = f.WriteRSTStream(frame.StreamID, http2.ErrCodeRefusedStream)
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				var block bytes.Buffer
				_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: block.Bytes(), EndHeaders: true})
				_ = f.WriteData(frame.StreamID, true, []byte(okBody))
			}
		}
	}
}

func TestGETNotSent(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	p := wordedProvider(t, s.URL, `{"client_auth":"post","refresh":{"method":"GET"}}`, nil)
	_, err := p.Refresh(t.Context(), oldToken())
	if !errors.Is(err, tokenstore.ErrNotSent) {
		t.Errorf("Refresh() = %v; want ErrNotSent", err)
	}
	noSecrets(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Refresh(ctx, oldToken()); !errors.Is(err, tokenstore.ErrNotSent) || !errors.Is(err, context.Canceled) {
		t.Errorf("Refresh() = %v; want ErrNotSent and Canceled", err)
	}
}

// What token says of headers and JSON holds at the endpoints beside it: Reddit
// refuses whoever brings no User-Agent, and Notion's introspection is JSON. No
// token stands in a URL's query, even where the token endpoint wants it so.
func TestElsewhere(t *testing.T) {
	const device = `{"device_code":"d","user_code":"u","verification_uri":"https://acme.example/device","expires_in":600,"active":true}`
	for words, want := range map[string][2]string{
		`{"token":{"body":"json","headers":{"User-Agent":"app"}}}`: {
			`application/json {"client_id":"client id+1"}`, `application/json {"token":"canary-old-access","token_type_hint":"access_token"}`,
		},
		`{"token":{"body":"query","headers":{"User-Agent":"app"},"rename":{"client_id":"client_key"}}}`: {
			"application/x-www-form-urlencoded client_key=client+id%2B1",
			"application/x-www-form-urlencoded token=canary-old-access&token_type_hint=access_token",
		},
	} {
		l := newLedger(t, answering(200, "application/json", device))
		e := worded(t, l.URL, words)
		e.DeviceURL, e.IntrospectURL = l.URL+"/device", l.URL+"/introspect"
		p := newProvider(t, e)
		if _, err := p.Device(t.Context(), nil); err != nil {
			t.Errorf("Device() = %v", err)
		}
		if active, err := p.Introspect(t.Context(), oldToken()); err != nil || !active {
			t.Errorf("Introspect() = %t, %v", active, err)
		}
		for i, r := range l.all() {
			if got := r.Header.Get("Content-Type") + " " + r.Body; got != want[i] || r.Method != http.MethodPost || strings.Contains(r.Path, "?") || r.Header.Get("User-Agent") != "app" {
				t.Errorf("%s: %s %s as %q: %s\nwant %s", words, r.Method, r.Path, r.Header.Get("User-Agent"), got, want[i])
			}
		}
	}
}
