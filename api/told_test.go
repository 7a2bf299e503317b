package api_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var errNotOfItsForm = errors.New("connection parameter is not valid: instance is not of its form")

// telling has github's connections at a host that its provider tells, or an
// import gives.
func telling(f *fakeSource) func(*api.Config) {
	check := func(params map[string]string) error {
		if v, ok := params["instance"]; ok && !strings.HasSuffix(v, ".acme.test") {
			return errNotOfItsForm
		}
		return nil
	}
	return func(c *api.Config) {
		in := c.Integrations["github"]
		in.Credentials = func(map[string]string) (api.Credentials, error) { return f, nil }
		in.CheckParams = check
		in.CheckToken = func(params map[string]string, t *tokenstore.Token) error {
			if params["instance"] == "" && t.Metadata["instance"] == "" {
				return errors.New("instance is missing")
			}
			return nil
		}
		c.Integrations["github"] = in
	}
}

// TestToldByTheProvider: what it told is shown, and where it did not tell what
// the API's place needs, so is that.
func TestToldByTheProvider(t *testing.T) {
	for _, tc := range []struct {
		name           string
		status         tokenstore.Status
		params, told   map[string]string
		reason         any
		wantConnectURL bool
	}{
		{"told", tokenstore.StatusActive, nil, map[string]string{"instance": "a.acme.test"}, nil, false},
		{"given by an import", tokenstore.StatusActive, map[string]string{"instance": "a.acme.test"}, nil, nil, false},
		{"not told", tokenstore.StatusActive, nil, map[string]string{"team": "7"}, "api_unknown", true},
		{"not connected yet", tokenstore.StatusInitiated, nil, nil, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, telling(&fakeSource{}))
			b.put(func(c *tokenstore.Connection) {
				c.ID, c.Integration, c.Status = "conn_told", "github", tc.status
				c.Params, c.Token.Metadata = tc.params, tc.told
			})
			got := b.do("GET", "/v1/connections/conn_told", "").json
			want := map[string]any{}
			for name, value := range tc.told {
				want[name] = value
			}
			if d := cmp.Diff(want, got["provider_metadata"]); d != "" {
				t.Errorf("provider_metadata (-want +got):\n%s", d)
			}
			if _, link := got["connect_url"]; got["status_reason"] != tc.reason || link != tc.wantConnectURL {
				t.Errorf("status_reason = %v, a link: %v", got["status_reason"], link)
			}
		})
	}
}

func TestImportOfWhatTheProviderTells(t *testing.T) {
	const body = `{"integration":"github","id":"conn_told","access_token":"a"`
	t.Run("given", func(t *testing.T) {
		b := newBench(t, telling(&fakeSource{}))
		b.wants(b.do("POST", importPath+"?verify=false", body+`,"params":{"instance":"canary.evil.test"}}`), 400, "invalid_parameter")
		b.wants(b.do("POST", importPath+"?verify=false", body+`,"params":{"instance":"a.acme.test"}}`), 201, "")
		if c := b.stored("conn_told"); c.Params["instance"] != "a.acme.test" {
			t.Errorf("params = %v", c.Params)
		}
	})
	t.Run("told when asked whose it is", func(t *testing.T) {
		told := map[string]string{"instance": "b.acme.test"}
		b := newBench(t, telling(&fakeSource{account: tokenstore.Account{ID: "7"}, tells: told}))
		got := b.do("POST", importPath, body+"}")
		b.wants(got, 201, "")
		c := b.stored("conn_told")
		if got.json["verified"] != true || got.json["status_reason"] != nil || c.Account.ID != "7" || !maps.Equal(c.Token.Metadata, told) {
			t.Errorf("answer %v, stored %v of %v", got.json, c.Token.Metadata, c.Account)
		}
	})
	t.Run("not told", func(t *testing.T) {
		b := newBench(t, telling(&fakeSource{whose: errors.Join(tokenstore.ErrAccountNeeded, errors.ErrUnsupported)}))
		got := b.do("POST", importPath, body+"}")
		b.wants(got, 201, "")
		if got.json["verified"] != nil || got.json["status_reason"] != "api_unknown" || got.json["connect_url"] == nil {
			t.Errorf("answer %v", got.json)
		}
	})
}

// TestCredentialsWithoutAPlace: a key is stored only if it can be used.
func TestCredentialsWithoutAPlace(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{
		{errors.Join(tokenstore.ErrAccountNeeded, errors.ErrUnsupported), 422, "api_unknown"},
		{errors.Join(tokenstore.ErrAccountNeeded, tokenstore.ErrCredentialRefused), 422, "credentials_refused"},
		{errors.Join(tokenstore.ErrAccountNeeded, tokenstore.ErrNotSent), 503, "source_unavailable"},
	} {
		b := newBench(t, withSource(&fakeSource{err: tc.err}))
		b.wants(b.do("POST", "/v1/connections", `{"integration":"mail","credentials":{"api_key":"k"}}`), tc.status, tc.code)
	}
}
