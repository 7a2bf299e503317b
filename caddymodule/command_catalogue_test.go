package caddymodule_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/caddymodule"
	"github.com/lanyard-proxy/lanyard/provider"
)

// aside keeps the command from asking a Lanyard that may run on this machine: its
// directory has no key.
func aside(t *testing.T) []string {
	t.Helper()
	t.Setenv("LANYARD_URL", "")
	t.Setenv("LANYARD_API_KEY", "")
	return []string{"--data", t.TempDir()}
}

// names returns the first column of a table without its head.
func names(table string) []string {
	var found []string
	for line := range strings.Lines(table) {
		name, _, _ := strings.Cut(line, " ")
		found = append(found, name)
	}
	return found[min(1, len(found)):]
}

// TestProvidersAreListed without a Lanyard that runs.
func TestProvidersAreListed(t *testing.T) {
	nowhere := aside(t)
	for _, test := range []struct {
		args []string
		want []string
	}{
		{nil, provider.Names()},
		{[]string{"SLACK", "user"}, []string{"slack-user"}},
		{[]string{"docu"}, []string{"docusign"}},
		{[]string{"--scheme", "jwt_bearer"}, []string{"docusign", "github-app", "google", "salesforce"}},
		{[]string{"slack", "--scheme", "OAUTH2"}, []string{"slack", "slack-user"}},
	} {
		out, said, err := caddymodule.Providers(t.Context(), append(test.args, nowhere...)...)
		if err != nil || !slices.Equal(names(out), test.want) || !strings.Contains(said, "Lanyard was not asked") {
			t.Errorf("providers %v = %v, %v; want %v (%s)", test.args, names(out), err, test.want, said)
		}
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nothing near": {[]string{"zzzzzz"}, "caddy lanyard providers lists them; a `provider` block adds one"},
		"a slip":       {[]string{"salesfroce"}, "caddy lanyard providers salesforce"},
		"not running":  {[]string{"--url", "http://127.0.0.1:1"}, "set LANYARD_API_KEY, or say with --data where the data directory is"},
	} {
		if _, _, err := caddymodule.Providers(t.Context(), append(test.args, nowhere...)...); err == nil || caddymodule.NextStep(err) != test.want {
			t.Errorf("%s: %v, next: %q; want %q", name, err, caddymodule.NextStep(err), test.want)
		}
	}
	if _, _, err := caddymodule.Providers(t.Context(), append(nowhere, "--scheme", "OAUTH1")...); err == nil {
		t.Error("an auth scheme that there is not is taken")
	}
}

// TestProvidersAreExplained: what to register, what becomes of tokens, what a
// connection needs, what nobody checked, and a block to begin with.
func TestProvidersAreExplained(t *testing.T) {
	nowhere := aside(t)
	for name, want := range map[string][]string{
		"salesforce": {
			"register a client  https://help.salesforce.com/", "a refresh token works once", "only with the scope refresh_token or offline_access",
			"param instance     Instance; told by the token endpoint (instance_url)", "not checked ", "\tscopes ",
			"\t# param login_host login.salesforce.com\n", "\t# Register {public_url}/callback/salesforce at the provider.\n",
			"refresh_token ",
		},
		"shopify":          {"OAUTH2             X-Shopify-Access-Token: …", "\t# param shop …\n"},
		"instagram":        {"there are no refresh tokens: an access token is renewed with itself", "no way to end a token"},
		"sendgrid":         {"API_KEY            Authorization: Bearer …", "\n\nintegration sendgrid\n"},
		"openweathermap":   {"API_KEY            query parameter appid"},
		"twilio":           {"BASIC              Authorization: Basic …"},
		"revolut-business": {"client_secret is its private key, PEM", "\tclient_secret {file./run/secrets/revolut-business.pem}\n"},
		"ebay":             {"\t# redirect_uri …\n"},
		"battlenet":        {"there are no refresh tokens"},
	} {
		out, _, err := caddymodule.Providers(t.Context(), append(nowhere, name)...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", name, w, out)
			}
		}
	}
	out, _, err := caddymodule.Providers(t.Context(), append(nowhere, "notion", "--json")...)
	var shown struct {
		Name, Source string
		AuthSchemes  []string `json:"auth_schemes"`
	}
	if err != nil || json.Unmarshal([]byte(out), &shown) != nil || shown.Name != "notion" || shown.Source != "catalogue" || len(shown.AuthSchemes) == 0 {
		t.Errorf("--json: %v, %s", err, out)
	}
}

// TestProvidersOfAConfiguration: by its file, and by the Lanyard that runs with
// it.
func TestProvidersOfAConfiguration(t *testing.T) {
	p := newPatient(t, "http://127.0.0.1:1")
	p.write("Caddyfile", p.text, 0o600)
	file := filepath.Join(p.dir, "Caddyfile")
	out, said, err := caddymodule.Providers(t.Context(), "--config", file, "acme")
	if err != nil || said != "" || !strings.Contains(out, " configuration\n") || !strings.Contains(out, " http://127.0.0.1:1\n") {
		t.Errorf("by its file: %v, %s%s", err, said, out)
	}
	if _, _, err := caddymodule.Providers(t.Context(), "--config", filepath.Join(p.dir, "none")); err == nil {
		t.Error("a file that is not there is taken")
	}
	p.write("broken", "{\n\tlanyard {\n\t\tnothing\n\t}\n}\n", 0o600)
	if _, _, err := caddymodule.Providers(t.Context(), "--config", filepath.Join(p.dir, "broken")); err == nil || !strings.Contains(caddymodule.NextStep(err), "doctor") {
		t.Errorf("a broken file: %v", err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"providers": [{"name": "acme", "title": "Acme", "source": "configuration", "auth_schemes": ["OAUTH2"], "api_url": "https://api.acme.example",
			"scopes": [{"scope": "read", "text": "See it"}], "params": [{"name": "shop"}], "notes": ["Mind the gap."]},
			{"name": "slack", "title": "Slack", "source": "catalogue", "auth_schemes": ["OAUTH2"]}]}`))
	}))
	defer srv.Close()
	t.Setenv("LANYARD_API_KEY", doctorAPIKey)
	out, said, err = caddymodule.Providers(t.Context(), "--url", srv.URL, "acme")
	want := "provider  acme\ntitle     Acme\nsource    configuration\nredirect URI {public_url}/callback/acme, where the integration has this name\nAPI       https://api.acme.example\nschemes   OAUTH2\nparams    shop\nnote      Mind the gap.\n\nSCOPE  MEANING\nread   See it\n"
	if err != nil || said != "" || strings.Join(strings.Fields(out), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("by the API: %v, %s%s", err, said, out)
	}
	if out, _, err = caddymodule.Providers(t.Context(), "--url", srv.URL, "slack"); err != nil || !strings.Contains(out, "\tclient_id {env.SLACK_CLIENT_ID}\n") {
		t.Errorf("of the catalogue, by the API: %v, %s", err, out)
	}
}

// TestIntegrationBlocks: each block that the command shows works.
func TestIntegrationBlocks(t *testing.T) {
	p := newPatient(t, "http://127.0.0.1:1")
	p.writeKey()
	var blocks strings.Builder
	for _, name := range provider.Names() {
		env := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		t.Setenv(env+"_CLIENT_ID", "id")
		t.Setenv(env+"_CLIENT_SECRET", doctorSecret)
		e, _ := provider.Lookup(name)
		for param, p := range e.Params {
			if p.Configured() {
				t.Setenv(env+"_"+strings.ToUpper(param), valueOf(p))
			}
		}
		blocks.WriteString(strings.ReplaceAll(caddymodule.IntegrationBlock(name), "/run/secrets/"+name+".pem", filepath.Join(p.dir, "client.pem")))
	}
	p.text = strings.Replace(p.text, "integration acme {", blocks.String()+"integration acme {", 1)
	fine := 0
	for _, f := range p.examine("--offline").Findings {
		if f.Check == "callback" {
			fine++
		}
		// What is to be given by hand stands in the block as a comment.
		if f.Level == "problem" || f.Level == "warning" && f.Check != "data_ephemeral" && f.Check != "config_warning" && f.Check != "redirect_uri_name" {
			t.Errorf("found: %+v", f)
		}
	}
	if fine < 75 {
		t.Errorf("%d integrations have a callback", fine)
	}
}

// valueOf returns a value that a connection parameter may have.
func valueOf(p provider.ParamEntry) string {
	if p.Host {
		return "id.acme.example"
	}
	for _, value := range []string{"acme", "1234567", "ACME1", "amzn1.sellerapps.app.1"} {
		if ok, err := regexp.MatchString(`^(?:`+p.Pattern+`)$`, value); err == nil && ok {
			return value
		}
	}
	return p.Default
}
