package caddymodule_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
)

// integrate adds an integration to the configuration, with its options and
// whatever else belongs to the `lanyard` block.
func (p *patient) integrate(name, block string, more ...string) {
	p.t.Helper()
	text := "integration " + name + " {\n"
	for line := range strings.SplitSeq(block, "\n") {
		text += "\t\t\t" + line + "\n"
	}
	text += "\t\t}\n\t\t"
	for _, m := range more {
		text += m + "\n\t\t"
	}
	p.swap("integration acme {", text+"integration acme {")
}

// writeKey writes a private key, client.pem.
func (p *patient) writeKey() {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write("client.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), 0o600)
}

const client = "client_id x\nclient_secret {env.DOCTOR_CLIENT_SECRET}"

// TestDoctorKnowsEntries seeds mistakes that only the provider's entry shows.
func TestDoctorKnowsEntries(t *testing.T) {
	for name, test := range map[string]struct {
		integration, block string
		more               []string
		want               seeded
	}{
		"no scope that brings a refresh token": {
			integration: "salesforce", block: client + "\nscopes api",
			want: seeded{"offline_scope", "warning", "add refresh_token", "scopes api"},
		},
		"no scopes at all": {
			integration: "x-twitter", block: client,
			want: seeded{"offline_scope", "warning", "add offline.access", "integration x-twitter"},
		},
		"own provider without what brings a refresh token": {
			integration: "google", block: client,
			more: []string{"provider google {\n\t\t\tissuer https://accounts.google.com\n\t\t\tapi_url https://www.googleapis.com\n\t\t}"},
			want: seeded{"authorize_param", "warning", "use the catalogue's: `provider google`", "provider google"},
		},
		"own provider of another name without it": {
			integration: "mine", block: client,
			more: []string{"provider mine {\n\t\t\tissuer https://accounts.google.com\n\t\t\tapi_url https://www.googleapis.com\n\t\t}"},
			want: seeded{"authorize_param", "warning", "use the catalogue's: `provider google`", "provider mine"},
		},
		"own provider in the place of the catalogue's": {
			integration: "spotify", block: client,
			more: []string{"provider spotify {\n\t\t\tissuer https://accounts.spotify.com\n\t\t\tapi_url https://api.spotify.com\n\t\t}"},
			want: seeded{"provider_own", "info", "", "provider spotify"},
		},
		"host that only the configuration can say": {
			integration: "forge", block: client,
			more: []string{"provider forge {\n\t\t\tparam host {\n\t\t\t\thost\n\t\t\t}\n\t\t\tauthorize_url https://{host}/a\n\t\t\ttoken_url https://{host}/t\n\t\t\tapi_url https://{host}/api\n\t\t}"},
			want: seeded{"integration_invalid", "problem", "says what it may be", "integration forge"},
		},
		"param not of its form": {
			integration: "zendesk", block: client + "\nparam subdomain https://acme.zendesk.com",
			want: seeded{"integration_invalid", "problem", "says what it may be", "param subdomain"},
		},
		"param that the provider does not have": {
			integration: "zendesk", block: client + "\nparam shop acme",
			want: seeded{"integration_invalid", "problem", "says what it may be", "param shop"},
		},
		"host of the customer's own": {
			integration: "okta", block: client + "\nscopes offline_access\nparam domain acme.okta.co",
			want: seeded{"param_host", "info", "", "param domain"},
		},
		"mistake in a provider of one's own": {
			integration: "mine", block: client,
			more: []string{"provider mine {\n\t\t\tauthorize_url https://id.open.example/a\n\t\t\ttoken_url https://id.open.example/t\n\t\t\tapi_url https://api.open.example\n\t\t\tanswer {\n\t\t\t\tlife long\n\t\t\t}\n\t\t}"},
			want: seeded{"integration_invalid", "problem", "correct the provider", "provider mine"},
		},
		"param that is not set": {
			integration: "zendesk", block: client + "\nparam subdomain {env.DOCTOR_UNSET}",
			want: seeded{"env_not_set", "problem", "set DOCTOR_UNSET", "param subdomain"},
		},
		"client without a secret": {
			integration: "github", block: "client_id x",
			want: seeded{"client_public", "warning", "give its client_secret", "client_id x"},
		},
		"client without a secret or PKCE": {
			integration: "open", block: "client_id x",
			more: []string{"provider open {\n\t\t\tauthorize_url https://id.open.example/a\n\t\t\ttoken_url https://id.open.example/t\n\t\t\tapi_url https://api.open.example\n\t\t\tauthorize {\n\t\t\t\tpkce_off \"it answers 400\"\n\t\t\t}\n\t\t}"},
			want: seeded{"client_open", "problem", "register a client with a secret", "client_id x"},
		},
		"secret that its requests need": {
			integration: "shopify", block: "client_id x",
			want: seeded{"integration_invalid", "problem", "shows how the provider knows its clients", "integration shopify"},
		},
		"secret of a public client": {
			integration: "public", block: client,
			more: []string{"provider public {\n\t\t\tauthorize_url https://id.open.example/a\n\t\t\ttoken_url https://id.open.example/t\n\t\t\tapi_url https://api.open.example\n\t\t\tclient_auth none\n\t\t}"},
			want: seeded{"integration_invalid", "problem", "shows how the provider knows its clients", "client_secret"},
		},
		"secret that has to be a key": {
			integration: "revolut-business", block: client,
			want: seeded{"integration_invalid", "problem", "shows how the provider knows its clients", "client_secret"},
		},
		"key that is not there": {
			integration: "revolut-business", block: "client_id x\nclient_secret {file.DATA/client.pem}",
			want: seeded{"file_unreadable", "problem", "readable", "client_secret {file"},
		},
		"redirect_uri is a name": {
			integration: "ebay", block: client,
			want: seeded{"redirect_uri_name", "warning", "add `redirect_uri`", "integration ebay"},
		},
		"auth scheme that the provider does not have": {
			integration: "github", block: "auth_scheme API_KEY",
			want: seeded{"integration_invalid", "problem", "name one that its provider has", "auth_scheme"},
		},
		"client where there is none": {
			integration: "sendgrid", block: "client_id x",
			want: seeded{"integration_invalid", "problem", "what an integration of its provider needs", "client_id x"},
		},
		"facts that nobody checked": {
			integration: "salesforce", block: client + "\nscopes refresh_token",
			want: seeded{"entry_unchecked", "info", "", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, "http://127.0.0.1:1")
			p.integrate(test.integration, test.block, test.more...)
			r := p.examine("--offline")
			if test.want.on != "" && !strings.HasPrefix(test.want.on, "provider ") {
				// acme comes last and has options of the same names
				before, _, _ := strings.Cut(p.text, "integration acme {")
				p.text = before
			}
			p.expect(r, test.want)
			problems := 0
			if test.want.level == "problem" {
				problems = 1
			}
			if r.Problems != problems {
				t.Errorf("%d problems; want %d: %+v", r.Problems, problems, r.Findings)
			}
		})
	}
}

// TestDoctorTakesIntegrations: good ones of providers that want more than a
// client.
func TestDoctorTakesIntegrations(t *testing.T) {
	p := newPatient(t, "http://127.0.0.1:1")
	p.writeKey()
	p.integrate("revolut-business", "client_id x\nclient_secret {file.DATA/client.pem}")
	p.integrate("ebay", client+"\nredirect_uri Acme-Acme-App-xyz")
	p.integrate("gitlab", client+"\nparam host git.acme.example\nscopes read_api")
	p.integrate("microsoft", client+"\nscopes offline_access User.Read")
	p.integrate("sendgrid", "review on")
	p.text = strings.ReplaceAll(p.text, "DATA", p.dir)
	for _, f := range p.examine("--offline").Findings {
		if f.Level == "problem" || f.Level == "warning" && f.Check != "data_ephemeral" {
			t.Errorf("found: %+v", f)
		}
	}
}
