package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const importPath = "/v1/connections/import"

// TestImportDisabled: what is imported switched off is stored so, and nobody is
// asked with its token.
func TestImportDisabled(t *testing.T) {
	f := &fakeSource{account: tokenstore.Account{ID: "7"}}
	b := newBench(t, withSource(f))
	a := b.do("POST", importPath, `{"integration":"github","id":"conn_off","refresh_token":"r","disabled":true}`)
	b.wants(a, 201, "")
	if a.json["disabled"] != true || a.json["verified"] != nil || a.json["connect_url"] != nil || !b.stored("conn_off").Disabled {
		t.Errorf("imported switched off: %s", a.text)
	}
	if b.refresher.by.Name != "" {
		t.Error("it was refreshed")
	}
	b.happened("conn_off", "connection.active imported", "connection.changed disabled")
	a = b.do("POST", importPath, `{"integration":"mail","id":"conn_key","credentials":{"api_key":"key-1"},"disabled":true}`)
	b.wants(a, 201, "")
	if a.json["disabled"] != true || !b.stored("conn_key").Disabled {
		t.Errorf("imported switched off: %s", a.text)
	}
	b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_on","refresh_token":"r","disabled":false}`), 201, "")
	b.happened("conn_on", "connection.active imported")
	b.wants(b.do("POST", importPath, `{"integration":"github","refresh_token":"r","disabled":"yes"}`), 400, "invalid_request")
}

func TestImport(t *testing.T) {
	ends := time.Now().Add(20 * time.Minute).UTC().Truncate(time.Second)
	f := &fakeSource{account: tokenstore.Account{ID: "7"}}
	b := newBench(t, withSource(f))
	a := b.do("POST", importPath, `{"integration":"github","id":"conn_old1","user_id":"u1","name":"n","labels":{"a":"b"},"metadata":{"m":1},
		"scopes":["repo"],"access_token":"access-canary","refresh_token":"refresh-canary","expires_at":"`+ends.Format(time.RFC3339)+`"}`)
	b.wants(a, 201, "")
	c := b.stored("conn_old1")
	if c.Status != tokenstore.StatusActive || c.Token.AccessToken.Reveal() != "access-canary" || c.Token.RefreshToken.Reveal() != "refresh-canary" ||
		!c.Token.ExpiresAt.Equal(ends) || c.Token.ExpiryUnknown || c.UserID != "u1" || c.Account.ID != "7" ||
		c.Metadata != `{"m":1}` || len(c.MissingScopes()) != 0 || c.AuthScheme != "OAUTH2" {
		t.Errorf("stored %+v", c)
	}
	if a.json["verified"] != true || strings.Contains(a.text, "canary") || b.refresher.by.Name != "api" {
		t.Errorf("answer %s", a.text)
	}
	b.happened("conn_old1", "connection.active imported")
	b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_old1","access_token":"a"}`), 409, "connection_exists")
	if got := b.stored("conn_old1"); got.Revision != c.Revision {
		t.Errorf("an import over it changed it: %+v", got)
	}
	for _, tt := range []struct {
		name, body string
		refresh    error
		whose      error
		verified   any
		status     string
	}{
		{"refused", `"refresh_token":"r"`, tokenstore.ErrReconnect, nil, false, "ACTIVE"}, // EXPIRED is the Refresher's doing
		{"later", `"refresh_token":"r"`, &tokenstore.UnavailableError{Cause: errors.New("x")}, nil, nil, "ACTIVE"},
		{"taken, no account", `"refresh_token":"r"`, nil, errors.ErrUnsupported, true, "ACTIVE"},
		{"no refresh token", `"access_token":"a"`, tokenstore.ErrNotRenewed, nil, true, "ACTIVE"},
		{"no refresh token, refused", `"access_token":"a"`, nil, tokenstore.ErrCredentialRefused, false, "EXPIRED"},
		{"nobody to ask", `"access_token":"a"`, nil, errors.ErrUnsupported, nil, "ACTIVE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.refresher.err, f.whose = tt.refresh, tt.whose
			a := b.do("POST", importPath, `{"integration":"github",`+tt.body+`}`)
			b.wants(a, 201, "")
			if a.json["verified"] != tt.verified || a.json["status"] != tt.status {
				t.Errorf("verified %v, status %v; want %v, %s", a.json["verified"], a.json["status"], tt.verified, tt.status)
			}
		})
	}
	b.refresher.by = tokenstore.Actor{}
	a = b.do("POST", importPath+"?verify=false", `{"integration":"github","refresh_token":"r"}`)
	b.wants(a, 201, "")
	if c := b.stored(a.json["id"].(string)); a.json["verified"] != nil || b.refresher.by.Name != "" || c.Token.HardAt().After(time.Now()) {
		t.Errorf("unverified: %s", a.text)
	}
	a = b.do("POST", importPath, `{"integration":"mail","credentials":{"api_key":"k"}}`)
	b.wants(a, 201, "")
	if c := b.stored(a.json["id"].(string)); a.json["verified"] != true || c.Token.AccessToken.Reveal() != "k!" {
		t.Errorf("API_KEY: %s", a.text)
	}
}

func TestBadImportStoresNothing(t *testing.T) {
	b := newBench(t, withSource(&fakeSource{}))
	for body, names := range map[string]string{
		`{"integration":"github"}`:                                                         "`access_token`",
		`{"integration":"github","access_token":""}`:                                       "`access_token`",
		`{"integration":"github","access_token":"two canaries"}`:                           "`access_token`",
		`{"integration":"github","access_token":"a","refresh_token":"canary\n"}`:           "`refresh_token`",
		`{"integration":"github","access_token":7}`:                                        "`access_token`",
		`{"integration":"github","access_token":"a","expires_at":1795307938}`:              "`expires_at`",
		`{"integration":"github","access_token":"a","expires_at":"tomorrow"}`:              "`expires_at`",
		`{"integration":"github","refresh_token":"a","expires_at":"2026-11-22T10:00:00Z"}`: "`expires_at`",
		`{"integration":"github","access_token":"a","id":"conn_"}`:                         "`id`",
		`{"integration":"github","access_token":"a","id":"x/y"}`:                           "`id`",
		`{"integration":"github","access_token":"a","state":"s"}`:                          `"state"`,
		`{"integration":"github","access_token":"a","credentials":{}}`:                     "`credentials`",
		`{"integration":"mail","access_token":"canary"}`:                                   "`credentials`",
		`{"integration":"mail","auth_scheme":"BASIC","credentials":{"api_key":"k"}}`:       "`auth_scheme`",
	} {
		a := b.do("POST", importPath, body)
		b.wants(a, 400, "invalid_request")
		if detail := a.json["detail"].(string); !strings.Contains(detail, names) || strings.Contains(detail, "canar") {
			t.Errorf("%s: detail %q; want it to name %s", body, detail, names)
		}
	}
	b.wants(b.do("POST", importPath+"?verify=no", `{"integration":"github","access_token":"a"}`), 400, "invalid_request")
	b.wants(b.do("POST", importPath, `a`, func(r *http.Request) { r.Header.Set("Content-Type", "text/csv") }), 415, "unsupported_media_type")
	b.wants(b.do("POST", importPath, "{}\n", once("k"), func(r *http.Request) { r.Header.Set("Content-Type", "application/jsonl") }), 400, "invalid_request")
	if n := b.count(); n != 0 {
		t.Errorf("%d connections were stored", n)
	}
}

// lineOf is a line of the answer to an import of many.
type lineOf struct {
	Line     int    `json:"line"`
	ID       string `json:"id"`
	Status   string `json:"status"`
	Verified *bool  `json:"verified"`
	Error    struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"error"`
}

func importRequest(t *testing.T, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+importPath, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+apiKey)
	r.Header.Set("Content-Type", "application/jsonl")
	return r
}

// busySource does something while the provider is asked whose a token is.
type busySource struct {
	fakeSource
	during func()
}

func (s *busySource) Account(ctx context.Context, t *tokenstore.Token) (tokenstore.Account, error) {
	s.during()
	return s.fakeSource.Account(ctx, t)
}

// TestImportVerifiedWhileItChanges: what the provider says of an imported
// credential is nothing to a connection that was revoked or connected again meanwhile.
func TestImportVerifiedWhileItChanges(t *testing.T) {
	for _, whose := range []error{nil, tokenstore.ErrCredentialRefused} {
		for _, what := range []string{"revoked", "reconnected"} {
			f := &busySource{fakeSource: fakeSource{whose: whose, account: tokenstore.Account{ID: "old"}}}
			b := newBench(t, func(c *api.Config) {
				in := c.Integrations["github"]
				in.Credentials = func(map[string]string) (api.Credentials, error) { return f, nil }
				c.Integrations["github"] = in
			})
			f.during = func() {
				_, err := b.store.UpdateConnection(context.Background(), "conn_busy", func(c *tokenstore.Connection) error {
					if what == "revoked" {
						c.Revoke()
						return nil
					}
					c.Activate(tokenstore.Token{AccessToken: secret.New("fresh")}, nil, time.Now().UTC())
					c.Account = tokenstore.Account{ID: "new"}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_busy","access_token":"a"}`), 201, "")
			c := b.stored("conn_busy")
			switch {
			case what == "revoked" && c.Status != tokenstore.StatusRevoked:
				t.Errorf("%v: revoked meanwhile, and now %s %s", whose, c.Status, c.StatusReason)
			case what == "reconnected" && (c.Token.AccessToken.Reveal() != "fresh" || c.Account.ID != "new"):
				t.Errorf("%v: reconnected meanwhile, and now %s, %q of account %s", whose, c.Status, c.Token.AccessToken.Reveal(), c.Account.ID)
			}
		}
	}
}

// TestImportBeyondTheYears: JSON can't say a time whose year has not four digits
// in UTC.
func TestImportBeyondTheYears(t *testing.T) {
	b := newBench(t)
	for _, ends := range []string{"9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00"} {
		b.wants(b.do("POST", importPath+"?verify=false", `{"integration":"github","access_token":"a","expires_at":"`+ends+`"}`), 400, "invalid_request")
	}
	b.wants(b.do("GET", "/v1/connections", ""), 200, "")
}
