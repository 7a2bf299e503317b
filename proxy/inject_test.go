package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
)

const clientSecret = "canary-client-secret"

// injecting has an API that wants more than a token on each request.
func injecting(_ *proxy.Config, up *proxy.Upstream) {
	up.Header, up.Prefix, up.Suffix = "Authorization", `OAuth token="`, `"`
	up.Headers = []proxy.InjectedHeader{
		{Name: "Notion-Version", Value: secret.New("2022-06-28")},
		{Name: "User-Agent", Value: secret.New("acme/1")},
		{Name: "Client-Secret", Value: secret.New("of " + clientSecret), Always: true},
		{Name: "Request-Id", Value: secret.New("r-{uuid}"), UUID: true},
	}
	up.Params = []proxy.InjectedParam{{Name: "api version", Value: "3&1"}, {Name: "key", Value: "abc", Always: true}}
	up.ClientSecret = secret.New(clientSecret)
}

var uuidForm = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)

func TestInjectedHeaders(t *testing.T) {
	own := []string{
		`Authorization: OAuth token="` + token(1) + `"`, "Client-Secret: of " + clientSecret,
		"Notion-Version: 2022-06-28", "Request-Id: r-UUID", "User-Agent: acme/1",
	}
	for _, tt := range []struct {
		name, sent string
		want       map[int]string // :: index in own → what the API gets instead
	}{
		{"none of its own", "", nil},
		{"a constant's", "notion-version: 2021\r\nUser-Agent: mine\r\n", map[int]string{2: "Notion-Version: 2021", 4: "User-Agent: mine"}},
		{"a UUID's", "Request-Id: 7\r\n", map[int]string{3: "Request-Id: 7"}},
		{"that always stands", "Client-Secret: mine\r\nclient-secret: mine too\r\n", nil},
		{"named as one of the hop's", "Connection: Notion-Version, Client-Secret\r\nNotion-Version: 2021\r\nClient-Secret: mine\r\n", nil},
		{"in a trailer", "Transfer-Encoding: chunked\r\nTrailer: Client-Secret, Notion-Version\r\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			heads := make(chan http.Header, 1)
			r := newRig(t, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				for name, values := range r.Trailer {
					r.Header["Trailer "+name] = values
				}
				heads <- r.Header
			}, injecting)
			request := "POST /x HTTP/1.1\r\nHost: localhost\r\n" + slotLine + tt.sent + "\r\n"
			if strings.Contains(tt.sent, "chunked") {
				request += "1\r\na\r\n0\r\nClient-Secret: mine\r\nNotion-Version: 2021\r\n\r\n"
			}
			if res := r.raw(t, request); res.StatusCode != http.StatusOK {
				t.Fatalf("answer = %d", res.StatusCode)
			}
			want := slices.Clone(own)
			for i, line := range tt.want {
				want[i] = line
			}
			if diff := cmp.Diff(want, lines(<-heads)); diff != "" {
				t.Errorf("upstream (-want +got)\n%s", diff)
			}
		})
	}
}

// lines are the lines of a header but for those about the body, sorted, with
// UUID for a UUID.
func lines(h http.Header) []string {
	var all []string
	for name, values := range h {
		if name == "Content-Length" || name == "Accept-Encoding" {
			continue
		}
		for _, value := range values {
			all = append(all, name+": "+uuidForm.ReplaceAllString(value, "UUID"))
		}
	}
	slices.Sort(all)
	return all
}

// A reverse proxy before ours may have written a header in its own way; and the
// second request after a 401 carries it all again, with another UUID.
func TestInjectedByTheTransport(t *testing.T) {
	var ids []string
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ids = append(ids, r.Header.Get("Request-Id"))
		if !strings.Contains(r.Header.Get("Authorization"), token(2)) {
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprint(w, r.Header["Client-Secret"], r.Header["Notion-Version"], " ", r.URL.RawQuery)
	}))
	defer upstream.Close()
	cfg, _ := newConfig(t, upstream.URL, injecting)
	rt, err := proxy.NewTransport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, upstream.URL+"/x?a=%7e&key=mine", nil)
	req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
	req.Header["client-secret"], req.Header["NOTION-version"] = []string{"mine"}, []string{"2021"}
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if got, want := string(body), "[of "+clientSecret+"] [2021] a=%7e&api+version=3%261&key=abc"; got != want {
		t.Errorf("upstream got %s, want %s", got, want)
	}
	if len(ids) != 2 || ids[0] == ids[1] || !uuidForm.MatchString(ids[0]) || !uuidForm.MatchString(ids[1]) {
		t.Errorf("Request-Id = %q", ids)
	}
	if req.Header["Client-Secret"] != nil || res.Request != req {
		t.Errorf("the app's request has %v", req.Header)
	}
}

func TestInjectedParams(t *testing.T) {
	const ours = "api+version=3%261&key=abc"
	for _, tt := range []struct{ path, want string }{
		{"/x", "/x?" + ours},
		{"/x?", "/x?" + ours},
		{"/x?a=%7e&&b=c+d", "/x?a=%7e&&b=c+d&" + ours},
		{"/x?api%20version=2", "/x?api%20version=2&key=abc"},
		{"/x?key=mine&a=1&k%65y=mine", "/x?a=1&" + ours},
		{"/x?api+version&key", "/x?api+version&key=abc"},
		{"/x?api_key=mine", "/x?" + ours},
	} {
		for _, inQuery := range []bool{false, true} {
			want := tt.want
			if inQuery {
				want += "&api_key=" + token(1)
			} else if strings.Contains(tt.path, "api_key") {
				continue
			}
			t.Run(fmt.Sprint(tt.path, inQuery), func(t *testing.T) {
				address, heads := rawUpstream(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				changes := []change{injecting}
				if inQuery {
					changes = append(changes, byQuery)
				}
				r := newRigFor(t, address, changes...)
				if res := r.raw(t, "GET "+tt.path+" HTTP/1.1\r\nHost: localhost\r\n"+slotLine+"\r\n"); res.StatusCode != http.StatusOK {
					t.Fatalf("answer = %d", res.StatusCode)
				}
				if line, _, _ := strings.Cut(<-heads, "\r\n"); line != "GET "+want+" HTTP/1.1" {
					t.Errorf("upstream got %q, want %s", line, want)
				}
			})
		}
	}
}

// The client's secret is masked as the token is.
func TestA113EchoesOfTheClientSecret(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", r.Header.Get("Client-Secret"))
		fmt.Fprint(w, r.Header)
	}, injecting, scrubbing)
	res, body := r.get(t)
	if got, want := res.Header.Get("X-Echo"), "of "+stars(clientSecret); got != want || strings.Contains(body, "canary") {
		t.Errorf("X-Echo %q, body %s", got, body)
	}
}
