package fakeprovider_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

func TestLostAnswer(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	c.s.Faults.Token(fakeprovider.LostAnswer())
	if resp, body, err := c.post("/token", refreshForm(tok.Refresh)); err == nil {
		t.Fatalf("answer %d %s, want none", resp.StatusCode, body)
	}
	l := c.s.Ledger()
	if g, _ := l.Grant("grant-1"); g.RefreshNumber != 2 {
		t.Errorf("the token was not rotated: %+v", g)
	}
	if p := l.Refreshes(); len(p) != 1 || !p[0].Committed || p[0].Outcome != "lost answer" || p[0].Reused {
		t.Errorf("posts: %+v", p)
	}
}

func TestDropped(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	c.s.Faults.Token(fakeprovider.Dropped())
	if _, _, err := c.post("/token", refreshForm(tok.Refresh)); err == nil {
		t.Fatal("an answer, want none")
	}
	if p := c.s.Ledger().Refreshes(); len(p) != 1 || p[0].Committed {
		t.Fatalf("posts: %+v; net/http must not have tried again", p)
	}
	if status, _ := c.token(refreshForm(tok.Refresh)); status != http.StatusOK {
		t.Errorf("the token was spent by a request that was not processed: %d", status)
	}
	if reused := c.s.Ledger().Reused(); len(reused) != 0 {
		t.Errorf("Reused() = %v", reused)
	}
}

func TestTruncated(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	c.s.Faults.Token(fakeprovider.Truncated())
	resp, body, err := c.post("/token", refreshForm(tok.Refresh))
	if err == nil || resp == nil || resp.StatusCode != http.StatusOK || len(body) == 0 || int64(len(body)) >= resp.ContentLength {
		t.Errorf("got %v, %d bytes, %v; want half an answer", resp, len(body), err)
	}
}

func TestAnswersInstead(t *testing.T) {
	for _, tc := range []struct {
		name       string
		fault      fakeprovider.Fault
		status     int
		header     string
		value      string
		committed  bool
		bodyBegins string
	}{
		{name: "500", fault: fakeprovider.Status(500), status: 500},
		{name: "500 after all", fault: fakeprovider.Status(500).AfterCommit(), status: 500, committed: true},
		{name: "503", fault: fakeprovider.RetryAfter(503, "7"), status: 503, header: "Retry-After", value: "7"},
		{name: "429", fault: fakeprovider.RetryAfter(429, "1"), status: 429, header: "Retry-After", value: "1"},
		{name: "html", fault: fakeprovider.HTML(403), status: 403, header: "Content-Type", value: "text/html; charset=utf-8", bodyBegins: "<!doctype html>"},
		{name: "html 200", fault: fakeprovider.HTML(200), status: 200, bodyBegins: "<!doctype html>"},
		{name: "redirect", fault: fakeprovider.Redirect("http://127.0.0.1:1/x"), status: 307, header: "Location", value: "http://127.0.0.1:1/x"},
		{name: "client", fault: fakeprovider.InvalidClient(), status: 401, bodyBegins: `{"error":"invalid_client"`},
		{name: "grant", fault: fakeprovider.InvalidGrant(), status: 400, bodyBegins: `{"error":"invalid_grant"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, nil)
			c.c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			tok := c.connect()
			c.s.Faults.Token(tc.fault)
			resp, body, err := c.post("/token", refreshForm(tok.Refresh))
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.status || resp.Header.Get(tc.header) != tc.value || !strings.HasPrefix(string(body), tc.bodyBegins) {
				t.Errorf("answer %d %v %s", resp.StatusCode, resp.Header, body)
			}
			if p := c.s.Ledger().Refreshes(); len(p) != 1 || p[0].Committed != tc.committed {
				t.Errorf("posts: %+v", p)
			}
		})
	}
}

func TestOddAnswers(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	refresh := func(f fakeprovider.Fault) (*http.Response, string) {
		t.Helper()
		c.s.Faults.Token(f)
		resp, body, err := c.post("/token", refreshForm(tok.Refresh))
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("answer %v %s %v", resp, body, err)
		}
		// Whatever the answer looks like, the newest token is the last issued.
		issued := c.s.Secrets()
		tok.Refresh = issued[len(issued)-1]
		return resp, string(body)
	}
	for _, tc := range []struct {
		fault fakeprovider.Fault
		want  string
		lacks string
	}{
		{fault: fakeprovider.ExpiresIn(json.RawMessage("3600.0")), want: `"expires_in":3600.0`},
		{fault: fakeprovider.ExpiresIn("3600"), want: `"expires_in":"3600"`},
		{fault: fakeprovider.ExpiresIn(-5), want: `"expires_in":-5`},
		{fault: fakeprovider.ExpiresIn(""), want: `"expires_in":""`},
		{fault: fakeprovider.ExpiresIn(nil), lacks: "expires_in"},
		{fault: fakeprovider.NoRefreshToken(), want: "access_token", lacks: "refresh_token"},
		{fault: fakeprovider.Nested("authed_user"), want: `{"authed_user":{"access_token":"fp_at_`},
		{fault: fakeprovider.TokenWithSpace(), want: " "},
		{fault: fakeprovider.HugeBody(2 << 20), want: strings.Repeat("x", 2<<20)},
		{fault: fakeprovider.FormEncoded(), want: "access_token=fp_at_"},
		{fault: fakeprovider.ScopeCut("read"), want: `"scope":"read"`},
	} {
		if _, body := refresh(tc.fault); !strings.Contains(body, tc.want) || tc.lacks != "" && strings.Contains(body, tc.lacks) {
			t.Errorf("answer %.200s; want %.40q, not %q", body, tc.want, tc.lacks)
		}
	}
	if resp, body := refresh(fakeprovider.ContentType("text/plain")); resp.Header.Get("Content-Type") != "text/plain" || body[0] != '{' {
		t.Errorf("answer %v %s", resp.Header, body)
	}
	if got := c.s.Ledger().Reused(); len(got) != 0 {
		t.Errorf("Reused() = %v", got)
	}
}

func TestFaultsAreQueued(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	c.s.Faults.API(fakeprovider.Unauthorized().Times(2), fakeprovider.InsufficientScope("admin"))
	c.s.Faults.Token(fakeprovider.Status(500).OnCode())
	var got []int
	for range 4 {
		resp, _ := c.get("/api/me", tok.Access)
		got = append(got, resp.StatusCode)
	}
	if want := []int{401, 401, 403, 200}; !slices.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}
	if status, _ := c.token(refreshForm(tok.Refresh)); status != http.StatusOK {
		t.Errorf("a fault for codes hit a refresh: %d", status)
	}
	c.s.Faults.API(fakeprovider.Status(http.StatusBadGateway).Always())
	for range 3 {
		if resp, _ := c.get("/api/me", tok.Access); resp.StatusCode != http.StatusBadGateway {
			t.Errorf("status %d, want 502 always", resp.StatusCode)
		}
	}
	c.s.Faults.Clear()
	if resp, body, err := c.post("/token", codeForm(c.approve().Get("code"))); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("after Clear: %s %v", body, err)
	}
}

func TestAuthorizeFaults(t *testing.T) {
	c := start(t, nil)
	c.s.Faults.Authorize(fakeprovider.OAuthError(0, "temporarily_unavailable"), fakeprovider.Issuer("https://evil.test"), fakeprovider.Issuer(""))
	for _, want := range []url.Values{
		{"error": {"temporarily_unavailable"}, "iss": {c.url}},
		{"iss": {"https://evil.test"}},
		{},
	} {
		got := c.approve()
		if got.Get("error") != want.Get("error") || got.Get("iss") != want.Get("iss") || got.Has("code") == want.Has("error") {
			t.Errorf("callback %v, want %v", got, want)
		}
	}
}

func TestHoldAndStages(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	stages := make(chan fakeprovider.Stage, 3)
	c.s.OnTokenRequest(func(stage fakeprovider.Stage, grantID string) {
		if grantID != "grant-1" {
			t.Errorf("stage %s of %q", stage, grantID)
		}
		stages <- stage
		switch stage {
		case fakeprovider.Received:
			if n := c.s.Ledger().Grants[0].RefreshNumber; n != 1 {
				t.Errorf("received: refresh number %d", n)
			}
		case fakeprovider.Committed:
			if n := c.s.Ledger().Grants[0].RefreshNumber; n != 2 {
				t.Errorf("committed: refresh number %d", n)
			}
		case fakeprovider.Answered:
			// The answer is on the socket: the client gets it while this waits.
			<-release
		}
	})
	c.s.Faults.Token(fakeprovider.Hold(release))
	done := make(chan error, 1)
	go func() { _, _, err := c.post("/token", refreshForm(tok.Refresh)); done <- err }()
	if got := <-stages; got != fakeprovider.Received {
		t.Fatalf("first stage %s", got)
	}
	let()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if a, b := <-stages, <-stages; a != fakeprovider.Committed || b != fakeprovider.Answered {
		t.Errorf("stages %s, %s", a, b)
	}

	hang := make(chan struct{})
	defer close(hang)
	c.s.OnTokenRequest(func(stage fakeprovider.Stage, _ string) {
		if stage == fakeprovider.Answered {
			<-hang
		}
	})
	issued := c.s.Secrets()
	if status, _ := c.token(refreshForm(issued[len(issued)-1])); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

// What networks do to an answer, and what they leave of the request.
func TestLostAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		fault     fakeprovider.Fault
		committed bool
	}{
		"reset":             {fakeprovider.Reset(), true},
		"blackholed":        {fakeprovider.Blackholed(), false},
		"blackholed answer": {fakeprovider.HoldAnswer(nil), true},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, nil)
			tok := c.connect()
			c.c.Timeout = 200 * time.Millisecond
			c.s.Faults.Token(tc.fault)
			if _, body, err := c.post("/token", refreshForm(tok.Refresh)); err == nil {
				t.Fatalf("answered: %s", body)
			}
			if p := c.s.Ledger().Refreshes()[0]; p.Committed != tc.committed {
				t.Errorf("%+v, want committed %v", p, tc.committed)
			}
		})
	}
}

func TestLimitTokenRequests(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	c.s.LimitTokenRequests(2)
	var got []int
	for range 4 {
		resp, _, err := c.post("/token", refreshForm(tok.Refresh))
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, resp.StatusCode); resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After: %q", resp.Header.Get("Retry-After"))
		}
	}
	if want := []int{200, 400, 429, 429}; !slices.Equal(got, want) {
		t.Errorf("answers %v, want %v", got, want)
	}
	if p := c.s.Ledger().Refreshes(); p[2].Outcome != fakeprovider.OutcomeLimited || p[2].Committed || p[2].Reused {
		t.Errorf("the ledger says %+v", p[2])
	}
	c.s.LimitTokenRequests(0)
	if resp, _, err := c.post("/token", refreshForm(tok.Refresh)); err != nil || resp.StatusCode == http.StatusTooManyRequests {
		t.Errorf("without a limit: %v %v", resp, err)
	}
}
