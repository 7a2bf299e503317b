package provider_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
)

// Whatever a document says, what is used of it passes the checks of what an
// operator writes by hand, and comes from the issuer byte for byte.
func FuzzDiscovery(f *testing.F) {
	const issuer = "https://id.example"
	good := `"authorization_endpoint":"https://id.example/a","token_endpoint":"https://id.example/t"}`
	f.Add([]byte(`{"issuer":"https://id.example",` + good))
	f.Add([]byte(`{"issuer":"https://id.example","issuer":"https://evil.test",` + good))
	f.Add([]byte(`{"issuer":"https://id.example/",` + good))
	f.Add([]byte(`{"i\u017fsuer":"https://id.example",` + good))
	f.Add([]byte(`{"issuer":"https://id.example","revocation_endpoint":"http://10.0.0.1/r","introspection_endpoint":"https://[::1]/i",` + good))
	f.Add([]byte(`{"issuer":"https://id.example","revocation_endpoint":"https://id.example/{client_id}",` + good))
	f.Add([]byte(`{"issuer":"https://id.example","token_endpoint_auth_methods_supported":["none",7],` + good))
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, e := range []provider.Entry{{Issuer: issuer}, {Issuer: issuer, AllowPrivate: true}} {
			found, err := provider.ReadMetadata(e, doc)
			if err != nil {
				continue
			}
			var read struct{ Issuer string }
			if json.Unmarshal(doc, &read) != nil || namesLike(string(doc), "issuer\x00exact") != 1 {
				t.Fatalf("%q was taken", doc)
			}
			e.AuthorizeURL, e.TokenURL = found["authorization_endpoint"], found["token_endpoint"]
			e.RevokeURL, e.IntrospectURL = found["revocation_endpoint"], found["introspection_endpoint"]
			e.APIURL = "https://api.example"
			if err := e.Validate(); err != nil {
				t.Fatalf("%q was taken: %v", doc, err)
			}
			for name, value := range found {
				if strings.ContainsAny(value, "\r\n\x00 ") && !strings.Contains(value, "?") {
					t.Fatalf("%s is %q", name, value)
				}
			}
		}
	})
}
