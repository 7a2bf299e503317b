package provider_test

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// shops is a provider whose customers have hosts of their own, and a path each
// at the token endpoint.
func shops() provider.Entry {
	return provider.Entry{
		Params:       map[string]provider.ParamEntry{"shop": {Title: "Shop"}},
		AuthorizeURL: "https://{shop}.myshop.test/admin/authorize?access=offline",
		TokenURL:     "https://id.myshop.test:8443/{shop}/token",
		RevokeURL:    "https://id.myshop.test/v{shop}.json/{client_id}/token",
		APIURL:       "https://{shop}.myshop.test/api",
		Hosts:        []string{"up-{shop}.files.myshop.test:8443"},
	}
}

func TestFor(t *testing.T) {
	p := newProvider(t, shops())
	if got, want := p.Title(), "myshop.test"; got != want {
		t.Errorf("Title() = %q; want %q", got, want)
	}
	if got := p.API(); got != nil {
		t.Errorf("API() without parameters = %s", got)
	}
	if _, err := p.AuthorizeURL(t.Context(), secret.New("s"), secret.New("v"), nil); !errors.Is(err, provider.ErrParams) {
		t.Errorf("AuthorizeURL() without parameters = %v; want ErrParams", err)
	}
	if _, err := exchange(t.Context(), p); !errors.Is(err, tokenstore.ErrNotSent) {
		t.Errorf("Exchange() without parameters = %v; want ErrNotSent", err)
	}
	acme, err := p.For(map[string]string{"shop": "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := acme.API().String(), "https://acme.myshop.test/api"; got != want {
		t.Errorf("API() = %s; want %s", got, want)
	}
	if diff := cmp.Diff([]string{"up-acme.files.myshop.test:8443"}, acme.Hosts()); diff != "" {
		t.Error(diff)
	}
	got, err := acme.AuthorizeURL(t.Context(), secret.New("s"), secret.New("v"), nil)
	if err != nil || !strings.HasPrefix(got, "https://acme.myshop.test/admin/authorize?access=offline&") {
		t.Errorf("AuthorizeURL() = %s, %v", got, err)
	}
	other, err := acme.For(map[string]string{"shop": "other"})
	if err != nil || other.API().Host != "other.myshop.test" || acme.API().Host != "acme.myshop.test" {
		t.Errorf("For() of a bound provider = %v, %v", other.API(), err)
	}
}

// What is known of an integration's provider is known whatever the parameters.
func TestOrigin(t *testing.T) {
	p := newProvider(t, shops())
	acme, err := p.For(map[string]string{"shop": "acme"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := acme.For(map[string]string{"shop": "other"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Origin() != any(p) || acme.Origin() != p.Origin() || other.Origin() != p.Origin() {
		t.Error("providers that For made of one are of different origins")
	}
	if q := newProvider(t, shops()); q.Origin() == p.Origin() {
		t.Error("two providers are of one origin")
	}
}

// Parameters stand in the requests, at the one host of the provider.
func TestForOnTheWire(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", okBody))
	e := entryAt(l.URL)
	e.Params = map[string]provider.ParamEntry{"tenant": {}}
	e.TokenURL, e.RevokeURL = l.URL+"/{tenant}/token", l.URL+"/{tenant}/{client_id}/revoke"
	p, err := newProvider(t, e).For(map[string]string{"tenant": "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(t.Context(), p); err != nil {
		t.Error(err)
	}
	if err := p.Revoke(t.Context(), oldToken()); err != nil {
		t.Error(err)
	}
	var paths []string
	for _, r := range l.all() {
		paths = append(paths, r.Path)
	}
	if diff := cmp.Diff([]string{"/acme/token", "/acme/client%20id+1/revoke"}, paths); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{l.Listener.Addr().String()}, p.PrivateHosts()); diff != "" {
		t.Error(diff)
	}
}

func TestForWithoutParams(t *testing.T) {
	p := newProvider(t, acme())
	if got, err := p.For(nil); got != p || err != nil {
		t.Errorf("For(nil) = %p, %v; want the provider itself", got, err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = p.For(nil) }); n != 0 {
		t.Errorf("For(nil) allocates %v times", n)
	}
	if _, err := p.For(map[string]string{"shop": "acme"}); !errors.Is(err, provider.ErrParams) {
		t.Errorf("For() with a parameter that is not declared = %v", err)
	}
}

// The values of case A127 and their kin. At connect and at use it is For that
// refuses.
func TestForBreakout(t *testing.T) {
	evil := []string{
		"evil.test/", "evil.test#", "evil.test?", "x@evil.test", "evil.test:443/", "a.b", "%2f", "..", "", strings.Repeat("a", 300),
		"ｅvil", "a/b", "a\\b", "evil.test\\", "a\x00", "a\n", "\na", "a b", "a\t", ".", "-a", "a-", "A", "a_b", "a..b", "%2e%2e", "%252f",
		"a;b", "a&b", "a=b", "[::1]", "127.0.0.1", "a,b", "a'b", "{shop}", "{env.HOME}", "$a", "a:443", ":443", "a*", "ａ", "a。b", "a．b",
		"é", "\xff", strings.Repeat("a", 64), "a\u200b", "a\u0130", "\u017fhop",
	}
	e := shops()
	// The widest pattern there is changes nothing of it.
	wide := shops()
	wide.Params = map[string]provider.ParamEntry{"shop": {Pattern: `(?s).*`}}
	inPath := shops()
	inPath.Params = wide.Params
	inPath.AuthorizeURL, inPath.APIURL, inPath.Hosts = "https://id.myshop.test/a", "https://api.myshop.test/{shop}/v1", nil
	for name, e := range map[string]provider.Entry{"declared form": e, "any form, in a host": wide, "any form, in a path": inPath} {
		t.Run("A127 "+name, func(t *testing.T) {
			p := newProvider(t, e)
			for _, value := range evil {
				got, err := p.For(map[string]string{"shop": value})
				if name == "any form, in a path" && slices.Contains([]string{"a.b", "-a", "a-", "A", "a_b", "a..b", "127.0.0.1"}, value) {
					if err != nil || got.API().String() != "https://api.myshop.test/"+value+"/v1" {
						t.Errorf("For(%q) = %v, %v", value, got.API(), err)
					}
					continue
				}
				if !errors.Is(err, provider.ErrParams) {
					t.Errorf("For(%q) = %v; want ErrParams", value, err)
					continue
				}
				if len(value) > 3 && strings.Contains(err.Error(), value) {
					t.Errorf("For(%q) repeats the value: %v", value, err)
				}
			}
			for _, values := range []map[string]string{nil, {}, {"shop": "a", "x": "b"}, {"Shop": "a"}, {"x": "a"}} {
				if _, err := p.For(values); !errors.Is(err, provider.ErrParams) {
					t.Errorf("For(%v) = %v; want ErrParams", values, err)
				}
			}
		})
	}
}

// A pattern is the form of the whole value, however it is written.
func TestForPattern(t *testing.T) {
	for pattern, bad := range map[string]string{
		"us|eu": "eux", "^us|eu$": "usx", "a$(?m)": "ab", "(?m)^a$": "b", "(?i)a": "b", `\Aa`: "ab", "a*?": "b", "us": "xus",
	} {
		e := shops()
		e.Params = map[string]provider.ParamEntry{"shop": {Pattern: pattern}}
		if _, err := newProvider(t, e).For(map[string]string{"shop": bad}); !errors.Is(err, provider.ErrParams) {
			t.Errorf("pattern %s takes %q: %v", pattern, bad, err)
		}
	}
}

func TestParamsValidate(t *testing.T) {
	tests := map[string]struct {
		change func(*provider.Entry)
		want   string
	}{
		"not declared":          {func(e *provider.Entry) { e.APIURL = "https://{site}.myshop.test" }, "{site}, which is none of its params"},
		"no place":              {func(e *provider.Entry) { e.Params = map[string]provider.ParamEntry{"shop": {}, "x": {}} }, "params.x has no place"},
		"name":                  {func(e *provider.Entry) { e.Params = map[string]provider.ParamEntry{"Shop": {}} }, `"Shop" is not a name`},
		"client_id":             {func(e *provider.Entry) { e.Params = map[string]provider.ParamEntry{"client_id": {}} }, "is one of client_id"},
		"pattern":               {func(e *provider.Entry) { e.Params["shop"] = provider.ParamEntry{Pattern: "a("} }, "not a regular expression"},
		"pattern that breaks":   {func(e *provider.Entry) { e.Params["shop"] = provider.ParamEntry{Pattern: "a)|(b"} }, "not a regular expression"},
		"pattern without end":   {func(e *provider.Entry) { e.Params["shop"] = provider.ParamEntry{Pattern: `\Qa`} }, "does not end"},
		"scheme":                {func(e *provider.Entry) { e.APIURL = "{shop}://a.myshop.test" }, "nowhere else"},
		"user":                  {func(e *provider.Entry) { e.APIURL = "https://{shop}@a.myshop.test" }, "nowhere else"},
		"behind a user":         {func(e *provider.Entry) { e.APIURL = "https://a@{shop}.myshop.test" }, "nowhere else"},
		"port":                  {func(e *provider.Entry) { e.APIURL = "https://a.myshop.test:{shop}" }, "nowhere else"},
		"query":                 {func(e *provider.Entry) { e.TokenURL = "https://a.myshop.test/?a={shop}" }, "nowhere else"},
		"fragment":              {func(e *provider.Entry) { e.TokenURL = "https://a.myshop.test/#{shop}" }, "nowhere else"},
		"whole host":            {func(e *provider.Entry) { e.APIURL = "https://{shop}/api" }, "say with domains in params.shop"},
		"one label behind":      {func(e *provider.Entry) { e.APIURL = "https://{shop}.test/api" }, "a domain of two labels"},
		"last label":            {func(e *provider.Entry) { e.APIURL = "https://myshop.{shop}/api" }, "a domain of two labels"},
		"public suffix":         {func(e *provider.Entry) { e.APIURL = "https://{shop}.co.uk/api" }, "anybody may have one"},
		"public wildcard":       {func(e *provider.Entry) { e.APIURL = "https://{shop}.kobe.jp/api" }, "anybody may have one"},
		"an address":            {func(e *provider.Entry) { e.APIURL = "https://{shop}.0.0.1/api" }, "a domain of two labels"},
		"two in a label":        {func(e *provider.Entry) { e.APIURL = "https://{shop}{shop}.myshop.test" }, "not one {name}"},
		"two in a segment":      {func(e *provider.Entry) { e.APIURL = "https://a.myshop.test/{shop}-{shop}" }, "not one {name}"},
		"open brace":            {func(e *provider.Entry) { e.APIURL = "https://{shop.myshop.test" }, "not one {name}"},
		"closed brace":          {func(e *provider.Entry) { e.APIURL = "https://shop}.myshop.test" }, "not one {name}"},
		"nested":                {func(e *provider.Entry) { e.APIURL = "https://{{shop}}.myshop.test" }, "not one {name}"},
		"backslash":             {func(e *provider.Entry) { e.APIURL = `https://evil.test\{shop}.myshop.test` }, "in which parameters can stand"},
		"host with a path":      {func(e *provider.Entry) { e.Hosts = []string{"a.myshop.test/{shop}"} }, "and nothing else"},
		"no scheme":             {func(e *provider.Entry) { e.APIURL = "{shop}.myshop.test/api" }, "absolute https URL"},
		"http":                  {func(e *provider.Entry) { e.APIURL = "http://{shop}.myshop.test/api" }, "must be https"},
		"issuer":                {func(e *provider.Entry) { e.Issuer = "https://id.myshop.test/{shop}" }, "issuer must not have parameters"},
		"api_url with a query":  {func(e *provider.Entry) { e.APIURL += "/{shop}?a" }, "must not have a query"},
		"authorize_url's state": {func(e *provider.Entry) { e.AuthorizeURL += "&state=x" }, "must not set"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := shops()
			e.Params = maps.Clone(e.Params)
			tt.change(&e)
			if err := e.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate() = %v; want %q in it", err, tt.want)
			}
		})
	}
	if err := shops().Validate(); err != nil {
		t.Error(err)
	}
	for _, good := range []string{"https://{shop}.myshopify.com/api", "https://v-{shop}.example.co.uk/", "https://[2001:4860::1]/{shop}/"} {
		e := shops()
		e.APIURL = good
		if err := e.Validate(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

// Whatever validates and whatever is filled in, the URL has the template's
// scheme, port and domain, and the value is within its label or segment.
func FuzzFill(f *testing.F) {
	for _, tpl := range []string{
		"https://{shop}.myshop.test/api", "https://v{shop}.a.myshop.test:8443/x/{shop}/y", "https://id.myshop.test/{shop}",
		"https://a@{shop}.myshop.test", "https://{shop}.co.uk", "https://{shop}/", `https://evil.test\{shop}.myshop.test`,
		"https://[::1]:80/{shop}", "https://a.b.c/%2f{shop}%2e/..", "https://a.b.c/.{shop}", "{shop}.a.test",
	} {
		for _, value := range []string{"acme", "evil.test/", "x@evil.test", "..", ".", "a.b", "%2f", "ｅvil", "a-", "a\n"} {
			f.Add(tpl, "", value)
			f.Add(tpl, "(?s).*", value)
		}
	}
	f.Fuzz(func(t *testing.T, tpl, pattern, value string) {
		e := provider.Entry{
			Params:       map[string]provider.ParamEntry{"shop": {Pattern: pattern}},
			AuthorizeURL: "https://id.example.com/{shop}/a", TokenURL: "https://id.example.com/t", APIURL: tpl,
		}
		p, err := provider.New(provider.Config{Entry: e, ClientID: "id", RedirectURI: "https://l.example/c"})
		if err != nil {
			return
		}
		defer p.Close()
		filled, err := p.For(map[string]string{"shop": value})
		if err != nil {
			if !errors.Is(err, provider.ErrParams) {
				t.Errorf("For(%q) = %v; want ErrParams", value, err)
			}
			return
		}
		// The probe is a fill that cannot break out.
		plain := strings.ReplaceAll(tpl, "{shop}", "x")
		want, err := url.Parse(plain)
		if err != nil {
			t.Fatalf("%s validates: %v", tpl, err)
		}
		got := filled.API()
		labels, wantLabels := strings.Split(got.Hostname(), "."), strings.Split(want.Hostname(), ".")
		segments, wantSegments := strings.Split(got.EscapedPath(), "/"), strings.Split(want.EscapedPath(), "/")
		switch {
		case got.Scheme != want.Scheme, got.Port() != want.Port(), got.User != nil, got.RawQuery != want.RawQuery, got.Fragment != "",
			len(labels) != len(wantLabels), len(segments) != len(wantSegments):
			t.Fatalf("%s with %q is %s", tpl, value, got)
		}
		if n := len(labels); n > 1 && strings.Contains(tpl[:strings.LastIndex(tpl, labels[n-1])], "{") {
			if !slices.Equal(labels[n-2:], wantLabels[n-2:]) {
				t.Fatalf("%s with %q leads to %s", tpl, value, got.Hostname())
			}
		}
		if strings.Contains(tpl, "{shop}") && (got.String() != strings.ReplaceAll(tpl, "{shop}", value) || !isURLWord(value)) {
			t.Fatalf("%s with %q is %s", tpl, value, got)
		}
	})
}

func isURLWord(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) < 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}
