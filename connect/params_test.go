package connect_test

import (
	"errors"
	"html"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// shops makes `github` an integration with a connection parameter. The values
// that package provider refuses are its tests' matter: here every refusal is the
// same.
func shops(good *string) func(*bench) {
	return func(b *bench) {
		in := b.cfg.Integrations["github"]
		p := in.Provider
		in.Provider = nil // is for nobody
		in.For = func(params map[string]string) (connect.Provider, error) {
			if len(params) != 1 || params["shop"] != *good {
				return nil, errors.New("shop is not of its form")
			}
			return p, nil
		}
		b.cfg.Integrations["github"] = in
	}
}

func shop(name string) func(*connect.Params) {
	return func(p *connect.Params) { p.Params = map[string]string{"shop": name} }
}

func TestParams(t *testing.T) {
	good := "acme"
	b := newBench(t, shops(&good))
	br := b.browser()
	w := br.callback(br.open(b.link(shop("acme"))))
	if w.Code != http.StatusSeeOther {
		t.Fatalf("callback = %d", w.Code)
	}
	if n := len(b.connections()); n != 1 {
		t.Fatalf("%d connections; want 1", n)
	}
	c := b.connections()[0]
	if diff := cmp.Diff(map[string]string{"shop": "acme"}, c.Params); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}

	// A reconnect has the connection's own, said again or not.
	again := func(p *connect.Params) { p.ConnectionID = c.ID }
	for _, change := range [][]func(*connect.Params){{again}, {again, shop("acme")}} {
		b.browser().open(b.link(change...))
	}
	if w := b.browser().get(b.link(again, shop("other"))); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "link_invalid") {
		t.Errorf("A127 a reconnect with other parameters: %d", w.Code)
	}
}

func TestParamsRefused(t *testing.T) {
	good := "acme"
	b := newBench(t, shops(&good))
	for name, change := range map[string]func(*connect.Params){
		"none":          func(*connect.Params) {},
		"another value": shop("canary-evil.test/"),
		"one more":      func(p *connect.Params) { p.Params = map[string]string{"shop": "acme", "x": "y"} },
	} {
		t.Run("A127 "+name, func(t *testing.T) {
			w := b.browser().get(b.link(change))
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "invalid_parameter") {
				t.Errorf("%d %s; want 400 and invalid_parameter", w.Code, w.Body)
			}
			if w.Header().Get("Location") != "" || strings.Contains(w.Body.String(), "canary") || len(w.Result().Cookies()) != 0 {
				t.Error("the browser was sent on, was told the value, or got a cookie")
			}
		})
	}
	t.Run("A127 the integration has none", func(t *testing.T) {
		w := newBench(t).browser().get(b.link(shop("acme")))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "invalid_parameter") {
			t.Errorf("%d; want 400 and invalid_parameter", w.Code)
		}
	})
	t.Run("A127 valid at the link, not at the callback", func(t *testing.T) {
		br := b.browser()
		state := br.open(b.link(shop("acme")))
		good = "other" // by another configuration
		defer func() { good = "acme" }()
		w := br.callback(state)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "invalid_parameter") {
			t.Errorf("%d; want 400 and invalid_parameter", w.Code)
		}
	})
	if n := b.p.exchanged(); n != 0 {
		t.Errorf("%d codes were exchanged", n)
	}
	if n := len(b.connections()); n != 0 {
		t.Errorf("%d connections; want none", n)
	}
}

// Where the user chooses, only what the link's parameters are for is offered.
func TestParamsChoose(t *testing.T) {
	good := "acme"
	b := newBench(t, shops(&good), func(b *bench) {
		b.cfg.Integrations["plain"] = connect.Integration{Name: "plain", Title: "Plain", Provider: b.p}
	})
	none := func(p *connect.Params) { p.Integration = "" }
	for want, link := range map[string]string{"Plain": b.link(none), "GitHub": b.link(none, shop("acme"))} {
		body := b.browser().get(link).Body.String()
		if strings.Contains(body, "Plain") != (want == "Plain") || strings.Contains(body, "GitHub") != (want == "GitHub") {
			t.Errorf("the page does not offer %s alone:\n%s", want, body)
		}
	}
}

func TestParamsOfNoIntegration(t *testing.T) {
	good := "acme"
	b := newBench(t, shops(&good), func(b *bench) { b.cfg.Integrations["other"] = b.cfg.Integrations["github"] })
	w := b.browser().get(b.link(func(p *connect.Params) { p.Integration = "" }))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "invalid_parameter") {
		t.Errorf("a link that leaves nothing to choose: %d %s; want 400 and invalid_parameter", w.Code, w.Body)
	}
}

func TestSignParams(t *testing.T) {
	s := signer(public, apiKey)
	link := s.Sign(connect.Params{Params: map[string]string{"shop": "acme", "a": "b"}}, time.Now().Add(time.Minute))
	_, query, _ := strings.Cut(link, "?")
	p, err := s.Verify(query, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"shop": "acme", "a": "b"}, p.Params); diff != "" {
		t.Error(diff)
	}
}

// shopFields makes `github` ask for a shop and a region.
func shopFields(b *bench) {
	b.p.params = []tokenstore.Field{{Name: "region", Pattern: "^eu|us$"}, {Name: "shop", Pattern: "[a-z]+"}}
	in := b.cfg.Integrations["github"]
	in.For = func(params map[string]string) (connect.Provider, error) {
		if len(params) != 2 || params["shop"] == "" || params["region"] == "" || params["shop"] == "never" {
			return nil, errors.New("params are not of their form")
		}
		return b.p, nil
	}
	b.cfg.Integrations["github"] = in
}

func TestAskForParams(t *testing.T) {
	b := newBench(t, shopFields)
	br := b.browser()
	f := br.form(br.get(b.link(func(p *connect.Params) { p.Params = map[string]string{"region": "eu"} })), 200)
	if f.action != "params" || len(br.jar) != 0 || f.values.Has("field_region") {
		t.Errorf("form to %s with %v, cookies %v", f.action, f.values, br.jar)
	}
	for _, bad := range []string{"", "Not one", "acme.evil.test", "never"} {
		f = br.form(f.send("shop", bad), 422)
		if f.values.Get("field_shop") != bad {
			t.Errorf("form has %v after %q", f.values, bad)
		}
	}
	if len(br.jar) != 0 {
		t.Error("a flow began")
	}
	w := f.send("shop", "acme")
	m := continueLink.FindStringSubmatch(w.Body.String())
	if w.Code != 200 || m == nil {
		t.Fatalf("got %d %v\n%s\nwant the review page", w.Code, w.Header(), w.Body)
	}
	state := mustURL(html.UnescapeString(m[1])).Query().Get("state")
	q := wantApp(t, br.callback(state), "")
	c := b.connection(q.Get("connection_id"))
	if diff := cmp.Diff(map[string]string{"shop": "acme", "region": "eu"}, c.Params); diff != "" {
		t.Errorf("params (-want +got):\n%s", diff)
	}

	// With keys, the form for the key comes next.
	withKeys(b)
	f = br.form(br.get(b.link()), 200)
	f = br.form(f.send("shop", "acme", "region", "us"), 200)
	q = wantOnward(t, f.send("api_key", goodKey), "")
	if c := b.connection(q.Get("connection_id")); c.Params["region"] != "us" {
		t.Errorf("connection %+v", c)
	}
}

// TestAskForParamsWithDefaults: what may be left empty is marked so, and what can't
// be used is named at its field.
func TestAskForParamsWithDefaults(t *testing.T) {
	b := newBench(t, shopFields, func(b *bench) {
		for i := range b.p.params {
			b.p.params[i].Pattern = ""
		}
		b.p.params[0].Optional, b.p.params[0].Default = true, "eu"
		in := b.cfg.Integrations["github"]
		in.For = func(params map[string]string) (connect.Provider, error) {
			if params["region"] == "never" || params["shop"] == "never" {
				return nil, errors.New("params are not of their form")
			}
			return b.p, nil
		}
		b.cfg.Integrations["github"] = in
	})
	br := b.browser()
	page := br.get(b.link())
	for _, want := range []string{"Optional. Left empty, it is eu.", `aria-describedby="f-region-hint"`} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	f := br.form(page, 200)
	for _, test := range []struct {
		region, shop string
		want, not    string
	}{
		{"never", "acme", `id="f-region-error"`, `id="f-shop-error"`},
		{"us", "never", `id="f-shop-error"`, `id="f-region-error"`},
		{"never", "never", `id="f-shop-error"`, `id="f-region-error"`},
	} {
		w := f.send("region", test.region, "shop", test.shop)
		if body := w.Body.String(); !strings.Contains(body, test.want) || strings.Contains(body, test.not) {
			t.Errorf("%s, %s: %s", test.region, test.shop, body)
		}
		f = br.form(w, 422)
	}
	if w := f.send("region", "", "shop", "acme"); w.Code != 200 || !continueLink.MatchString(w.Body.String()) {
		t.Errorf("left empty: %d", w.Code)
	}
}

// TestDefaultsAreNotAskedFor: where every parameter has a default nobody is kept.
func TestDefaultsAreNotAskedFor(t *testing.T) {
	b := newBench(t, shopFields, func(b *bench) {
		for i := range b.p.params {
			b.p.params[i].Optional = true
		}
		in := b.cfg.Integrations["github"]
		in.For = func(map[string]string) (connect.Provider, error) { return b.p, nil }
		b.cfg.Integrations["github"] = in
	})
	if w := b.browser().get(b.link()); w.Code != 303 || !strings.HasPrefix(w.Header().Get("Location"), "https://idp.example/") {
		t.Errorf("got %d %v; want the way to the provider", w.Code, w.Header())
	}
}

func TestAskForParamsRefused(t *testing.T) {
	b := newBench(t, shopFields)
	br := b.browser()
	given := func(params map[string]string) func(*connect.Params) {
		return func(p *connect.Params) { p.Params = params }
	}
	for _, params := range []map[string]string{{"other": "x"}, {"shop": "acme", "other": "x"}, {"shop": "NOT"}, {"shop": "acme", "region": "eu", "x": "y"}} {
		wantPage(t, br.get(b.link(given(params))), 400, "invalid_parameter")
	}
	f := br.form(br.get(b.link()), 200)
	link := f.values.Get("state")
	f.values.Set("state", strings.Replace(link, "user_id=u1", "user_id=u2", 1))
	wantPage(t, f.send("shop", "acme", "region", "eu"), 400, "link_invalid")
	expired := b.signer.Sign(connect.Params{Integration: "github", RedirectURL: appURL}, time.Now().Add(-time.Second))
	_, f.values["state"][0], _ = strings.Cut(expired, "?")
	wantPage(t, f.send("shop", "acme", "region", "eu"), 410, "link_expired")
	if len(br.jar) != 0 {
		t.Error("a flow began")
	}
}
