package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What stands in another parameter's quotes says nothing, and what the error
// says is heard whatever stands beside it.
func FuzzQuotedChallenge(f *testing.F) {
	for _, realm := range []string{"x", `error="insufficient_scope"`, `\", error=insufficient_scope, `, `a, Bearer error="insufficient_scope`, "=\\", ""} {
		f.Add(realm, "invalid_token")
		f.Add(realm, "insufficient_scope")
		f.Add("r", realm)
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace
	f.Fuzz(func(t *testing.T, realm, code string) {
		for _, value := range []string{
			`Bearer realm="` + quote(realm) + `", error="` + quote(code) + `"`,
			`Bearer error="` + quote(code) + `",realm="` + quote(realm) + `"`,
			`Basic realm="` + quote(realm) + `", Bearer scope="` + quote(realm) + `" , Error = "` + quote(code) + `"`,
		} {
			if got := proxy.InsufficientScope(http.Header{"Www-Authenticate": {value}}); got != (code == "insufficient_scope") {
				t.Errorf("InsufficientScope(%s) = %v", value, got)
			}
		}
	})
}

// sentBytes is a transport that keeps the target of a request as it goes out.
type sentBytes struct{ target, host string }

func (s *sentBytes) RoundTrip(r *http.Request) (*http.Response, error) {
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return nil, err
	}
	line, _ := bufio.NewReader(&b).ReadString('\n')
	_, line, _ = strings.Cut(line, " ")
	s.target, s.host = strings.TrimSuffix(line, " HTTP/1.1\r\n"), r.URL.Host
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// What passes is sent as it came, to the API alone, means the same however
// often it is decoded, and is what the client may call.
func FuzzRequestPath(f *testing.F) {
	for _, target := range []string{
		"/repos/acme/x", "/user", "/user?x=/../y", "//evil.test/x", "/@evil.test", "/repos/acme/%2e%2e/x", "/repos/acme/%252e%252e/x",
		"/repos/acme/..;a/x", `/repos/acme/..\x`, "/repos/acme/%5c..%5cx", "/repos/acme/a%2fb", "/repos/acme/%", "/repos/acme/%00", "http://localhost/user",
		"http://localhost?x", "/_host/uploads.acme.test/up/x", "/_host/evil.test/up", "/c/" + connID + "/user", "*", "", "/repos/acme/\xff", "/repos/acme/{x}?#", "/user#x",
	} {
		f.Add(target)
	}
	api, err := url.Parse("https://api.acme.test/v2")
	if err != nil {
		f.Fatal(err)
	}
	up := &proxy.Upstream{Integration: "acme", API: api, Hosts: []string{"uploads.acme.test"}, Header: "Authorization", Prefix: "Bearer "}
	f.Fuzz(func(t *testing.T, target string) {
		sent := &sentBytes{}
		for _, paths := range [][]string{nil, {"/user", "/repos/acme/*", "uploads.acme.test/up/*"}} {
			h, err := proxy.New(proxy.Config{
				Grants: newGrants(), Upstream: func(*tokenstore.Grant) (*proxy.Upstream, string) { return up, "" }, Path: true, Transport: sent,
				Clients: []proxy.Client{{Key: guard.Key{Name: "app", Value: secret.New(clientKey)}, Paths: paths}},
			})
			if err != nil {
				t.Fatal(err)
			}
			*sent = sentBytes{}
			r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "http://localhost/", nil)
			r.RequestURI = target
			r.Header.Set("Lanyard-Key", clientKey)
			r.Header.Set("Connection-Id", connID)
			h.ServeHTTP(httptest.NewRecorder(), r)
			if sent.target != "" {
				checkSent(t, target, sent, paths != nil)
			}
		}
	})
}

func checkSent(t *testing.T, target string, sent *sentBytes, limited bool) {
	t.Helper()
	path, _, _ := strings.Cut(sent.target, "?")
	below, isAPI := strings.CutPrefix(path, "/v2")
	switch {
	case sent.host == "api.acme.test" && isAPI && (below == "" || below[0] == '/'):
	case sent.host == "uploads.acme.test" && strings.HasPrefix(path, "/"):
		below = path
		isAPI = false
	default:
		t.Fatalf("%q went to %s as %q", target, sent.host, sent.target)
	}
	// An absolute target may have no slash before its query (RFC 9112 section
	// 3.2.1): the one that is sent there is ours.
	if rest := strings.TrimPrefix(sent.target, "/v2"); rest != "/" && !strings.HasSuffix(target, rest) && !strings.HasSuffix(target, strings.TrimPrefix(rest, "/")) {
		t.Errorf("%q was sent as %q", target, sent.target)
	}
	for range 3 { // as it is, decoded once and twice
		for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
			if segment, _, _ = strings.Cut(segment, ";"); segment == "." || segment == ".." {
				t.Errorf("%q was sent as %q, which has dots", target, sent.target)
			}
		}
		path = decode(path)
	}
	if !limited {
		return
	}
	allowed := below == "/user" || strings.HasPrefix(below, "/repos/acme/")
	if !isAPI {
		allowed = strings.HasPrefix(below, "/up/")
	}
	if !allowed {
		t.Errorf("a limited client had %q sent as %q", target, sent.target)
	}
}

// decode decodes every %XX that is one.
func decode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// A key and an ID are only taken from where they stand, as they stand.
func FuzzReadCaller(f *testing.F) {
	basic := base64.StdEncoding.EncodeToString([]byte("user:" + clientKey + "." + connID))
	f.Add("", "", "Bearer "+clientKey+"."+connID, "", "")
	f.Add(clientKey, connID, "", "", "")
	f.Add("", "", "Basic "+basic, "", "")
	f.Add("", "", "", clientKey+"."+connID, "")
	f.Add("", "", "Bearer a.conn_A.conn_B", "token x.conn_C", connID)
	f.Add("k", connID, "token "+clientKey+"."+otherID, "", connID)
	f.Fuzz(func(t *testing.T, key, id, authorization, other, pathID string) {
		if pathID != "" && !tokenstore.IsID(pathID) {
			return // a path names none that is not
		}
		h := http.Header{}
		said := []string{pathID}
		for name, value := range map[string]string{"Lanyard-Key": key, "Connection-Id": id, "Authorization": authorization, "X-Api-Key": other} {
			if value != "" {
				h[name] = []string{value}
				said = append(said, value)
			}
		}
		if scheme, credential, ok := strings.Cut(authorization, " "); ok && strings.EqualFold(scheme, "Basic") {
			decoded, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(credential))
			said = append(said, string(decoded))
		}
		gotKey, gotID, ok := proxy.ReadCaller(h, pathID)
		if !ok {
			return
		}
		for what, got := range map[string]string{"key": gotKey, "ID": gotID} {
			found := got == ""
			for _, s := range said {
				found = found || strings.Contains(s, got)
			}
			if !found {
				t.Errorf("ReadCaller(%q) has the %s %q, which nobody said", said, what, got)
			}
		}
		switch {
		case pathID != "" && gotID != pathID, id != "" && gotID != id:
			t.Errorf("ReadCaller(%q) has the ID %q", said, gotID)
		case key != "" && gotKey != key:
			t.Errorf("ReadCaller(%q) has the key %q", said, gotKey)
		}
	})
}

// Masking keeps every length, leaves no token, and touches nothing where there
// is none, however the text is cut.
func FuzzScrub(f *testing.F) {
	f.Add("secret-token", []byte("a secret-token b"), 5)
	f.Add("tok/en+en", []byte(`{"a":"tok\/en\u002Ben"}tok%2Fen%2ben`), 9)
	f.Add("aaaaaaaa", []byte("aaaaaaaaaaaaaaaaaaaaaaa"), 3)
	f.Add("abababab", []byte("ababababab YWJhYmFiYWI"), 11)
	f.Fuzz(func(t *testing.T, token string, text []byte, cut int) {
		if len(token) < 8 || strings.ContainsAny(token, "*%\\") {
			return
		}
		cut = min(max(cut, 0), len(text))
		whole, err := proxy.Mask(token, bytes.Clone(text))
		if err != nil {
			t.Fatal(err)
		}
		parts, err := proxy.Mask(token, bytes.Clone(text[:cut]), bytes.Clone(text[cut:]))
		if err != nil {
			t.Fatal(err)
		}
		if len(whole) != len(text) || bytes.Contains(whole, []byte(token)) || !bytes.Equal(whole, parts) {
			t.Errorf("%q without %q is %q, and cut at %d %q", text, token, whole, cut, parts)
		}
		for i := range whole {
			if whole[i] != text[i] && whole[i] != '*' {
				t.Errorf("%q without %q is %q", text, token, whole)
			}
		}
	})
}
