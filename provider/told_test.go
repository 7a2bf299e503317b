package provider_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// clouds is a provider that says with the token where the account's API is, and
// asks nobody but the operator where people log in.
func clouds() provider.Entry {
	return provider.Entry{
		Params: map[string]provider.ParamEntry{
			"instance": {Domains: []string{"*.force.test", "force.test"}, From: "answer.instance_url"},
			"login":    {Domains: []string{"*.login.test"}, Host: true, Default: "login.force.test"},
			"org":      {From: "answer.org"},
		},
		AuthorizeURL: "https://{login}/authorize", TokenURL: "https://{login}/token",
		APIURL: "https://{instance}/data", Hosts: []string{"{instance}", "files.force.test"},
		Inject: provider.InjectEntry{Headers: map[string]string{"X-Org": "{org}", "X-Version": "7"}},
	}
}

func told(name, value string) *tokenstore.Token {
	return &tokenstore.Token{AccessToken: secret.New("a"), Metadata: map[string]string{name: value}}
}

// A token endpoint, or somebody in its place, does not choose where the token
// goes.
func TestWithHosts(t *testing.T) {
	p := newProvider(t, clouds())
	for value, want := range map[string]string{ // :: what is told → the host; empty: none
		"https://a.force.test":                   "a.force.test",
		"https://a.b-c.force.test/":              "a.b-c.force.test",
		"A.Force.Test":                           "a.force.test",
		"https://force.test":                     "force.test",
		"xn--bcher-kva.force.test":               "xn--bcher-kva.force.test",
		"https://evil.example":                   "",
		"https://a.force.test.evil.test":         "",
		"https://evilforce.test":                 "",
		"https://x@a.force.test":                 "",
		"https://evil.test#.force.test":          "",
		"https://evil.test?.force.test":          "",
		"https://evil.test/.force.test":          "",
		`https://evil.test\.force.test`:          "",
		"https://a.force.test.":                  "",
		"https://a.force.test:443":               "",
		"https://a.force.test:8443":              "",
		"a.force.test:443":                       "",
		"https://a.force.test/path":              "",
		"https://a.force.test//":                 "",
		"https://a.force.test?x=1":               "",
		"https://a.force.test#x":                 "",
		"http://a.force.test":                    "",
		"HTTPS://a.force.test":                   "",
		"//a.force.test":                         "",
		"https://https://a.force.test":           "",
		"https://bücher.force.test":              "",
		"https://a。force.test":                   "",
		"https://\u212a.force.test":              "", // lowered, it is a k
		"https://a.\u017force.test":              "",
		"https://.force.test":                    "",
		"https://a..force.test":                  "",
		"https://-a.force.test":                  "",
		"https://a_b.force.test":                 "",
		"https://127.0.0.1":                      "",
		"https://[::1]":                          "",
		"https://localhost":                      "",
		"https://{login}":                        "",
		"https://a.force.test\n":                 "",
		"\nhttps://a.force.test":                 "",
		"https://a%2eforce.test":                 "",
		"":                                       "",
		strings.Repeat("a.", 130) + "force.test": "",
	} {
		q, err := p.With(told("instance", value))
		if want == "" {
			if !errors.Is(err, provider.ErrParams) || value != "" && strings.Contains(err.Error(), value) {
				t.Errorf("With(%q) = %v; want ErrParams without the value", value, err)
			}
			continue
		}
		if err != nil || q.API().String() != "https://"+want+"/data" || !cmp.Equal(q.Hosts(), []string{want, "files.force.test"}) {
			t.Errorf("With(%q) = %v, %v; want the host %s", value, q, err, want)
		}
	}
}

func TestWith(t *testing.T) {
	p := newProvider(t, clouds())
	if got := p.API(); got != nil {
		t.Errorf("API() before it is told = %s", got)
	}
	if got, want := p.Title(), "force.test"; got != want {
		t.Errorf("Title() = %q; want %q", got, want)
	}
	if q, err := p.For(nil); q != p || err != nil {
		t.Errorf("For(nil) = %p, %v; want the provider itself: nobody is asked for anything but what has a default", q, err)
	}
	for _, tok := range []*tokenstore.Token{{}, told("org", "x"), told("unheard", "x")} {
		if _, err := p.With(tok); !errors.Is(err, provider.ErrParams) || !strings.Contains(err.Error(), "instance is missing") {
			t.Errorf("With() without what api_url needs = %v; want ErrParams", err)
		}
	}
	// What was imported is known before anything is told, and what is told then
	// wins.
	imported, err := p.For(map[string]string{"instance": "https://a.force.test"})
	if err != nil || imported.API().Host != "a.force.test" {
		t.Fatalf("For() = %v", err)
	}
	if q, err := imported.With(told("instance", "b.force.test")); err != nil || q.API().Host != "b.force.test" || q.Origin() != p.Origin() {
		t.Errorf("With() = %v", err)
	}
	plain := newProvider(t, acme())
	if q, err := plain.With(told("instance", "x")); q != plain || err != nil {
		t.Errorf("With() where nothing is told = %p, %v; want the provider itself", q, err)
	}
}

// What the configuration fixes is nobody's else to give.
func TestConfigParams(t *testing.T) {
	e := clouds()
	e.Params["shop"] = provider.ParamEntry{}
	e.AuthorizeURL += "/{shop}"
	config := func(params map[string]string) (*provider.Provider, error) {
		return provider.New(provider.Config{
			Entry: e, ClientID: clientID, ClientSecret: secret.New(clientSecret), RedirectURI: "https://l.example/cb", Params: params,
		})
	}
	for name, tt := range map[string]struct {
		params map[string]string
		want   string
	}{
		"unknown":       {map[string]string{"shopp": "x"}, "param shopp is none of the provider's, which has instance, login, org, shop"},
		"form":          {map[string]string{"shop": "A/b"}, "param shop is not of the form ^[a-z0-9]"},
		"no host":       {map[string]string{"login": "https://a.example/x"}, "param login is not a host name"},
		"outside":       {map[string]string{"instance": "evil.example"}, "param instance is not one of the provider's hosts: *.force.test, force.test"},
		"this machine":  {map[string]string{"login": "localhost"}, "param login is not a host name"},
		"an address":    {map[string]string{"login": "10.0.0.1"}, "param login is not a host name"},
		"another's":     {map[string]string{"login": "login.acme.example"}, ""},
		"from a URL":    {map[string]string{"login": "https://Login.Acme.Example/", "shop": "one"}, ""},
		"what is asked": {map[string]string{"shop": "one"}, ""},
	} {
		p, err := config(tt.params)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: New() = %v; want %q", name, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: New() = %v", name, err)
			continue
		}
		p.Close()
	}
	p, err := config(map[string]string{"login": "login.acme.example", "shop": "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if f := p.ParamFields(); len(f) != 0 {
		t.Errorf("ParamFields() = %v; want none", f)
	}
	link, err := p.AuthorizeURL(t.Context(), secret.New("s"), secret.New("v"), nil)
	if err != nil || !strings.HasPrefix(link, "https://login.acme.example/authorize/one?") {
		t.Errorf("AuthorizeURL() = %s, %v", link, err)
	}
	for name, values := range map[string]map[string]string{"shop": {"shop": "two"}, "login": {"login": "login.force.test"}} {
		if _, err := p.For(values); !errors.Is(err, provider.ErrParams) {
			t.Errorf("For() with another %s than the fixed one = %v; want ErrParams", name, err)
		}
	}
	if _, err := p.For(map[string]string{"shop": "one"}); err != nil {
		t.Errorf("For() with the fixed value = %v", err)
	}
	fixed, err := config(map[string]string{"instance": "a.force.test", "shop": "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fixed.Close)
	if q, err := fixed.With(told("instance", "b.force.test")); err != nil || q.API().Host != "a.force.test" {
		t.Errorf("With() = %v; want the host that is fixed", err)
	}
}

// The client's secret goes to the host that people log in at: nobody but the
// operator chooses one outside domains.
func TestHostOfOperator(t *testing.T) {
	p := newProvider(t, clouds())
	for value, ok := range map[string]bool{
		"eu.login.test": true, "login.force.test": true, "": true, "login.evil.test": false, "login.test": false,
	} {
		q, err := p.For(map[string]string{"login": value})
		if (err == nil) != ok || !ok && !errors.Is(err, provider.ErrParams) {
			t.Errorf("For(%q) = %v, %v", value, q, err)
		}
	}
	tok := told("login", "eu.login.test")
	tok.Metadata["instance"] = "a.force.test"
	q, err := p.With(tok)
	if err != nil {
		t.Fatal(err)
	}
	if link, err := q.AuthorizeURL(t.Context(), secret.New("s"), secret.New("v"), nil); err != nil || !strings.HasPrefix(link, "https://login.force.test/") {
		t.Errorf("AuthorizeURL() = %s, %v: With() took a value that no provider tells", link, err)
	}
	var fields []string
	for _, f := range p.ParamFields() {
		fields = append(fields, f.Name)
		if !f.Optional || f.Pattern != "" {
			t.Errorf("ParamFields() = %+v; want one that may be left out", f)
		}
	}
	if diff := cmp.Diff([]string{"login"}, fields); diff != "" {
		t.Error(diff)
	}
	e := clouds()
	e.Params["login"] = provider.ParamEntry{Host: true}
	_, err = provider.New(provider.Config{Entry: e, ClientID: clientID, RedirectURI: "https://l.example/cb"})
	if err == nil || !strings.Contains(err.Error(), "param login is missing") {
		t.Errorf("New() without a host that only it can say = %v", err)
	}
}

// Where a client is one customer's, nobody who connects has its secret sent to
// another.
func TestFixedParams(t *testing.T) {
	e := clouds()
	e.APIURL = "https://{shop}.force.test"
	e.Params["shop"] = provider.ParamEntry{Fixed: true}
	config := provider.Config{Entry: e, ClientID: clientID, RedirectURI: "https://l.example/cb"}
	if _, err := provider.New(config); err == nil || !strings.Contains(err.Error(), "param shop is missing") {
		t.Errorf("New() = %v", err)
	}
	config.Params = map[string]string{"shop": "one"}
	p, err := provider.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if slices.ContainsFunc(p.ParamFields(), func(f tokenstore.Field) bool { return f.Name == "shop" }) {
		t.Error("people are asked for it")
	}
	if _, err := p.For(map[string]string{"shop": "two"}); !errors.Is(err, provider.ErrParams) {
		t.Errorf("For() with another = %v; want ErrParams", err)
	}
}

// Hosts that may be private are the same for all connections.
func TestPrivateParams(t *testing.T) {
	e := clouds()
	e.AllowPrivate = true
	config := provider.Config{Entry: e, ClientID: clientID, RedirectURI: "https://l.example/cb"}
	if _, err := provider.New(config); err == nil || !strings.Contains(err.Error(), "allow_private does not go with") {
		t.Errorf("New() = %v", err)
	}
	config.Params = map[string]string{"login": "id.corp.example", "instance": "a.force.test"}
	p, err := provider.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if diff := cmp.Diff([]string{"a.force.test", "files.force.test", "a.force.test"}, p.PrivateHosts()); diff != "" {
		t.Error(diff)
	}
}

// What is kept for the app alone may be any text of a line.
func TestWithText(t *testing.T) {
	p := newProvider(t, clouds())
	tok := told("instance", "a.force.test")
	tok.Metadata["org"] = "Acme / 7: x"
	q, err := p.With(tok)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"X-Org: Acme / 7: x true", "X-Version: 7 false"}
	if diff := cmp.Diff(want, headersOf(q)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"X-Org:  true", "X-Version: 7 false"}, headersOf(p)); diff != "" {
		t.Errorf("before it is told: %s", diff)
	}
	for _, bad := range []string{"a\r\nX-Evil: 1", "a\x00", "", strings.Repeat("a", 2000), "é"} {
		tok.Metadata["org"] = bad
		if _, err := p.With(tok); !errors.Is(err, provider.ErrParams) {
			t.Errorf("With(%q) = %v; want ErrParams", bad, err)
		}
	}
}

// With a key comes no token endpoint's answer: people say what it would.
func TestAskedWithKey(t *testing.T) {
	e := clouds()
	e.Key = provider.KeyEntry{Header: "X-Key"}
	p, err := provider.New(provider.Config{Entry: e, Scheme: tokenstore.AuthAPIKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	var asked []string
	for _, f := range p.ParamFields() {
		asked = append(asked, f.Name)
	}
	if diff := cmp.Diff([]string{"instance", "login"}, asked); diff != "" {
		t.Error(diff)
	}
	if _, err := p.For(nil); !errors.Is(err, provider.ErrParams) {
		t.Errorf("For() = %v; want ErrParams", err)
	}
	q, err := p.For(map[string]string{"instance": "https://a.force.test"})
	if err != nil || q.API().Host != "a.force.test" {
		t.Errorf("For() = %v", err)
	}
	if _, err := p.For(map[string]string{"instance": "evil.test"}); !errors.Is(err, provider.ErrParams) {
		t.Errorf("For() outside of domains = %v; want ErrParams", err)
	}
}
