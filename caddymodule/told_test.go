package caddymodule_test

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/caddymodule"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// acme tells where its API is, and wants more than a token.
const acme = `"providers": {"acme": {
	"authorize_url": "https://id.acme.example/authorize", "token_url": "https://id.acme.example/token",
	"api_url": "https://{instance}/{region}", "hosts": ["up.{env.ACME_DOMAIN}"],
	"params": {
		"instance": {"from": "answer.instance_url", "domains": ["*.acme.example"]},
		"team": {"from": "answer.team"},
		"region": {"pattern": "eu|us"}
	},
	"inject": {
		"headers": {
			"acme-version": "{env.ACME_VERSION}", "Acme-Team": "{team}", "Acme-Client": "{client_id}", "Acme-Secret": "{client_secret}",
			"Acme-Request": "{uuid}"
		},
		"params": {"v": "3", "team": "{team}"}
	}
}}, "integrations": {"acme": {"client_id": "id", "client_secret": "{env.ACME_SECRET}", "params": {"region": "{env.ACME_REGION}"}, "redirect_uri": "Acme-PRD-1"}}`

func setAcme(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"ACME_DOMAIN": "acme.example", "ACME_VERSION": "2026-01-01", "ACME_SECRET": "canary-secret", "ACME_REGION": "eu",
	} {
		t.Setenv(name, value)
	}
}

func TestUpstreamsThatProvidersTell(t *testing.T) {
	setAcme(t)
	in, err := provision(t, config(t.TempDir(), acme), nil)
	if err != nil {
		t.Fatal(err)
	}
	of := caddymodule.Upstreams(in.app)
	grant := func(told map[string]string) *tokenstore.Grant {
		return &tokenstore.Grant{
			ConnectionID: "conn_a", Integration: "acme", Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2,
			Token: tokenstore.Token{Metadata: told},
		}
	}
	for _, told := range []map[string]string{nil, {"team": "7"}, {"instance": "evil.example"}} {
		if _, reason := of(grant(told)); reason != tokenstore.ReasonAPIUnknown {
			t.Errorf("told %v: reason = %q", told, reason)
		}
	}
	first := grant(map[string]string{"instance": "a.acme.example"})
	up, reason := of(first)
	if reason != "" || up.API.String() != "https://a.acme.example/eu" || !cmp.Equal(up.Hosts, []string{"up.acme.example"}) {
		t.Fatalf("told instance: %+v, %q", up, reason)
	}
	if diff := cmp.Diff([]string{"Acme-Client: id", "Acme-Request: {uuid} UUID", "Acme-Secret: canary-secret", "Acme-Version: 2026-01-01"}, headersOf(up)); diff != "" {
		t.Errorf("headers (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]proxy.InjectedParam{{Name: "v", Value: "3"}}, up.Params); diff != "" || up.ClientSecret.Reveal() != "canary-secret" {
		t.Errorf("parameters (-want +got)\n%s", diff)
	}
	if allocs := testing.AllocsPerRun(100, func() { _, _ = of(first) }); allocs > 0 {
		t.Errorf("%v allocations for an API that is known", allocs)
	}
	// A refresh may tell another.
	up, _ = of(grant(map[string]string{"instance": "b.acme.example", "team": "7"}))
	if up.API.Host != "b.acme.example" || !strings.Contains(strings.Join(headersOf(up), "\n"), "Acme-Team: 7") || len(up.Params) != 2 {
		t.Errorf("told another instance: %+v", up)
	}
}

// headersOf returns the further headers as lines.
func headersOf(up *proxy.Upstream) []string {
	var lines []string
	for _, h := range up.Headers {
		line := h.Name + ": " + h.Value.Reveal()
		if h.UUID {
			line += " UUID"
		}
		lines = append(lines, line)
	}
	return lines
}

// What the configuration fixes, nobody is asked for; and the address of the
// callback may have another name at the provider.
func TestFixedByTheIntegration(t *testing.T) {
	setAcme(t)
	in, err := provision(t, config(t.TempDir(), acme), nil)
	if err != nil {
		t.Fatal(err)
	}
	known, link, err := caddymodule.IntegrationOf(in.app, "acme")
	if err != nil {
		t.Fatal(err)
	}
	if len(known.ParamFields) > 0 || known.CallbackURL != "https://connect.example.com/callback/acme" {
		t.Errorf("the API shows %v and %s", known.ParamFields, known.CallbackURL)
	}
	if err := known.CheckParams(map[string]string{"region": "us"}); err == nil {
		t.Error("a connection may have another region than the integration")
	}
	if u, err := url.Parse(link); err != nil || u.Query().Get("redirect_uri") != "Acme-PRD-1" {
		t.Errorf("the browser is sent to %s", link)
	}
}

// What a provider tells that is only kept makes no API of each connection's own.
func TestUpstreamsThatAreOne(t *testing.T) {
	in, err := provision(t, config(t.TempDir(), `"integrations": {"slack": {"client_id": "id", "client_secret": "s"}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	of := caddymodule.Upstreams(in.app)
	var ups []*proxy.Upstream
	for _, team := range []string{"T1", "T2"} {
		up, reason := of(&tokenstore.Grant{
			ConnectionID: team, Integration: "slack", Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2,
			Token: tokenstore.Token{Metadata: map[string]string{"team_id": team}},
		})
		if up == nil {
			t.Fatal(reason)
		}
		ups = append(ups, up)
	}
	if ups[0] != ups[1] {
		t.Error("two connections that lead to the same API have one each")
	}
}

// Beyond what is remembered one connection's API is forgotten at a time, not all.
func TestUpstreamsAreRemembered(t *testing.T) {
	setAcme(t)
	in, err := provision(t, config(t.TempDir(), acme), nil)
	if err != nil {
		t.Fatal(err)
	}
	const most = 100
	of := caddymodule.FewUpstreams(in.app, most)
	look := func(n int) *proxy.Upstream {
		up, reason := of(&tokenstore.Grant{
			ConnectionID: strconv.Itoa(n), Integration: "acme", Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2,
			Token: tokenstore.Token{Metadata: map[string]string{"instance": "a.acme.example"}},
		})
		if up == nil {
			t.Fatal(reason)
		}
		return up
	}
	ups := make([]*proxy.Upstream, most+1)
	for n := range ups {
		ups[n] = look(n)
	}
	known := 0
	for n := range most / 10 { // each that was forgotten has another forgotten
		if look(n) == ups[n] {
			known++
		}
	}
	if known < most/20 {
		t.Errorf("of %d APIs %d were remembered", most/10, known)
	}
}

// The memory of where connections lead is bounded, however many calls fill it.
func TestAPIsAreBounded(t *testing.T) {
	kept, counted := caddymodule.KeepAPIs(100, 8, 20_000)
	if kept > 200 || kept != counted {
		t.Errorf("%d are kept and %d counted, want 100 or a few more", kept, counted)
	}
}
