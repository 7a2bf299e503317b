package connect_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const apiKey = "api-key-canary-0123456789abcdef01234567"

func mustURL(raw string) *url.URL {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	return u
}

func signer(publicURL string, keys ...string) *connect.Signer {
	var secrets []secret.String
	for _, k := range keys {
		secrets = append(secrets, secret.New(k))
	}
	return connect.NewSigner(mustURL(publicURL), secrets)
}

type vector struct {
	Name      string `json:"name"`
	PublicURL string `json:"public_url"`
	APIKey    string `json:"api_key"`
	Query     string `json:"query"`
	Signature string `json:"signature"`
	Params    struct {
		Integration    string            `json:"integration"`
		UserID         string            `json:"user_id"`
		Scopes         []string          `json:"scopes"`
		RedirectURL    string            `json:"redirect_url"`
		State          string            `json:"state"`
		ConnectionName string            `json:"connection_name"`
		Labels         map[string]string `json:"labels"`
	} `json:"params"`
}

func vectors(tb testing.TB) []vector {
	tb.Helper()
	b, err := os.ReadFile("testdata/link_vectors.json")
	if err != nil {
		tb.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(b, &all); err != nil {
		tb.Fatal(err)
	}
	return all
}

func TestVerifyVectors(t *testing.T) {
	now := time.Unix(1900000000, 0).Add(-time.Hour)
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			s := signer(v.PublicURL, "another key", v.APIKey)
			raw := v.Query + "&signature=" + v.Signature
			got, err := s.Verify(raw, now)
			if err != nil {
				t.Fatalf("Verify() = %v", err)
			}
			want := connect.Params{
				Integration: v.Params.Integration, UserID: v.Params.UserID, Scopes: v.Params.Scopes,
				RedirectURL: v.Params.RedirectURL, State: v.Params.State,
				ConnectionName: v.Params.ConnectionName, Labels: v.Params.Labels,
				Expires: time.Unix(1900000000, 0).UTC(),
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("Verify() (-want +got):\n%s", d)
			}
			for i := range len(raw) {
				for _, bit := range []byte{1, 2, 4, 8, 16, 32, 64, 128} {
					changed := raw[:i] + string([]byte{raw[i] ^ bit}) + raw[i+1:]
					if _, err := s.Verify(changed, now); err == nil {
						t.Fatalf("Verify(%q) = nil, want an error: byte %d was changed", changed, i)
					}
				}
			}
		})
	}
}

// TestScripts runs the scripts that show how to sign in other languages.
func TestScripts(t *testing.T) {
	s := signer("http://localhost:9080/x", apiKey)
	for _, script := range [][]string{{"node", "testdata/sign.mjs"}, {"python3", "testdata/sign.py"}} {
		t.Run(script[0], func(t *testing.T) {
			if _, err := exec.LookPath(script[0]); err != nil {
				if os.Getenv("CI") == "true" {
					t.Fatalf("%s is needed in CI: %v", script[0], err)
				}
				t.Skipf("%s is not installed", script[0])
			}
			args := append(script[1:], "http://localhost:9080/x", "integration=git hub", "user_id=Zoë&+%/~*'()", "state=a=b", "scopes=a b")
			cmd := exec.CommandContext(t.Context(), script[0], args...)
			cmd.Env = append(os.Environ(), "LANYARD_API_KEY="+apiKey)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			endpoint, raw, _ := strings.Cut(strings.TrimSpace(string(out)), "?")
			if endpoint != "http://localhost:9080/x/connect" {
				t.Errorf("link goes to %s", endpoint)
			}
			got, err := s.Verify(raw, time.Now())
			if err != nil {
				t.Fatalf("Verify(%s) = %v", raw, err)
			}
			if got.Integration != "git hub" || got.UserID != "Zoë&+%/~*'()" || got.State != "a=b" || len(got.Scopes) != 2 {
				t.Errorf("Verify() = %+v", got)
			}
			for i := range len(raw) {
				changed := raw[:i] + string([]byte{raw[i] ^ 1}) + raw[i+1:]
				if _, err := s.Verify(changed, time.Now()); err == nil {
					t.Fatalf("Verify(%q) = nil, want an error", changed)
				}
			}
		})
	}
}

// signRaw signs a query as it is, in the way the documentation says.
func signRaw(publicURL, key, query string) string {
	k := secret.New(string(secret.New(key).MAC("lanyard link v1")))
	mac := k.MAC("lanyard-link-v1\n" + publicURL + "/connect\n" + query)
	return query + "&signature=" + b64(mac)
}

// manyLabels returns n labels, encoded.
func manyLabels(n int) string {
	var labels []string
	for i := range n {
		labels = append(labels, fmt.Sprintf("label%d=%d", i, i))
	}
	return url.QueryEscape(strings.Join(labels, ","))
}

func TestVerifyRefuses(t *testing.T) {
	const public = "https://connect.example.com"
	now := time.Unix(1_900_000_000, 0)
	in := func(d time.Duration) string { return "&expires=" + strconv.FormatInt(now.Add(d).Unix(), 10) }
	good := "user_id=u1" + in(time.Minute)
	sig := signRaw(public, apiKey, good)[len(good):]
	tests := []struct {
		name, raw string
		want      error
	}{
		{"as signed", good + sig, nil},
		{"at its most", signRaw(public, apiKey, "user_id=u1"+in(24*time.Hour)), nil},
		{"empty", "", connect.ErrLinkInvalid},
		{"no signature", good, connect.ErrLinkInvalid},
		{"empty signature", good + "&signature=", connect.ErrLinkInvalid},
		{"signature alone", sig[1:], connect.ErrLinkInvalid},
		{"padded", good + sig + "=", connect.ErrLinkInvalid},
		{"percent-encoded signature", good + "&signature=%" + strconv.FormatInt(int64(sig[11]), 16) + sig[12:], connect.ErrLinkInvalid},
		{"A022 something after", good + sig + "&state=x", connect.ErrLinkInvalid},
		{"an ampersand after", good + sig + "&", connect.ErrLinkInvalid},
		{"signature twice", good + sig + sig, connect.ErrLinkInvalid},
		{"signature in the middle", signRaw(public, apiKey, good+"&signature=x"), connect.ErrLinkInvalid},
		{"another key", signRaw(public, "another key", good), connect.ErrLinkInvalid},
		{"another host", signRaw("https://evil.example", apiKey, good), connect.ErrLinkInvalid},
		{"repeated name", signRaw(public, apiKey, good+"&user_id=u1"), connect.ErrLinkInvalid},
		{"repeated name, escaped", signRaw(public, apiKey, good+"&user%5Fid=u2"), connect.ErrLinkInvalid},
		{"unknown name", signRaw(public, apiKey, good+"&userid=u1"), connect.ErrLinkInvalid},
		{"unknown name, other case", signRaw(public, apiKey, "User_ID=u1"+in(time.Minute)), connect.ErrLinkInvalid},
		{"A022 OAuth's names", signRaw(public, apiKey, good+"&redirect_uri=https://evil.example"), connect.ErrLinkInvalid},
		{"no name", signRaw(public, apiKey, good+"&=x"), connect.ErrLinkInvalid},
		{"bad percent", signRaw(public, apiKey, good+"&state=%zz"), connect.ErrLinkInvalid},
		{"bad UTF-8", signRaw(public, apiKey, good+"&state=%ff"), connect.ErrLinkInvalid},
		{"semicolon", signRaw(public, apiKey, good+";state=x"), connect.ErrLinkInvalid},
		{"control character", signRaw(public, apiKey, good+"&connection_name=a%00b"), connect.ErrLinkInvalid},
		{"A021 long state", signRaw(public, apiKey, good+"&state="+strings.Repeat("x", 513)), connect.ErrLinkInvalid},
		{"A021 state at its most", signRaw(public, apiKey, good+"&state="+strings.Repeat("x", 512)), nil},
		{"long query", signRaw(public, apiKey, good+"&connection_name="+strings.Repeat("x", 20000)), connect.ErrLinkInvalid},
		{"long user", signRaw(public, apiKey, "user_id="+strings.Repeat("x", 257)+in(time.Minute)), connect.ErrLinkInvalid},
		{"user at its most", signRaw(public, apiKey, "user_id="+strings.Repeat("%C3%B6", 256)+in(time.Minute)), nil},
		{"user with a broken character", signRaw(public, apiKey, "user_id=a%EF%BF%BDb"+in(time.Minute)), connect.ErrLinkInvalid},
		{"long name", signRaw(public, apiKey, good+"&connection_name="+strings.Repeat("x", 257)), connect.ErrLinkInvalid},
		{"long label", signRaw(public, apiKey, good+"&labels=a%3D"+strings.Repeat("x", 257)), connect.ErrLinkInvalid},
		{"long label name", signRaw(public, apiKey, good+"&labels="+strings.Repeat("x", 65)+"%3Da"), connect.ErrLinkInvalid},
		{"many labels", signRaw(public, apiKey, good+"&labels="+manyLabels(33)), connect.ErrLinkInvalid},
		{"labels at their most", signRaw(public, apiKey, good+"&labels="+manyLabels(32)), nil},
		{"labels without value", signRaw(public, apiKey, good+"&labels=a"), connect.ErrLinkInvalid},
		{"label twice", signRaw(public, apiKey, good+"&labels=a%3D1,a%3D2"), connect.ErrLinkInvalid},
		{"response mode", signRaw(public, apiKey, good+"&response_mode=fragment"), connect.ErrLinkInvalid},
		{"no expires", signRaw(public, apiKey, "user_id=u1"), connect.ErrLinkInvalid},
		{"empty expires", signRaw(public, apiKey, "expires="), connect.ErrLinkInvalid},
		{"expires with a sign", signRaw(public, apiKey, "expires=%2B1900000060"), connect.ErrLinkInvalid},
		{"expires as a fraction", signRaw(public, apiKey, "expires=1900000060.5"), connect.ErrLinkInvalid},
		{"expires in milliseconds", signRaw(public, apiKey, "expires=1900000060000"), connect.ErrLinkInvalid},
		{"expires overflows", signRaw(public, apiKey, "expires=99999999999999999999"), connect.ErrLinkInvalid},
		{"A014 over a day ahead", signRaw(public, apiKey, "user_id=u1"+in(24*time.Hour+time.Second)), connect.ErrLinkInvalid},
		{"now", signRaw(public, apiKey, "user_id=u1"+in(0)), connect.ErrLinkExpired},
		{"past", signRaw(public, apiKey, "user_id=u1"+in(-time.Hour)), connect.ErrLinkExpired},
	}
	s := signer(public, apiKey)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := s.Verify(tt.raw, now); !errors.Is(err, tt.want) {
				t.Errorf("Verify(%q) = %v, want %v", tt.raw, err, tt.want)
			}
		})
	}
	if _, err := signer(public).Verify(good+sig, now); err == nil {
		t.Error("a Signer without keys takes a link")
	}
}

func TestSign(t *testing.T) {
	s := signer("https://connect.example.com/", apiKey)
	want := connect.Params{
		Integration: "github", UserID: "Zoë", Scopes: []string{"a", "b:c"}, RedirectURL: "https://app.example.com/cb?x=1",
		State: "a&b=c\r\n", ConnectionID: "conn_1", ConnectionName: "my name", Labels: map[string]string{"a": "1", "b": "2"},
		Expires: time.Now().Add(time.Hour).Truncate(time.Second).UTC(),
	}
	_, raw, _ := strings.Cut(s.Sign(want, want.Expires), "?")
	got, err := s.Verify(raw, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Verify(Sign()) (-want +got):\n%s", d)
	}
	// A key that was rotated out of the first place still verifies.
	if _, err := signer("https://connect.example.com", "new key", apiKey).Verify(raw, time.Now()); err != nil {
		t.Errorf("Verify() with the key in second place = %v", err)
	}
}

func TestLink(t *testing.T) {
	s := signer("https://connect.example.com", apiKey)
	c := tokenstore.Connection{ID: "conn_1", Integration: "github", UserID: "u1", RedirectURL: "https://app.example.com/last"}
	link, expires := s.Link(c, "https://app.example.com/first", "s p&", []string{"a", "b"}, false)
	if d := time.Until(expires); d > 15*time.Minute || d < 14*time.Minute {
		t.Errorf("link lives for %v, want 15 minutes", d)
	}
	endpoint, raw, _ := strings.Cut(link, "?")
	got, err := s.Verify(raw, time.Now())
	want := connect.Params{
		Integration: "github", UserID: "u1", ConnectionID: "conn_1", Expires: expires,
		RedirectURL: "https://app.example.com/first", State: "s p&", Scopes: []string{"a", "b"},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" || endpoint != "https://connect.example.com/connect" {
		t.Errorf("Link() = %s: %v (-want +got):\n%s", link, err, d)
	}
}

// FuzzLink: nothing is taken that was not signed, and what was signed says the
// same when it is signed again.
func FuzzLink(f *testing.F) {
	const public = "https://connect.example.com"
	for _, v := range vectors(f) {
		f.Add(v.Query + "&signature=" + v.Signature)
		f.Add(v.Query)
	}
	f.Add("labels=a=b,c=d&expires=1900000000&state=%00")
	now := time.Unix(1900000000, 0).Add(-time.Hour)
	s := signer(public, apiKey)
	f.Fuzz(func(t *testing.T, query string) {
		if _, err := s.Verify(query, now); err == nil {
			t.Fatalf("Verify(%q) = nil without the key", query)
		}
		// What is signed parses or is refused, and what parses is sound.
		p, err := s.Verify(signRaw(public, apiKey, query), now)
		if err != nil {
			if !errors.Is(err, connect.ErrLinkInvalid) && !errors.Is(err, connect.ErrLinkExpired) {
				t.Fatalf("Verify() = %v", err)
			}
			return
		}
		_, raw, _ := strings.Cut(s.Sign(p, p.Expires), "?")
		again, err := s.Verify(raw, now)
		if err != nil {
			t.Fatalf("Verify(Sign(%+v)) = %v", p, err)
		}
		if d := cmp.Diff(p, again); p.UserID == "" || d != "" {
			t.Fatalf("Verify(Sign()) (-want +got):\n%s", d)
		}
	})
}
