package e2e_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// userBrowser answers a POST of a connect link with the address at which the
// user's browser is after they have consented: the app's. It is for programs
// under test that have no browser.
func (w *world) userBrowser() string {
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		link, err := io.ReadAll(r.Body)
		if err == nil {
			var back string
			if back, err = w.walk(newBrowser(w.t), string(link)); err == nil { //nolint:contextcheck // the test's
				_, _ = io.WriteString(rw, back)
				return
			}
		}
		http.Error(rw, err.Error(), http.StatusInternalServerError)
	}))
	w.t.Cleanup(srv.Close)
	return srv.URL
}

// walk opens a link, consents, and returns the address that leads back to the
// app, which is not opened.
func (w *world) walk(browser *http.Client, link string) (string, error) {
	for range 2 {
		to, err := location(browser, link)
		if err != nil {
			return "", err
		}
		if !strings.HasPrefix(to, w.site.Fake) {
			return to, nil
		}
		if link, err = fakeprovider.Approve(w.t.Context(), browser, to); err != nil {
			return "", err
		}
	}
	return "", http.ErrNoLocation
}

// location opens an address and returns where it sends the browser.
func location(browser *http.Client, address string) (string, error) {
	res, err := browser.Get(address)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	to, err := res.Location()
	if err != nil {
		return "", err
	}
	return to.String(), nil
}

// withSocket serves the app's side on a unix socket too.
func withSocket(w *world, _ *fakeprovider.Config) {
	w.site.Sites += "http:// {\n\tbind unix/" + w.socket() + "\n\tlanyard_api /v1/*\n\tlanyard_proxy\n}\n"
}

// socket is its path: short, since the system's limit is some 100 bytes.
func (w *world) socket() string {
	sum := url.PathEscape(filepath.Base(filepath.Dir(w.site.Dir)))
	return filepath.Join(os.TempDir(), "lanyard-"+sum+".sock")
}

// TestGoClient runs the tests and examples of the Go client, which is a module
// of its own, against the program under test.
func TestGoClient(t *testing.T) {
	s := newSchemes(t, withSocket)
	args := []string{"test", "-count=1"}
	if _, err := exec.LookPath("cc"); err == nil {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "./...")...)
	cmd.Dir = filepath.Join(root, "client")
	cmd.Env = append(s.env(),
		"HOME="+os.Getenv("HOME"), "CI=true",
		"LANYARD_TEST_PUBLIC_URL="+s.site.Public, "LANYARD_TEST_API_URL="+s.proxyURL(""),
		"LANYARD_TEST_REDIRECT_URL="+s.app.url+"/callback", "LANYARD_TEST_PROVIDER_API="+s.site.Fake+"/api",
		"LANYARD_TEST_KEY="+s.key, "LANYARD_TEST_BROWSER="+s.userBrowser(), "LANYARD_TEST_SOCKET=unix://"+s.socket())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go test in client/: %v\n%s", err, out)
	}
}
