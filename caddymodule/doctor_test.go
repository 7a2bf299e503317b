package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/caddymodule"
	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/seal"
)

// seeded is what the doctor has to say of a mistake.
type seeded struct {
	check string
	level string
	fix   string // words of it
	on    string // what the line that it names begins with; empty: none is asserted
}

// patient is a configuration without a mistake, and what belongs to it.
type patient struct {
	t    *testing.T
	dir  string // the data directory is store in it
	text string
}

// The environment of the configuration in testdata/doctor.
const (
	doctorAPIKey    = "api-key-of-the-doctor-0123456789abcdef"
	doctorClientKey = "client-key-of-the-doctor-0123456789abcdef"
	doctorSecret    = "client-secret-of-the-doctor"
	doctorWebhook   = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
)

// newPatient returns the configuration with a provider that answers.
func newPatient(t *testing.T, provider string) *patient {
	t.Helper()
	for name, value := range map[string]string{
		"DOCTOR_API_KEY": doctorAPIKey, "DOCTOR_CLIENT_KEY": doctorClientKey,
		"DOCTOR_CLIENT_SECRET": doctorSecret, "DOCTOR_WEBHOOK_SECRET": doctorWebhook,
	} {
		t.Setenv(name, value)
	}
	p := &patient{t: t, dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(p.dir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	keys, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	p.write("keys.json", string(keys), 0o600)
	p.text = strings.NewReplacer("DATA", p.dir, "PROVIDER", provider).Replace(read(t, "testdata", "doctor", "Caddyfile")) + "\n"
	return p
}

func (p *patient) write(name, content string, mode os.FileMode) {
	p.t.Helper()
	name = filepath.Join(p.dir, name)
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil { // whatever the umask
		p.t.Fatal(err)
	}
}

// swap seeds a mistake: each pair is a text of the configuration and another.
func (p *patient) swap(pairs ...string) {
	p.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		from, to := strings.ReplaceAll(pairs[i], "DATA", p.dir), strings.ReplaceAll(pairs[i+1], "DATA", p.dir)
		if !strings.Contains(p.text, from) {
			p.t.Fatalf("the configuration has no %q", from)
		}
		p.text = strings.Replace(p.text, from, to, 1)
	}
}

// report is what `lanyard doctor --json` prints.
type report struct {
	Problems, Warnings int
	Findings           []struct{ Group, Check, Level, Text, Fix, Place string }
}

// examine runs the doctor over the configuration.
func (p *patient) examine(args ...string) report {
	p.t.Helper()
	p.write("Caddyfile", p.text, 0o600)
	return examineFile(p.t, filepath.Join(p.dir, "Caddyfile"), args...)
}

func examineFile(t *testing.T, file string, args ...string) report {
	t.Helper()
	out, err := caddymodule.Doctor(t.Context(), append([]string{"--json", "--config", file}, args...)...)
	var r report
	if jerr := json.Unmarshal([]byte(out), &r); jerr != nil {
		t.Fatalf("doctor = %q, %v", out, err)
	}
	if (err != nil) != (r.Problems > 0) {
		t.Errorf("doctor: error %v with %d problems", err, r.Problems)
	}
	for _, hidden := range []string{doctorAPIKey, doctorClientKey, doctorSecret, doctorWebhook} {
		if strings.Contains(out, hidden) {
			t.Errorf("doctor prints a secret: %s", out)
		}
	}
	return r
}

// expect asserts that the doctor has found the mistake.
func (p *patient) expect(r report, want seeded) {
	p.t.Helper()
	place := ""
	for i, l := range strings.Split(p.text, "\n") {
		if want.on != "" && strings.HasPrefix(strings.TrimSpace(l)+"\n", want.on) {
			place = fmt.Sprintf("%s:%d", filepath.Join(p.dir, "Caddyfile"), i+1)
			break
		}
	}
	for _, f := range r.Findings {
		if f.Check == want.check && f.Level == want.level && strings.Contains(f.Fix, want.fix) && (want.on == "" || f.Place == place) {
			return
		}
	}
	p.t.Errorf("the doctor did not find %+v at %q, but:", want, place)
	for _, f := range r.Findings {
		p.t.Logf("%+v", f)
	}
}

// TestDoctorFinds seeds one mistake at a time that is found without the network.
func TestDoctorFinds(t *testing.T) {
	for name, test := range map[string]struct {
		swap []string
		env  [2]string
		want seeded
	}{
		"http on a public name": {swap: []string{"public_url https:", "public_url http:"}, want: seeded{"public_url_invalid", "problem", "https unless", "public_url http:"}},
		"public_url on no site": {swap: []string{"public_url https://connect.", "public_url https://link."}, want: seeded{"connect_host", "problem", "name the site link.example.com", "public_url"}},
		"callbacks go elsewhere": {
			swap: []string{"\tlanyard_connect\n", "\tlanyard_connect /connect*\n"},
			want: seeded{"connect_path", "problem", "/callback/*", "public_url"},
		},
		"lanyard_connect is missing": {swap: []string{"\tlanyard_connect\n", "\trespond hi\n"}, want: seeded{"connect_missing", "problem", "add `lanyard_connect`", "public_url"}},
		"redirect_url http":          {swap: []string{"redirect_url https:", "redirect_url http:"}, want: seeded{"redirect_url_invalid", "problem", "exact https URL", "redirect_url http:"}},
		"redirect_url twice": {
			swap: []string{"store badger", "redirect_url https://app.example.com/callback\n\t\tstore badger"},
			want: seeded{"redirect_url_twice", "warning", "remove one", ""},
		},
		"redirect_url of a developer": {
			swap: []string{"redirect_url https://app.example.com", "redirect_url http://localhost:3000"},
			want: seeded{"redirect_url_local", "warning", "public https URL", "redirect_url"},
		},
		"unknown provider": {
			swap: []string{"integration acme {\n", "integration acme {\n\t\t\tprovider acmee\n"},
			want: seeded{"config_invalid", "problem", "correct it", "integration acme"},
		},
		"unknown option": {swap: []string{"redirect_url", "redirect_uri"}, want: seeded{"config_invalid", "problem", "correct it", "redirect_uri"}},
		"unknown scope": {
			swap: []string{"allow_private", "allow_private\n\t\t\tscopes profile:write offline_access"},
			want: seeded{"unknown_scope", "problem", "that the provider has", "scopes profile:read"},
		},
		"no offline scope": {
			swap: []string{"allow_private", "allow_private\n\t\t\tscopes profile:read offline_access", "\tscopes profile:read offline_access\n\t\t}\n\t}", "\tscopes profile:read\n\t\t}\n\t}"},
			want: seeded{"offline_scope", "warning", "add offline_access", ""},
		},
		"secret in the file": {
			swap: []string{"client_secret {env.DOCTOR_CLIENT_SECRET}", "client_secret " + doctorSecret},
			want: seeded{"secret_literal", "warning", "use a placeholder", "client_secret"},
		},
		"secret of two words": {
			swap: []string{"client_secret {env.DOCTOR_CLIENT_SECRET}", "client_secret two " + doctorSecret},
			want: seeded{"config_invalid", "problem", "correct it", "client_secret"},
		},
		"secret behind another option": {
			swap: []string{"client_id acme\n", "client_id acme " + doctorSecret + "\n"},
			want: seeded{"config_invalid", "problem", "correct it", "client_id"},
		},
		"secret behind a name": {
			swap: []string{"integration acme {", "integration acme " + doctorSecret + " {"},
			want: seeded{"config_invalid", "problem", "correct it", "integration acme"},
		},
		"variable not set": {env: [2]string{"DOCTOR_CLIENT_SECRET", ""}, want: seeded{"env_not_set", "problem", "set DOCTOR_CLIENT_SECRET", "client_secret"}},
		"variable of the Caddyfile not set": {
			swap: []string{"client_id acme", "client_id {$DOCTOR_UNSET}x"},
			want: seeded{"env_not_set", "problem", "set DOCTOR_UNSET", "client_id {$DOCTOR_UNSET"},
		},
		"file not there": {swap: []string{"DATA/keys.json", "DATA/other.json"}, want: seeded{"file_unreadable", "problem", "readable", "keyset"}},
		"weak key":       {env: [2]string{"DOCTOR_API_KEY", "short"}, want: seeded{"key_weak", "problem", "openssl rand", "api_key"}},
		"client key is the API key": {
			env:  [2]string{"DOCTOR_CLIENT_KEY", doctorAPIKey},
			want: seeded{"key_shared", "problem", "a key of its own", "client app"},
		},
		"clients without limits": {
			swap: []string{"integration acme {", "integration github {\n\t\t\tclient_id x\n\t\t\tclient_secret {env.DOCTOR_CLIENT_SECRET}\n\t\t}\n\t\tintegration acme {"},
			want: seeded{"client_unlimited", "info", "limit it", "client app"},
		},
		"pale accent":    {swap: []string{"#4a3fd1", "#ffcc00"}, want: seeded{"brand_accent", "problem", "more contrast", "accent"}},
		"webhook secret": {env: [2]string{"DOCTOR_WEBHOOK_SECRET", "whsec_c2hvcnQ="}, want: seeded{"webhook_secret", "problem", "whsec_", "secret {env.DOCTOR_WEBHOOK"}},
		"API open to the network": {
			swap: []string{"\tbind 127.0.0.1\n", ""},
			want: seeded{"listener_public", "problem", "bind 127.0.0.1", ":2 {"},
		},
		"API for the machines of the app": {
			swap: []string{"\tbind 127.0.0.1\n", "", "lanyard_api /v1/*\n\tlanyard_proxy", "lanyard_api /v1/* {\n\t\tnames lanyard.internal\n\t}\n\tlanyard_proxy {\n\t\tnames lanyard.internal\n\t}"},
			want: seeded{"listener_public", "warning", "only your app's machines", ":2 {"},
		},
		"transport open to the network": {
			swap: []string{"\tbind 127.0.0.1\n", "", "\tlanyard_proxy\n", "\treverse_proxy https://api.example.com {\n\t\ttransport lanyard {\n\t\t\topen\n\t\t}\n\t}\n", "\tlanyard_api /v1/*\n", ""},
			want: seeded{"open_proxy", "problem", "remove `open`", "open"},
		},
		"open proxy beside the network": {
			swap: []string{"\tbind 127.0.0.1\n", "", "\tlanyard_proxy\n", "\tlanyard_proxy {\n\t\topen\n\t}\n"},
			want: seeded{"open_proxy", "problem", "remove `open`", "open"},
		},
		"dashboard without authentication": {
			swap: []string{"\tbasic_auth {\n\t\tada $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n\t}\n", ""},
			want: seeded{"dashboard_open", "problem", "basic_auth", "lanyard_dashboard"},
		},
		"authentication before another path": {
			swap: []string{"\tbasic_auth {\n", "\tbasic_auth /other/* {\n"},
			want: seeded{"dashboard_open", "problem", "basic_auth", "lanyard_dashboard"},
		},
		"admin API on TCP":          {swap: []string{"admin off", "admin localhost:2019"}, want: seeded{"admin_tcp", "warning", "admin off", "admin localhost"}},
		"admin API for the network": {swap: []string{"admin off", "admin :2019"}, want: seeded{"admin_tcp", "problem", "admin off", "admin :2019"}},
		"access log with codes": {
			swap: []string{"request>uri query {\n\t\t\t\treplace code REDACTED\n\t\t\t\treplace state REDACTED\n\t\t\t}", "request>host delete"},
			want: seeded{"access_log", "problem", "filter", "log\n"},
		},
		"proxy loop": {
			swap: []string{"api_url http://127.0.0.1:1/api", "api_url http://127.0.0.1:2/api"},
			want: seeded{"proxy_loop", "problem", "own address", "api_url"},
		},
		"keyset beside the data": {swap: []string{"\t\tkeyset {file.DATA/keys.json}\n", ""}, want: seeded{"keyset_beside_data", "warning", "keep it elsewhere", "store badger"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, "http://127.0.0.1:1")
			if test.env[0] != "" {
				t.Setenv(test.env[0], test.env[1])
			}
			p.swap(test.swap...)
			r := p.examine("--offline")
			p.expect(r, test.want)
			if test.want.level == "problem" && r.Problems > 2 {
				t.Errorf("one mistake makes %d problems: %+v", r.Problems, r.Findings)
			}
		})
	}
}

// TestDoctorFindsNothing: neither in a good configuration nor in those that
// Lanyard comes with.
func TestDoctorFindsNothing(t *testing.T) {
	srv := httptest.NewServer(fakeprovider.New(fakeprovider.Config{}))
	defer srv.Close()
	p := newPatient(t, srv.URL)
	r := p.examine()
	for _, f := range r.Findings {
		if f.Level == "problem" || f.Level == "warning" && f.Check != "data_ephemeral" && f.Check != "webhook_silent" {
			t.Errorf("found in a good configuration: %+v", f)
		}
	}
	t.Setenv("GITHUB_CLIENT_ID", "id")
	t.Setenv("GITHUB_CLIENT_SECRET", doctorSecret)
	examples, err := filepath.Glob("../examples/*/Caddyfile")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range append(examples, "../Caddyfile.example") {
		if r := examineFile(t, file, "--offline"); r.Problems > 0 {
			t.Errorf("%s: %+v", file, r.Findings)
		}
	}
	if _, err := caddymodule.Doctor(t.Context(), "--config", filepath.Join(p.dir, "none")); err == nil {
		t.Error("doctor has nothing against a file that is not there")
	}
	out, err := caddymodule.Doctor(t.Context(), "--offline", "--config", filepath.Join(p.dir, "Caddyfile"))
	if err != nil || !strings.Contains(out, "  ✓ integration acme  register exactly this redirect URI: https://connect.example.com/callback/acme\n") ||
		!strings.Contains(out, "  0 problems, ") {
		t.Errorf("doctor = %s, %v", out, err)
	}
}

// TestDoctorReadsJSON: what a Caddyfile was adapted to has the same mistakes, at no
// line.
func TestDoctorReadsJSON(t *testing.T) {
	p := newPatient(t, "http://127.0.0.1:1")
	p.swap("\tbind 127.0.0.1\n", "")
	adapted, err := adapt(t, p.text)
	if err != nil {
		t.Fatal(err)
	}
	p.write("caddy.json", adapted, 0o600)
	r := examineFile(t, filepath.Join(p.dir, "caddy.json"), "--offline")
	p.expect(r, seeded{check: "listener_public", level: "problem", fix: "bind 127.0.0.1"})
	p.write("caddy.json", `{"apps": {"lanyard": {"public_uri": "x"}}}`, 0o600)
	r = examineFile(t, filepath.Join(p.dir, "caddy.json"), "--offline")
	p.expect(r, seeded{check: "config_invalid", level: "problem", fix: "docs/configuration.md"})
	p.write("caddy.json", `{"apps": {}}`, 0o600)
	r = examineFile(t, filepath.Join(p.dir, "caddy.json"), "--offline")
	p.expect(r, seeded{check: "config_no_lanyard", level: "problem", fix: "add one"})
}

// TestDoctorLetsPass: other ways to write a good configuration.
func TestDoctorLetsPass(t *testing.T) {
	for name, swap := range map[string][]string{
		"paths of lanyard_connect": {
			"\tlanyard_connect\n", "\t@connect path /connect /connect/* /callback/*\n\tlanyard_connect @connect\n\trespond \"the app\"\n",
		},
		"public_url with a path": {
			"public_url https://connect.example.com", "public_url https://connect.example.com/link",
			"\tlanyard_connect\n", "\thandle /link/* {\n\t\tlanyard_connect\n\t}\n",
		},
		"a site for all names":  {"https://connect.example.com {", "https://*.example.com, :2999 {"},
		"a named route":         {"\tlanyard_connect\n", "\tinvoke link\n", "\nhttps://", "\n&(link) {\n\tlanyard_connect\n}\n\nhttps://"},
		"an imported snippet":   {"\tlanyard_connect\n", "\timport link\n", "\nhttps://", "\n(link) {\n\tlanyard_connect\n}\n\nhttps://"},
		"a unix socket":         {":2 {\n\tbind 127.0.0.1\n", "http:// {\n\tbind unix//run/lanyard.sock\n"},
		"an admin socket":       {"admin off", "admin unix//run/caddy/admin.sock|0600"},
		"forward_auth":          {"\tbasic_auth {\n\t\tada $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n\t}\n", "\tforward_auth 127.0.0.1:9 {\n\t\turi /check\n\t}\n"},
		"dashboard on loopback": {"\tbasic_auth {\n\t\tada $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n\t}\n", "\tbind 127.0.0.1\n"},
		"a default in the file": {"client_id acme", "client_id {$DOCTOR_UNSET:acme}"},
		"no access log":         {"\tlog\n", "", "\t\tformat filter {", "\t\tformat json\n\t}\n\tlog other {\n\t\tformat filter {"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, "http://127.0.0.1:1")
			p.swap(swap...)
			for _, f := range p.examine("--offline").Findings {
				if f.Level == "problem" || f.Level == "warning" && f.Check != "data_ephemeral" && f.Check != "config_warning" {
					t.Errorf("found: %+v", f)
				}
			}
		})
	}
}

// dated is a provider whose clock is wrong.
func dated(h http.Handler, wrong time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(wrong).UTC().Format(http.TimeFormat))
		h.ServeHTTP(w, r)
	})
}

// TestDoctorAsks seeds mistakes that only show over the network.
func TestDoctorAsks(t *testing.T) {
	fake := func(cfg fakeprovider.Config) http.Handler { return fakeprovider.New(cfg) }
	document := func(doc string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/.well-known/openid-configuration") {
				_, _ = io.WriteString(w, strings.ReplaceAll(doc, "SELF", "http://"+r.Host))
			}
		})
	}
	const endpoints = `"authorization_endpoint": "SELF/authorize", "token_endpoint": "SELF/token"`
	for name, test := range map[string]struct {
		provider http.Handler
		swap     []string
		want     seeded
	}{
		"another redirect URI is registered": {
			provider: fake(fakeprovider.Config{RedirectURIs: []string{"https://connect.example.com/callback"}}),
			want:     seeded{"redirect_uri", "problem", "register exactly https://connect.example.com/callback/acme", "client_id acme"},
		},
		"scopes that the provider refuses": {
			provider: fake(fakeprovider.Config{Scopes: []string{"offline_access"}}),
			want:     seeded{"unknown_scope", "problem", "that the client may have", "scopes profile:read"},
		},
		"clock": {
			provider: dated(fake(fakeprovider.Config{}), time.Hour),
			want:     seeded{"clock_skew", "problem", "NTP", ""},
		},
		"another issuer": {
			provider: document(`{"issuer": "SELF/", ` + endpoints + `}`),
			want:     seeded{"issuer_mismatch", "problem", "exactly as the provider", "issuer"},
		},
		"no discovery": {provider: http.NotFoundHandler(), want: seeded{"discovery_failed", "problem", "correct the issuer", "issuer"}},
		"offline_access is there to be asked for": {
			provider: document(`{"issuer": "SELF", ` + endpoints + `, "scopes_supported": ["offline_access"]}`),
			swap:     []string{"profile:read offline_access", "profile:read"},
			want:     seeded{"offline_scope", "warning", "add offline_access", "scopes profile:read"},
		},
		"token endpoint out of reach": {
			provider: document(`{"issuer": "SELF", "authorization_endpoint": "SELF/authorize", "token_endpoint": "http://127.0.0.1:1/token"}`),
			want:     seeded{"token_unreachable", "problem", "allow outgoing HTTPS to 127.0.0.1:1", ""},
		},
		"webhooks for nobody": {
			provider: fake(fakeprovider.Config{}), swap: []string{"webhook http://127.0.0.1:", "webhook http://app.internal:"},
			want: seeded{"webhook_url", "problem", "https URL of your app", "webhook"},
		},
		"provider that is served by the configuration itself": {
			swap: []string{"issuer http://127.0.0.1:", "issuer http://127.0.0.1:4\n\t\t\t# ", ":9084 {", ":4 {\n\tbind 127.0.0.1\n\trespond hi\n}\n\n:9084 {"},
			want: seeded{"provider_here", "info", "", ""},
		},
		"webhook endpoint is silent": {
			provider: fake(fakeprovider.Config{}), swap: []string{"webhook http://127.0.0.1:", "webhook http://127.0.0.2:"},
			want: seeded{"webhook_silent", "warning", "start the app", "webhook"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(test.provider)
			defer srv.Close()
			p := newPatient(t, srv.URL)
			p.swap(test.swap...)
			p.expect(p.examine(), test.want)
		})
	}
}
