package api_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// shops makes `gl` an integration with a connection parameter.
func shops(c *api.Config) {
	in := c.Integrations["gl"]
	in.CheckParams = func(params map[string]string) error {
		if len(params) != 1 || params["shop"] != "acme" {
			return errors.New("shop is not of the form acme")
		}
		return nil
	}
	c.Integrations["gl"] = in
}

// The values that package provider refuses are its tests' matter: here every
// refusal is the same.
func TestBeginParams(t *testing.T) {
	b := newBench(t, shops)
	a := b.do("POST", "/v1/connections", `{"integration":"gl","params":{"shop":"acme"}}`)
	b.wants(a, 201, "")
	id := a.json["id"].(string)
	if diff := cmp.Diff(map[string]string{"shop": "acme"}, b.stored(id).Params); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	got := b.do("GET", "/v1/connections/"+id, "").json["params"]
	if diff := cmp.Diff(map[string]any{"shop": "acme"}, got); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
	for name, body := range map[string]string{
		"another value":         `{"integration":"gl","params":{"shop":"canary-evil.test/"}}`,
		"none":                  `{"integration":"gl"}`,
		"empty":                 `{"integration":"gl","params":{}}`,
		"one more":              `{"integration":"gl","params":{"shop":"acme","x":"y"}}`,
		"integration has none":  `{"integration":"github","params":{"shop":"acme"}}`,
		"percent-encoded slash": `{"integration":"gl","params":{"shop":"acme%2f"}}`,
	} {
		t.Run("A127 "+name, func(t *testing.T) {
			a := b.do("POST", "/v1/connections", body)
			b.wants(a, 400, "invalid_parameter")
			if strings.Contains(a.text, "canary") {
				t.Errorf("the answer repeats the value: %s", a.text)
			}
		})
	}
	for name, body := range map[string]string{
		"a list":       `{"integration":"gl","params":["acme"]}`,
		"a number":     `{"integration":"gl","params":{"shop":7}}`,
		"twice":        `{"integration":"gl","params":{"shop":"acme","shop":"acme"}}`,
		"control code": `{"integration":"gl","params":{"shop":"acme\n"}}`,
		"300 long":     `{"integration":"gl","params":{"shop":"` + strings.Repeat("a", 300) + `"}}`,
	} {
		t.Run("A127 "+name, func(_ *testing.T) {
			b.wants(b.do("POST", "/v1/connections", body), 400, "invalid_request")
		})
	}
	all, _, err := b.store.ListConnections(t.Context(), tokenstore.Filter{}, "", 10)
	if err != nil || len(all) != 1 {
		t.Errorf("%d connections are stored, %v; want the one", len(all), err)
	}
}

// A credential is revoked where its connection's parameters lead, and nowhere
// if they lead nowhere.
func TestRevokeParams(t *testing.T) {
	b := newBench(t, shops)
	b.revoker.single = true
	put := func(shop string) string {
		return b.put(func(c *tokenstore.Connection) {
			c.Integration, c.Params = "gl", map[string]string{"shop": shop}
			active("token-" + strings.Trim(shop, "/"))(c)
		}).ID
	}
	good, bad := put("acme"), put("evil/")
	if a := b.do("POST", "/v1/connections/"+good+"/revoke", ""); a.json["provider_revoked"] != true {
		t.Errorf("revoking = %s", a.text)
	}
	a := b.do("DELETE", "/v1/connections/"+bad, "")
	if a.json["provider_revoked"] != false || a.json["provider_revoked_reason"] != "invalid_parameter" {
		t.Errorf("A127 deleting = %s", a.text)
	}
	if got := b.revoker.ledger(); got != "access-token-acme" {
		t.Errorf("the provider was asked to revoke %q", got)
	}
}

// A connection whose parameters the configuration takes no more: its reason is
// told, and no link that leads nowhere.
func TestParamsOfAnotherConfiguration(t *testing.T) {
	b := newBench(t, shops)
	c := b.put(func(c *tokenstore.Connection) {
		c.Integration, c.Params = "gl", map[string]string{"shop": "old.name"}
		active("a")(c)
	})
	a := b.do("GET", "/v1/connections/"+c.ID, "")
	if a.json["status_reason"] != "invalid_parameter" || a.json["connect_url"] != nil {
		t.Errorf("A127 shown as %s", a.text)
	}
	off := b.put(func(c *tokenstore.Connection) {
		c.Integration, c.Params, c.Disabled = "gl", map[string]string{"shop": "old.name"}, true
		active("b")(c)
	})
	for _, tt := range []struct {
		id     string
		what   string
		err    error // the refresher's
		status int
		code   string
	}{
		{c.ID, "refresh", tokenstore.ErrNotActive, 409, "connection_not_active"},
		{c.ID, "refresh", tokenstore.ErrReconnect, 424, "reconnect_required"},
		{c.ID, "connect", nil, 409, "connection_not_active"},
		{off.ID, "refresh", tokenstore.ErrNotActive, 409, "connection_not_active"},
		{off.ID, "connect", nil, 409, "connection_not_active"},
	} {
		t.Run("A127 "+tt.what+" "+tt.code, func(t *testing.T) {
			b.refresher.err = tt.err
			a := b.do("POST", "/v1/connections/"+tt.id+"/"+tt.what, "")
			b.wants(a, tt.status, tt.code)
			if a.json["reason"] != "invalid_parameter" || a.json["connect_url"] != nil {
				t.Errorf("answer = %s", a.text)
			}
		})
	}
}
