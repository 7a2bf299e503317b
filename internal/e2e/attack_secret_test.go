package e2e_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// withAllOutlets has a world put out all that Caddy can: metrics, traces, and
// the configuration that its admin API keeps.
func withAllOutlets(spans *atomic.Int64) option {
	return func(w *world, _ *fakeprovider.Config) {
		collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				w.t.Error(err)
			}
			spans.Add(int64(bytes.Count(b, []byte("lanyard-span"))))
			w.out.keep(&w.out.inside, b)
		}))
		w.t.Cleanup(collector.Close)
		w.environ = append(w.environ, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL,
			"OTEL_EXPORTER_OTLP_COMPRESSION=none", "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_METRICS_EXPORTER=none", "OTEL_LOGS_EXPORTER=none")
		w.site.Global += "metrics {\nper_host\n}\n"
		w.site.EachSite += "tracing {\nspan lanyard-span\n}\n"
	}
}

// fileSecret gives the integration a second API key, and another integration its
// client secret, from files outside of the run's directory.
func withSecretFiles(w *world, _ *fakeprovider.Config) {
	dir := w.t.TempDir()
	for _, name := range []string{"api-key", "client-secret"} {
		s := "filesecret" + rand.Text() + rand.Text()
		w.secrets = append(w.secrets, s)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s+"\n"), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	w.site.Extra += fmt.Sprintf("api_key {file.%s/api-key}\nintegration other {\nprovider fake\nclient_id other\nclient_secret {file.%s/client-secret}\n}\n", dir, dir)
}

// TestSecretsStayInside runs Lanyard through most of what it does, failures
// included, with everything on that Caddy can put out, and looks at each place.
// Its end, the sweep, is half of the test.
func TestSecretsStayInside(t *testing.T) {
	var spans atomic.Int64
	w := newWorld(t, withAllOutlets(&spans), withSecretFiles)
	id := w.connect("user of secrets")
	w.useEverything(id)
	w.in(t, "A150 config dumps hold placeholders", func(_ *testing.T) { w.configIsClean() })
	w.in(t, "A153 metrics have bounded labels", func(t *testing.T) {
		if err := w.wantCall(id, http.StatusOK); err != nil { // the reload has begun them anew
			t.Error(err)
		}
		status, metrics, err := w.admin(w.ctx(), "/metrics")
		if err != nil || status != http.StatusOK || !bytes.Contains(metrics, []byte("caddy_http_requests_total")) {
			t.Fatalf("metrics: %v, HTTP %d", err, status)
		}
		if !bytes.Contains(metrics, []byte(`lanyard_calls_total{integration="fake",outcome="2xx"}`)) {
			t.Errorf("the metrics hold none of Lanyard's own")
		}
		for _, word := range []string{id, "conn_", "user of secrets", "/connect?", "completion_code"} {
			if bytes.Contains(metrics, []byte(word)) {
				t.Errorf("the metrics name %q", word)
			}
		}
	})
	w.in(t, "A153 traces hold no query and no header", func(t *testing.T) {
		w.mustRefresh(&member{id: id, account: "user of secrets", told: 1})
		w.eventually("spans were sent", func() error { return atLeast(int(spans.Load()), 10) })
		w.eventually("Lanyard's own spans were sent", func() error {
			w.out.mu.Lock()
			defer w.out.mu.Unlock()
			for _, name := range []string{"lanyard.call", "lanyard.connect", "lanyard.refresh"} {
				if !bytes.Contains(w.out.inside.Bytes(), []byte(name)) {
					return fmt.Errorf("no span %s", name)
				}
			}
			return nil
		})
		w.out.mu.Lock()
		defer w.out.mu.Unlock()
		for _, word := range []string{"url.query", "signature=", "code=", "state=", "uthorization", "lanyard-key", "Lanyard-Key"} {
			if i := bytes.Index(w.out.inside.Bytes(), []byte(word)); i >= 0 {
				t.Errorf("a trace, or the configuration, holds %q: %s", word, around(w.out.inside.Bytes(), i, 0))
			}
		}
	})
	w.in(t, "A154 no profiles by default", func(t *testing.T) {
		for _, base := range []string{w.proxyURL(""), w.site.Public} {
			res, err := newBrowser(t).Get(base + "/debug/pprof/goroutine?debug=2")
			if err != nil {
				t.Fatal(err)
			}
			if body := bodyOf(t, res); strings.Contains(body, "goroutine 1") {
				t.Errorf("%s serves profiles", base)
			}
			_ = res.Body.Close()
		}
	})
	w.in(t, "A155 errors are problems without secrets", func(*testing.T) { w.provokeErrors(id) })
	w.in(t, "A161 each log entry is one object on one line", func(*testing.T) { w.injectIntoLogs(id) })
	w.in(t, "A159 arguments name files, not secrets", func(t *testing.T) {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", w.cmd.Process.Pid))
		if err != nil {
			t.Skip("needs /proc")
		}
		if want := "run\x00--config\x00" + w.path("Caddyfile"); !bytes.Contains(args, []byte(want)) {
			t.Errorf("the arguments are %q", args)
		}
	})
	w.stop()
	w.in(t, "A151 A153 the sweep knew of a secret of each kind", func(t *testing.T) {
		n := map[kind]int{}
		for s, k := range w.allSecrets() {
			if len(s) >= shortest {
				n[k]++
			}
		}
		for k := credential; k <= handed; k <<= 1 {
			if n[k] == 0 {
				t.Errorf("the sweep met no secret of kind %d: %v", k, n)
			}
		}
	})
	w.logLinesAreObjects()
}

// useEverything does what users do.
func (w *world) useEverything(id string) {
	w.t.Helper()
	if err := w.wantCall(id, http.StatusOK); err != nil {
		w.t.Error(err)
	}
	for _, set := range []func(*http.Request){
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+w.clientKey+"."+id) },
		func(r *http.Request) { r.Header.Set("Authorization", "token "+w.clientKey+"."+id) },
		func(r *http.Request) { r.SetBasicAuth("x", w.clientKey+"."+id) },
	} {
		req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.proxyURL("/me"), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		set(req)
		if a := w.do(req); a.Status != http.StatusOK {
			w.t.Errorf("HTTP %d: %s", a.Status, a.Body)
		}
	}
	w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil)
	w.fake.ExpireAccessTokens()
	if err := w.wantCall(id, http.StatusOK); err != nil {
		w.t.Error(err)
	}
	w.fake.Faults.Token(fakeprovider.InvalidGrant().OnCode())
	browser := newBrowser(w.t)
	begun := w.begin("denied")
	w.wantReturn(browser, w.consent(browser, w.open(browser, begun.ConnectURL)), "source_error")
	gone := w.connect("gone")
	w.fake.Faults.Token(fakeprovider.InvalidGrant().OnRefresh())
	w.api(http.MethodPost, "/v1/connections/"+gone+"/refresh", nil, nil)
	w.api(http.MethodPost, "/v1/connections/"+gone+"/revoke", nil, nil)
	w.api(http.MethodDelete, "/v1/connections/"+gone, nil, nil)
	w.api(http.MethodGet, "/v1/connections", nil, nil)
	w.api(http.MethodGet, "/v1/integrations", nil, nil)
	w.mustLanyard("backup", w.path("lanyard.backup"))
	if err := w.reload(); err != nil {
		w.t.Error(err)
	}
}

// configIsClean looks at all that shows the configuration.
func (w *world) configIsClean() {
	w.t.Helper()
	shown := map[string][]byte{"/config/": w.config()}
	var err error
	if shown["autosave.json"], err = os.ReadFile(w.path("xdg/caddy/autosave.json")); err != nil {
		w.t.Error(err)
	}
	for _, command := range []string{"adapt", "validate"} {
		cmd := exec.CommandContext(w.t.Context(), w.bin, command, "--config", w.path("Caddyfile"), "--adapter", "caddyfile")
		cmd.Env, cmd.Dir = w.env(), w.site.Dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			w.t.Errorf("caddy %s: %v\n%s", command, err, out)
		}
		shown[command] = out
	}
	for where, text := range shown {
		for _, placeholder := range []string{"{env.LANYARD_API_KEY}", "{env.FAKE_CLIENT_SECRET}", "/client-secret}"} {
			if where != "validate" && !bytes.Contains(text, []byte(placeholder)) {
				w.t.Errorf("%s does not show %s", where, placeholder)
			}
		}
		w.look(where, text, append([]string{w.apiKey, w.clientKey, w.secret}, w.secrets...))
	}
}

// provokeErrors has the API, the proxy and the pages refuse.
func (w *world) provokeErrors(id string) {
	w.t.Helper()
	named := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { w.name(r, id); r.Header.Set(name, value) }
	}
	for _, c := range []struct {
		method, path string
		set          func(*http.Request)
		status       int
	}{
		{"GET", "/v1/connections", func(*http.Request) {}, 401},
		{"GET", "/v1/connections", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+w.clientKey) }, 401},
		{"GET", "/v1/connections/conn_none", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+w.apiKey) }, 404},
		{"GET", "/v1/connections?limit=x", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+w.apiKey) }, 400},
		{"PUT", "/v1/connections", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+w.apiKey) }, 405},
		{"GET", "/me", func(*http.Request) {}, 401},
		{"GET", "/me", named("Lanyard-Key", w.apiKey), 403},
		{"GET", "/me", named("Connection-Id", "conn_NONENONENONENONENONENONENO"), 404},
		{"GET", "/me", named("Authorization", "Bearer "+w.clientKey+".conn_other"), 400},
		{"GET", "/me", named("Lanyard-Host", "evil.example"), 403},
		{"GET", "/a/%2e%2e/b", named("X-A", "b"), 400},
		{"TRACE", "/me", named("X-A", "b"), 405},
		{"GET", "/me", named("Origin", "https://evil.example"), 403},
	} {
		req, err := http.NewRequestWithContext(w.t.Context(), c.method, w.proxyURL(c.path), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		c.set(req)
		a := w.do(req)
		if a.Status != c.status || a.Header.Get("Content-Type") != "application/problem+json" || !json.Valid([]byte(a.Body)) {
			w.t.Errorf("%s %s: HTTP %d (%s): %s; want a problem with %d", c.method, c.path, a.Status, a.Header.Get("Content-Type"), a.Body, c.status)
		}
		if strings.Contains(a.Body, w.site.Fake) || strings.Contains(a.Body, w.site.Dir) {
			w.t.Errorf("%s %s: the answer names what is inside: %s", c.method, c.path, a.Body)
		}
	}
	browser := newBrowser(w.t)
	for _, path := range []string{"/connect?state=x", "/callback/fake?code=fp_code_x&state=x", "/callback/none?x=y", "/connect/none"} {
		res := w.browse(browser, w.site.Public+path)
		if body := bodyOf(w.t, res); res.StatusCode < 400 || res.StatusCode > 499 || strings.Contains(body, w.site.Fake) || strings.Contains(body, w.site.Dir) {
			w.t.Errorf("%s: HTTP %d: %s", path, res.StatusCode, body)
		}
	}
}

// hostileText breaks out of a log that writes what it gets.
const hostileText = "INJECTED\r\n{\"level\":\"error\",\"msg\":\"forged\"}\x1b[31m\x07\u2028\"\\"

// injectIntoLogs sends hostile text to all that is logged, or could be.
func (w *world) injectIntoLogs(id string) {
	w.t.Helper()
	w.api(http.MethodPatch, "/v1/connections/"+id, map[string]any{"name": hostileText, "labels": map[string]string{"k": hostileText}}, nil)
	w.api(http.MethodPost, "/v1/connections", map[string]any{"integration": "fake", "user_id": hostileText, "redirect_url": w.app.url + "/callback"}, nil)
	w.api(http.MethodPost, "/v1/connections", map[string]any{"integration": hostileText, "user_id": "u"}, nil)
	w.browse(newBrowser(w.t), w.site.Public+"/connect?integration="+url.QueryEscape(hostileText)+"&x="+url.QueryEscape(hostileText))
	w.browse(newBrowser(w.t), w.site.Public+"/callback/fake?error="+url.QueryEscape(hostileText)+"&error_description="+url.QueryEscape(hostileText)+"&state=x")
	for _, path := range []string{"/" + url.PathEscape(hostileText), "/me?" + url.QueryEscape(hostileText)} {
		req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.proxyURL(path), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		w.name(req, id)
		req.Header.Set("User-Agent", strings.NewReplacer("\r", "", "\n", "", "\x1b", "", "\x07", "").Replace(hostileText)+"\u009b31m")
		w.do(req)
	}
	w.raw(id, "GET /me HTTP/1.1\n"+naming+"X-A: a\x1b[31m\n\n")
	// An upstream that answers with nonsense, which Lanyard has to log.
	w.fake.Faults.API(fakeprovider.Raw("nonsense", func(conn io.Writer) { _, _ = io.WriteString(conn, hostileText+"\r\n\r\n") }))
	w.call(id, "/me")
}

// logLinesAreObjects checks every line that the program has logged.
func (w *world) logLinesAreObjects() {
	w.t.Helper()
	log, n := w.logged(), 0
	for line := range bytes.Lines(log) {
		line = bytes.TrimSpace(line)
		var entry struct{ Level, Msg string }
		if !bytes.HasPrefix(line, []byte("{")) {
			if bytes.Contains(line, []byte("INJECTED")) {
				w.t.Errorf("a line that is no entry: %q", line)
			}
			continue // Caddy's own, before its log is set up
		}
		if n++; json.Unmarshal(line, &entry) != nil || entry.Level == "" || entry.Msg == "forged" {
			w.t.Errorf("not an entry: %q", line)
		}
	}
	if i := bytes.IndexAny(log, "\x1b\x07"); i >= 0 || n < 50 {
		w.t.Errorf("%d entries, a control character at %d: %q", n, i, around(log, max(i, 0), 0))
	}
}

// A150: a secret that stands in the configuration itself is told of at the
// start, by the name of its field. (There is no allow_inline_secrets: a literal
// one gets a warning.) The same holds for {$VAR}, which the adapter replaces.
func TestLiteralSecretIsToldOf(t *testing.T) {
	const literal = "literalsecretliteralsecretliteralsecret"
	w := newWorld(t, func(w *world, _ *fakeprovider.Config) {
		w.environ = append(w.environ, "LITERAL="+literal)
		w.site.Global += "persist_config off\n"
		w.site.Extra += "api_key " + literal + "1\nclient other {$LITERAL}\n"
	})
	for _, field := range []string{"api_key", "client other"} {
		if n := strings.Count(string(w.logged()), `"field":"`+field+`"`); n != 1 {
			t.Errorf("%d warnings of %s", n, field)
		}
	}
	w.look("the log", w.logged(), []string{literal})
	if shown := w.config(); !bytes.Contains(shown, []byte(literal)) {
		t.Error("/config/ does not show the literal: then the warning and the documentation are wrong")
	}
}

// A173: what the program is built of is pinned, by version and by sum, and
// nothing is in it but Caddy's standard modules and ours.
func TestProgramIsPinned(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if !regexp.MustCompile(`(?m)^xcaddy_version=v\d+\.\d+\.\d+\b`).MatchString(read("xcaddy.sh")) {
		t.Error("A173: xcaddy.sh pins no version of xcaddy")
	}
	for _, dir := range []string{"", "tools"} {
		sums := read(filepath.Join(dir, "go.sum"))
		required := regexp.MustCompile(`(?m)^\s*(?:require )?([a-z][\w.-]*\.[a-z]+/\S+) (v\S+)`).FindAllStringSubmatch(read(filepath.Join(dir, "go.mod")), -1)
		if len(required) < 10 {
			t.Fatalf("A173: %s/go.mod requires %d modules", dir, len(required))
		}
		for _, m := range required {
			if !strings.Contains(sums, m[1]+" "+m[2]) {
				t.Errorf("A173: %s/go.sum has no sum of %s %s", dir, m[1], m[2])
			}
		}
	}
	out, err := exec.CommandContext(t.Context(), binary(t), "list-modules", "--skip-standard").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	modules, _, _ := strings.Cut(string(out), "\n\n") // then their number
	got := strings.Fields(modules)
	want := []string{
		"http.handlers.lanyard_api", "http.handlers.lanyard_connect", "http.handlers.lanyard_dashboard", "http.handlers.lanyard_demo",
		"http.handlers.lanyard_proxy", "http.reverse_proxy.transport.lanyard", "lanyard",
	}
	if !slices.Equal(got, want) {
		t.Errorf("A173: the modules that are not Caddy's: %q, want %q\n%s", got, want, out)
	}
}
