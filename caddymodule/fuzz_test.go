package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/lanyard-proxy/lanyard/caddymodule"
)

// fuzzBlock has a module read any text, from which comes an error, or a
// configuration that is the same once it was written and read.
func fuzzBlock(f *testing.F, newModule func() caddyfile.Unmarshaler) {
	f.Helper()
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		m := newModule()
		if m.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)) != nil {
			return
		}
		first, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%q gives what can't be written: %v", text, err)
		}
		again := newModule()
		dec := json.NewDecoder(bytes.NewReader(first))
		dec.DisallowUnknownFields()
		if err := dec.Decode(again); err != nil {
			t.Fatalf("%q gives %s, which can't be read: %v", text, first, err)
		}
		if second, err := json.Marshal(again); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%q gives\n%s, then\n%s, %v", text, first, second, err)
		}
	})
}

func FuzzLanyardBlock(f *testing.F) {
	for _, block := range []string{
		"public_url https://a.test\nstore badger /d\nkeyset {env.K}\napi_key a\napi_key b\ncompletion off\nredirect_url https://b.test/x",
		"client app {env.KEY} {\nintegrations a\nusers u1 \"u 2\"\nmethods GET\npaths /a/* up.test/x\n}\nintegration a {\nprovider github\nclient_id x\n}",
		"integration github {\nclient_id a\nclient_secret b\nscopes \"c d\" e\nreview on\n}",
		"provider acme {\nissuer https://a.test\napi_url https://a.test\nhosts a b\nclient_auth none\nscopes x\nallow_private\n}\nintegration acme {\nclient_id x\n}",
		"provider acme {\nparam shop [a-z]+ {\nfrom answer.x\nhost\n}\ntoken {\nparam a b\ndrop x y\n}\nexchange {\n}\nrefresh {\nconcurrency 4\nsend_scope\n}\ninject {\nset A b\n}\nnote \"a b\"\n}",
		"provider a {\ntoken\n}", "provider a {\nrefresh {\nconcurrency -1\n}\n}", "provider a {\naccount {\n}\n}", "client a", "client a b {", "client a b {\nusers\n}", "integration {\n}", "}", "\"", "<<X\nX",
	} {
		f.Add("lanyard {\n" + block + "\n}")
	}
	fuzzBlock(f, func() caddyfile.Unmarshaler { return new(caddymodule.App) })
}

func FuzzProxyBlock(f *testing.F) {
	for _, text := range []string{
		"lanyard_proxy", "lanyard_proxy github", "lanyard_proxy a b", "lanyard_proxy {\nopen\npath\nlinks off\nscrub on\nnames a.test\nallow_origin https://b.test\nspool 1MiB\n}",
		"lanyard_proxy {\ntransport {\ndial_timeout 3s\ntls_insecure_skip_verify\nversions 1.1 2\n}\n}", "lanyard_proxy {\ntransport {\n}\ntransport {\n}\n}",
		"lanyard_proxy {\ntransport\n}", "lanyard_proxy {\nspool\n}", "lanyard_proxy {",
	} {
		f.Add(text)
	}
	fuzzBlock(f, func() caddyfile.Unmarshaler { return new(caddymodule.Proxy) })
}

func FuzzTransportBlock(f *testing.F) {
	for _, text := range []string{
		"lanyard", "lanyard {\nintegration a\nopen\nallow_origin https://b.test\nread_buffer 4k\nresolvers 1.1.1.1\n}", "lanyard {\nkeepalive 9s\n}",
		"lanyard {\nopne\n}", "lanyard {\ntls\nopen\n}", "lanyard x", "lanyard {\nversions 1.1 {\n}\n}",
	} {
		f.Add(text)
	}
	fuzzBlock(f, func() caddyfile.Unmarshaler { return new(caddymodule.Transport) })
}
