package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// schemes is a world whose provider opens its API to every kind of credential.
type schemes struct {
	*world
	key, password, file string
}

const robot = "robot@project.example"

func newSchemes(t *testing.T, opts ...option) schemes {
	t.Helper()
	s := schemes{key: "apikey-" + rand.Text(), password: "password-" + rand.Text()}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	b, err := json.Marshal(map[string]string{"client_email": robot, "private_key": text, "private_key_id": "k1", "token_uri": "http://127.0.0.1:1/"})
	if err != nil {
		t.Fatal(err)
	}
	s.file = string(b)
	s.world = newWorld(t, append(opts, func(w *world, c *fakeprovider.Config) {
		c.APIKey, c.KeyHeader, c.KeyPrefix, c.KeyQuery = s.key, "X-Api-Key", "Key ", "appid"
		c.BasicUser, c.BasicPassword = "ada", s.password
		w.secrets = append(w.secrets, s.key, s.password, base64.StdEncoding.EncodeToString([]byte("ada:"+s.password)), strings.Split(text, "\n")[1])
	})...)
	s.fake.RegisterKey(robot, signer.Public())
	s.site.Extra = strings.ReplaceAll(`
		provider keyed {
			api_url FAKE/api
			key header X-Api-Key "Key "
			account FAKE/api/me {
				id id
				name name
				email email
			}
			allow_private
		}
		provider queried {
			api_url FAKE/api
			key query appid
			account FAKE/api/me {
				id id
			}
			allow_private
		}
		provider robots {
			token_url FAKE/token
			api_url FAKE/api
			jwt {
				issuer given
				scope claim
			}
			allow_private
		}
		integration keyed
		integration queried
		integration basic {
			provider keyed
			auth_scheme BASIC
		}
		integration bearer {
			provider keyed
			auth_scheme BEARER_TOKEN
		}
		integration machine {
			provider fake
			auth_scheme OAUTH2_CLIENT_CREDENTIALS
			client_id {env.FAKE_CLIENT_ID}
			client_secret {env.FAKE_CLIENT_SECRET}
			scopes read
		}
		integration robots {
			scopes read
		}
`, "FAKE/", s.site.Fake+"/")
	if err := s.reload(); err != nil {
		t.Fatal(err)
	}
	return s
}

// begin makes a connection of what is given, ACTIVE at once.
func (s schemes) begin(integration string, credentials map[string]string) connection {
	s.t.Helper()
	var c connection
	in := map[string]any{"integration": integration, "user_id": "u1"}
	if credentials != nil {
		in["credentials"] = credentials
	}
	a := s.api(http.MethodPost, "/v1/connections", in, &c)
	if a.Status != http.StatusCreated || c.Status != "ACTIVE" {
		s.t.Fatalf("%s: HTTP %d: %s", integration, a.Status, a.Body)
	}
	return c
}

// seenBy is the request as it came to the API.
func (s schemes) seenBy(id, query string) fakeprovider.Seen {
	s.t.Helper()
	a := s.call(id, "/headers"+query)
	var seen fakeprovider.Seen
	if a.Status != http.StatusOK || json.Unmarshal([]byte(a.Body), &seen) != nil {
		s.t.Fatalf("call: HTTP %d: %s", a.Status, a.Body)
	}
	return seen
}

// Keys, passwords and tokens made by hand are tried once, and travel as their
// provider wants them, and in no other way.
func TestSchemesOfKeys(t *testing.T) {
	s := newSchemes(t)
	byHand := s.begin("machine", nil)
	token := s.lastAccessToken()
	tests := []struct {
		integration   string
		given         map[string]string
		header, query string
		calls         int // of the trial
	}{
		{integration: "keyed", given: map[string]string{"api_key": s.key}, header: "X-Api-Key: Key [masked]", query: "a=1"},
		{integration: "queried", given: map[string]string{"api_key": s.key}, query: "a=1&appid=[masked]"},
		{integration: "basic", given: map[string]string{"username": "ada", "password": s.password}, header: "Authorization: Basic [masked]", query: "a=1"},
		{integration: "bearer", given: map[string]string{"token": token}, header: "Authorization: Bearer [masked]", query: "a=1"},
	}
	for _, tt := range tests {
		t.Run(tt.integration, func(t *testing.T) {
			trials := s.trials()
			c := s.begin(tt.integration, tt.given)
			if n := s.trials() - trials; n != 1 {
				t.Errorf("the credential was tried %d times", n)
			}
			seen := s.seenBy(c.ID, "?a=1")
			name, value, _ := strings.Cut(tt.header, ": ")
			if name != "" && strings.Join(seen.Header.Values(name), " ") != value || seen.Query != tt.query {
				t.Errorf("came with %v, query %q", seen.Header, seen.Query)
			}
			for _, other := range []string{"Authorization", "X-Api-Key"} {
				if other != name && seen.Header.Get(other) != "" {
					t.Errorf("came with %s, too", other)
				}
			}
			// A refused key is the app's to see; nothing can renew it.
			s.fake.Faults.API(fakeprovider.Unauthorized())
			if a := s.call(c.ID, "/me"); a.Status != http.StatusUnauthorized {
				t.Errorf("call = HTTP %d", a.Status)
			}
			if c := s.connection(c.ID); c.Status != "ACTIVE" {
				t.Errorf("connection is %s after a 401", c.Status)
			}
			wrong := map[string]string{}
			for name, value := range tt.given {
				wrong[name] = value + "x"
			}
			a := s.api(http.MethodPost, "/v1/connections", map[string]any{"integration": tt.integration, "credentials": wrong}, nil)
			if a.Status == http.StatusCreated || !strings.Contains(a.Body, `"code":`) {
				t.Errorf("a wrong credential: HTTP %d: %s", a.Status, a.Body)
			}
		})
	}
	s.kill()
	s.start()
	if seen := s.seenBy(byHand.ID, ""); seen.Header.Get("Authorization") == "" {
		t.Error("no credential after a crash")
	}
}

// trials counts the requests for the account.
func (s schemes) trials() int {
	n := 0
	for c, k := range s.fake.Ledger().Calls {
		if c.Path == "/api/me" {
			n += k
		}
	}
	return n
}

// lastAccessToken is what the provider issued last.
func (s schemes) lastAccessToken() string {
	all := s.fake.Secrets()
	return all[len(all)-1]
}

// What renews itself is renewed at its end, after a refusal, and after a crash,
// though no answer has a refresh token.
func TestSchemesThatRenew(t *testing.T) {
	for integration, given := range map[string]func(schemes) map[string]string{
		"machine": func(schemes) map[string]string { return nil },
		"robots":  func(s schemes) map[string]string { return map[string]string{"key": s.file} },
	} {
		t.Run(integration, func(t *testing.T) {
			s := newSchemes(t, withLife(3*time.Second))
			c := s.begin(integration, given(s))
			first := s.lastAccessToken()
			if a := s.call(c.ID, "/scope/read"); a.Status != http.StatusOK {
				t.Fatalf("call = HTTP %d: %s", a.Status, a.Body)
			}
			s.eventually("the token is renewed at its end", func() error {
				if a := s.call(c.ID, "/me"); a.Status != http.StatusOK {
					t.Fatalf("call = HTTP %d: %s", a.Status, a.Body)
				}
				if s.lastAccessToken() == first {
					return fmt.Errorf("still generation %d", s.connection(c.ID).Generation)
				}
				return nil
			})
			s.fake.SetAccessLife(time.Hour)
			s.api(http.MethodPost, "/v1/connections/"+c.ID+"/refresh", nil, nil)
			s.fake.ExpireAccessTokens()
			if a := s.call(c.ID, "/me"); a.Status != http.StatusOK {
				t.Errorf("call after a refusal = HTTP %d: %s", a.Status, a.Body)
			}
			s.kill()
			s.start()
			if a := s.call(c.ID, "/me"); a.Status != http.StatusOK {
				t.Errorf("call after a crash = HTTP %d: %s", a.Status, a.Body)
			}
			for _, p := range s.fake.Ledger().Posts {
				if p.Outcome != fakeprovider.OutcomeIssued || p.RefreshNumber != 0 {
					t.Errorf("token request %+v", p)
				}
			}
			if a := s.api(http.MethodPost, "/v1/connections/"+c.ID+"/revoke", nil, nil); a.Status != http.StatusOK {
				t.Errorf("revoke = HTTP %d: %s", a.Status, a.Body)
			}
			for _, r := range s.fake.Ledger().Revocations {
				if r.Kind != "access_token" {
					t.Errorf("revocation %+v", r)
				}
			}
			if a := s.call(c.ID, "/me"); a.Status != http.StatusFailedDependency {
				t.Errorf("call after the revocation = HTTP %d", a.Status)
			}
		})
	}
}

// A private key that its provider takes no more ends the connection.
func TestSchemeKeyDies(t *testing.T) {
	s := newSchemes(t)
	c := s.begin("robots", map[string]string{"key": s.file})
	s.fake.RevokeAll()
	if a := s.call(c.ID, "/me"); a.Status != http.StatusFailedDependency {
		t.Errorf("call = HTTP %d: %s", a.Status, a.Body)
	}
	if c := s.connection(c.ID); c.Status != "EXPIRED" || c.StatusReason != "invalid_grant" {
		t.Errorf("connection is %s (%s)", c.Status, c.StatusReason)
	}
}

// A credential does not travel as what it is not: a password would
// stand in a URL once its integration's API takes keys there.
func TestSchemeChanges(t *testing.T) {
	s := newSchemes(t)
	c := s.begin("basic", map[string]string{"username": "ada", "password": s.password})
	before, calls := s.site.Extra, s.fake.Ledger().CallCount(-1)
	s.site.Extra = strings.Replace(before, "provider keyed\n\t\t\tauth_scheme BASIC", "provider queried", 1)
	if err := s.reload(); err != nil {
		t.Fatal(err)
	}
	if a := s.call(c.ID, "/me"); a.Status != http.StatusConflict || !strings.Contains(a.Body, `"reason":"auth_scheme_changed"`) {
		t.Errorf("call = HTTP %d: %s", a.Status, a.Body)
	}
	if n := s.fake.Ledger().CallCount(-1); n != calls {
		t.Errorf("%d calls reached the API", n-calls)
	}
	if c := s.connection(c.ID); c.StatusReason != "auth_scheme_changed" {
		t.Errorf("connection is %s (%s)", c.Status, c.StatusReason)
	}
	s.site.Extra = before
	if err := s.reload(); err != nil {
		t.Fatal(err)
	}
	if a := s.call(c.ID, "/me"); a.Status != http.StatusOK {
		t.Errorf("call = HTTP %d: %s", a.Status, a.Body)
	}
}
