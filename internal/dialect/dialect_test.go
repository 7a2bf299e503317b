package dialect_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/dialect"
)

const (
	client   = "client-1"
	password = "a-secret-of-client-1"
	redirect = "https://lanyard.example/callback/slack"
)

// ann's tokens at a provider.
type tokens struct{ code, access, refresh string }

// ask makes a request to a provider that is played.
func ask(t *testing.T, s *dialect.Server, method, to, media, body string, header map[string]string) (answer string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, to, strings.NewReader(body))
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	b, _ := io.ReadAll(w.Result().Body)
	return string(b)
}

const formMedia = "application/x-www-form-urlencoded"

func newSlack(t *testing.T) (*dialect.Server, tokens) {
	t.Helper()
	s := dialect.New()
	s.Add(dialect.ByHand("slack"), client, password, redirect)
	page := "https://slack.com/oauth/v2/authorize?" + url.Values{"client_id": {client}, "redirect_uri": {redirect}, "state": {"s"}, "scope": {"chat:write"}}.Encode()
	back, err := s.Consent("slack", page, dialect.Account{ID: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	q, err := url.ParseQuery(back)
	if err != nil {
		t.Fatal(err)
	}
	body := url.Values{"client_id": {client}, "client_secret": {password}, "code": {q.Get("code")}, "redirect_uri": {redirect}}.Encode()
	answer := ask(t, s, http.MethodPost, "https://slack.com/api/oauth.v2.access", formMedia, body, nil)
	return s, tokens{q.Get("code"), field(t, answer, "access_token"), field(t, answer, "refresh_token")}
}

// field returns a text of an answer.
func field(t *testing.T, answer, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(answer, `"`+name+`":"`)
	value, _, closed := strings.Cut(rest, `"`)
	if !ok || !closed {
		t.Fatalf("no %s in %s", name, answer)
	}
	return value
}

// What a provider does not take it does not take here, and says why.
func TestStrict(t *testing.T) {
	const url = "https://slack.com/api/oauth.v2.access"
	proof := "&client_id=" + client + "&client_secret=" + password
	tests := map[string]struct {
		method, url, media, body string
		header                   map[string]string
		want                     string // of the complaint; empty: none
	}{
		"right":              {url: url, body: "grant_type=refresh_token&refresh_token=REFRESH" + proof},
		"unknown parameter":  {url: url, body: "grant_type=refresh_token&refresh_token=REFRESH&x=y" + proof},
		"no grant type":      {url: url, body: "refresh_token=REFRESH" + proof, want: "refresh: the parameter grant_type is missing"},
		"wrong secret":       {url: url, body: "grant_type=refresh_token&refresh_token=REFRESH&client_id=" + client + "&client_secret=x", want: "the parameter client_secret is not $secret"},
		"both proofs":        {url: url, body: "grant_type=refresh_token&refresh_token=REFRESH" + proof, header: map[string]string{"Authorization": "Basic YTpi"}, want: "there is a header Authorization"},
		"wrong content type": {url: url, media: "text/plain", body: "grant_type=refresh_token&refresh_token=REFRESH" + proof, want: `the body is "text/plain"`},
		"code twice":         {url: url, body: "code=CODE&redirect_uri=" + redirect + proof, want: "the code was redeemed before"},
		"wrong place":        {url: "https://slack.com/api/oauth.access", body: "grant_type=refresh_token&refresh_token=REFRESH" + proof, want: "is none of its endpoints"},
		"token in the query": {method: http.MethodGet, url: "https://slack.com/api/lanyard-call/slack?token=ACCESS", want: "the header Authorization is there 0 times"},
		"call":               {method: http.MethodGet, url: "https://slack.com/api/lanyard-call/slack", header: map[string]string{"Authorization": "Bearer ACCESS"}},
		"call at another":    {method: http.MethodGet, url: "https://slack.example/api/lanyard-call/slack", header: map[string]string{"Authorization": "Bearer ACCESS"}, want: "want below https://slack.com/api: see api_url"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, have := newSlack(t)
			fill := strings.NewReplacer("REFRESH", have.refresh, "ACCESS", have.access, "CODE", have.code).Replace
			header := map[string]string{}
			for name, value := range tt.header {
				header[name] = fill(value)
			}
			method, media := http.MethodPost, formMedia
			if tt.method != "" {
				method, media = tt.method, ""
			}
			if tt.media != "" {
				media = tt.media
			}
			ask(t, s, method, fill(tt.url), media, fill(tt.body), header)
			said := strings.Join(s.Complaints("slack"), "; ")
			if tt.want == "" && said != "" || !strings.Contains(said, tt.want) {
				t.Errorf("the provider says %q, want %q", said, tt.want)
			}
		})
	}
}

// A refresh token that is redeemed twice ends the grant.
func TestReuse(t *testing.T) {
	s, have := newSlack(t)
	body := "grant_type=refresh_token&refresh_token=" + have.refresh + "&client_id=" + client + "&client_secret=" + password
	for range 2 {
		ask(t, s, http.MethodPost, "https://slack.com/api/oauth.v2.access", formMedia, body, nil)
	}
	if said := strings.Join(s.Complaints("slack"), "; "); !strings.Contains(said, "was used twice") {
		t.Errorf("the provider says %q", said)
	}
	if r := s.Record("slack", "ann"); r.Refreshes != 1 {
		t.Errorf("%d refreshes", r.Refreshes)
	}
}

// A token is used when the API has served a request with it, until the next one.
func TestUsed(t *testing.T) {
	s, have := newSlack(t)
	used := func(when string, want bool) {
		t.Helper()
		if got := s.Record("slack", "ann").Used; got != want {
			t.Errorf("%s: used is %t, want %t", when, got, want)
		}
	}
	call := func(token string) {
		t.Helper()
		ask(t, s, http.MethodGet, "https://slack.com/api/lanyard-call/slack", "", "", map[string]string{"Authorization": "Bearer " + token})
	}
	used("before a call", false)
	call(have.access)
	used("after a call", true)
	ask(t, s, http.MethodPost, "https://slack.com/api/oauth.v2.access", formMedia,
		"grant_type=refresh_token&refresh_token="+have.refresh+"&client_id="+client+"&client_secret="+password, nil)
	used("after a refresh", false)
	call(have.access)
	used("after a call with the token before", false)
	call(s.Record("slack", "ann").Access)
	used("after a call with the newest", true)
}

// Samples are of the form that was asked for.
func TestSample(t *testing.T) {
	for pattern, want := range map[string]string{`[0-9]+`: "77777", `^[a-z]{2}[0-9]{1,3}$`: "aa777", `acct_[A-Za-z0-9]+`: "acct_aaaaa", `(sk|rk)_x`: "sk_x", "": "aaaaa"} {
		if got := dialect.Sample(pattern, false); got != want {
			t.Errorf("a sample of %s is %s, want %s", pattern, got, want)
		}
	}
	if a, b := dialect.Sample(`SG\.[!-~]+`, true), dialect.Sample(`SG\.[!-~]+`, true); a == b || len(a) < 20 {
		t.Errorf("secrets %s and %s", a, b)
	}
}
