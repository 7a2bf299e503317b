package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// TestExampleApps goes through each example app as its user does, with Lanyard
// as the Caddyfile beside it says.
func TestExampleApps(t *testing.T) {
	for dir, build := range map[string]func(*testing.T, string) *exec.Cmd{
		"examples/go-app": func(t *testing.T, dir string) *exec.Cmd {
			t.Helper()
			bin := filepath.Join(t.TempDir(), "app")
			cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("go build: %v\n%s", err, out)
			}
			return exec.Command(bin)
		},
		"examples/express-app": func(t *testing.T, dir string) *exec.Cmd {
			t.Helper()
			installNPM(t, dir)
			return exec.Command("node", "app.mjs")
		},
	} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			cmd := build(t, filepath.Join(root, dir))
			e := runExample(t, dir+"/Caddyfile", "9080", "9081", "9082", "9083")
			cmd.Dir = filepath.Join(root, dir)
			(&exampleApp{example: e, t: t}).goThrough(cmd)
		})
	}
}

// exampleApp is an app of the examples, and its user's browser.
type exampleApp struct {
	*example
	t       *testing.T
	browser *http.Client
}

// local is the address that the example's own configuration would give.
func (a *exampleApp) local(port string) string {
	return fmt.Sprintf("http://localhost:%d", a.ports[port])
}

func (a *exampleApp) goThrough(cmd *exec.Cmd) {
	cmd.Env = append(os.Environ(), "APP_URL="+a.local("9083"), "LANYARD_PUBLIC_URL="+a.local("9081"),
		"LANYARD_URL="+a.local("9080"), "API_URL="+a.url("9082", "/api"),
		"LANYARD_API_KEY="+a.made("lanyard-api-key"), "LANYARD_CLIENT_KEY="+a.made("lanyard-client-key"))
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = a.t.Output(), a.t.Output(), dieWithParent()
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	a.browser = newBrowser(a.t)
	(&world{t: a.t}).eventually("the app answers", func() error {
		res, err := a.browser.Get(a.local("9083"))
		if err == nil {
			_ = res.Body.Close()
		}
		return err
	})

	a.connects(a.local("9083") + "/connect?scope=profile:read")
	home := a.page("/", "demo ACTIVE", "Ada Lovelace", "profile:read", "!playlists:read")
	_, id, _ := strings.Cut(home, "/repos?id=")
	id, _, _ = strings.Cut(id, `"`)
	a.page("/repos?id="+id, "30 repositories", "item-1", "item-30")

	a.connects(a.local("9083") + "/connect?id=" + id + "&scope=playlists:read")
	a.page("/", "profile:read", "playlists:read")

	if res := a.posts("/key", url.Values{"key": {"a-wrong-key"}}); res.StatusCode != http.StatusBadGateway {
		a.t.Errorf("a wrong key: HTTP %d", res.StatusCode)
	}
	if res := a.posts("/key", url.Values{"key": {"demo-key"}}); res.StatusCode != http.StatusSeeOther {
		a.t.Errorf("a key: HTTP %d", res.StatusCode)
	}
	home = a.page("/", "demo_key ACTIVE")
	_, rest, _ := strings.Cut(home, "demo_key ACTIVE")
	_, keyed, _ := strings.Cut(rest, "/repos?id=")
	keyed, _, _ = strings.Cut(keyed, `"`)
	a.page("/repos?id="+keyed, "30 repositories")

	a.revokes(id)
	if res := a.get(a.local("9083") + "/repos?id=" + id); res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/connect?id="+id {
		a.t.Errorf("a call that needs a reconnect: HTTP %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	a.connects(a.local("9083") + "/connect?id=" + id)
	a.page("/repos?id="+id, "30 repositories")

	for _, query := range []string{"?state=x&connection_id=" + id + "&completion_code=y", "?connection_id=" + id} {
		if res := a.get(a.local("9083") + "/connected" + query); res.StatusCode != http.StatusBadRequest {
			a.t.Errorf("a callback of another browser's: HTTP %d", res.StatusCode)
		}
	}
}

// made returns a key that Lanyard has made.
func (a *exampleApp) made(name string) string {
	files, _ := filepath.Glob(filepath.Join(a.dir, "xdg", "*", "lanyard", name))
	if len(files) != 1 {
		a.t.Fatalf("%s: %v", name, files)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// get loads an address without following where it leads.
func (a *exampleApp) get(address string) *http.Response {
	a.t.Helper()
	res, err := a.browser.Get(address)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func (a *exampleApp) posts(path string, form url.Values) *http.Response {
	a.t.Helper()
	res, err := a.browser.PostForm(a.local("9083")+path, form)
	if err != nil {
		a.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res
}

// connects follows a way to connect, through the provider and back to the app.
func (a *exampleApp) connects(address string) {
	a.t.Helper()
	for range 10 {
		if strings.HasPrefix(address, a.url("9082", "/")) {
			var err error
			if address, err = fakeprovider.Approve(a.t.Context(), a.browser, address); err != nil {
				a.t.Fatal(err)
			}
			continue
		}
		res := a.get(address)
		to, err := res.Location()
		if err != nil {
			b, _ := io.ReadAll(res.Body)
			a.t.Fatalf("%s: HTTP %d: %s", hostOf(address), res.StatusCode, b)
		}
		if address = to.String(); address == a.local("9083")+"/" {
			return
		}
	}
	a.t.Fatal("it leads in circles")
}

// page loads a page of the app and looks for words on it, or with ! for none.
func (a *exampleApp) page(path string, words ...string) string {
	a.t.Helper()
	res := a.get(a.local("9083") + path)
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		a.t.Fatalf("%s: HTTP %d, %v", path, res.StatusCode, err)
	}
	for _, word := range words {
		word, unwanted := strings.CutPrefix(word, "!")
		rest := strings.ReplaceAll(string(b), "scope=playlists:read", "") // what a link asks for
		if strings.Contains(rest, word) == unwanted {
			a.t.Errorf("%s: %q there: %v\n%s", path, word, !unwanted, b)
		}
	}
	return string(b)
}

// revokes ends a connection as an operator does.
func (a *exampleApp) revokes(id string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.url("9080", "/v1/connections/"+id+"/revoke"), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.made("lanyard-api-key"))
	res, err := a.browser.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		a.t.Fatalf("revoke: HTTP %d", res.StatusCode)
	}
}
