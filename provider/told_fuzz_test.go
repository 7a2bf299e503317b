package provider_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
)

// Whatever a provider tells, the token's host stays below the provider's
// domain, and the URL is what it looks like.
func FuzzWith(f *testing.F) {
	for _, value := range []string{
		"https://a.force.test", "A.FORCE.TEST/", "force.test", "https://x@a.force.test", "https://evil.test#.force.test", "a.force.test:443",
		"https://\u212a.force.test", "https://a.force.test.", "a.force.test\n", "xn--a.force.test", "https://a.force.test\\@evil.test", "127.0.0.1",
	} {
		f.Add(value)
	}
	p, err := provider.New(provider.Config{Entry: clouds(), ClientID: clientID, RedirectURI: "https://l.example/cb"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(p.Close)
	f.Fuzz(func(t *testing.T, value string) {
		q, err := p.With(told("instance", value))
		if err != nil {
			if !errors.Is(err, provider.ErrParams) {
				t.Errorf("With(%q) = %v; want ErrParams", value, err)
			}
			return
		}
		u, err := url.Parse(q.API().String())
		if err != nil || u.Scheme != "https" || u.User != nil || u.Port() != "" || u.Path != "/data" || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("With(%q) leads to %s", value, q.API())
		}
		host := u.Hostname()
		if host != "force.test" && !strings.HasSuffix(host, ".force.test") || host != strings.ToLower(host) || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
			t.Fatalf("With(%q) leads to %s", value, host)
		}
		if again, err := p.With(told("instance", host)); err != nil || again.API().Host != host {
			t.Fatalf("With(%q) and With(%q) differ: %v", value, host, err)
		}
	})
}
