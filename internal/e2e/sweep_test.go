package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func newJar(t *testing.T) http.CookieJar {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return jar
}

// kind tells secrets apart by where they belong. Each is a unique word, so that
// one that is found was leaked.
type kind uint8

const (
	credential kind = 1 << iota // codes, tokens, code verifiers, the client secret: the provider's and nobody else's
	key                         // API and client keys: Lanyard's callers'
	keyset                      // what seals the store: the keyset's file
	cookie                      // of a browser in a flow
	flowState                   // what leads back to a flow: the browser's, the provider's
	handed                      // link signatures, completion codes, the app's state: Lanyard's and the app's
)

// outlets keeps what came out of Lanyard in places that are no files, and the
// secrets that were met on the way there.
type outlets struct {
	mu         sync.Mutex // guards all below
	inside     bytes.Buffer
	toApp      bytes.Buffer
	toProvider bytes.Buffer
	met        map[string]kind
}

// most is how much of a place is kept.
const most = 16 << 20

func (o *outlets) keep(in *bytes.Buffer, b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if in.Len() < most {
		in.Write(b)
	}
}

func (o *outlets) meet(k kind, secrets ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range secrets {
		if o.met == nil {
			o.met = map[string]kind{}
		}
		if o.met[s] == 0 {
			o.met[s] = k
		}
	}
}

// meetURL takes note of the secrets of flows in an address that Lanyard made.
func (o *outlets) meetURL(address string) {
	u, err := url.Parse(address)
	if err != nil {
		return
	}
	q := u.Query()
	if q.Has("code_challenge") {
		o.meet(flowState, q["state"]...)
	} else {
		o.meet(handed, q["state"]...)
	}
	o.meet(handed, q["signature"]...)
	o.meet(handed, q["completion_code"]...)
}

// connectURL finds links in the API's answers.
var connectURL = regexp.MustCompile(`"connect_url":"([^"]+)"`)

// meetAnswer takes note of the secrets of flows in one of Lanyard's answers.
func (o *outlets) meetAnswer(header http.Header, body []byte) {
	o.meetURL(header.Get("Location"))
	for _, c := range (&http.Response{Header: header}).Cookies() {
		o.meet(cookie, c.Value)
	}
	for _, m := range connectURL.FindAllSubmatch(body, -1) {
		var link string
		if json.Unmarshal([]byte(`"`+string(m[1])+`"`), &link) == nil {
			o.meetURL(link)
		}
	}
}

// watch keeps the requests that arrive at a server.
func (o *outlets) watch(in *bytes.Buffer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var head bytes.Buffer
		fmt.Fprintf(&head, "%s %s\n", r.Method, r.RequestURI)
		_ = r.Header.Write(&head)
		head.WriteString("\r\n")
		o.keep(in, head.Bytes())
		o.meet(flowState, r.URL.Query()["state"]...) // sent on by a browser that the tests don't read along with
		body := &watched{ReadCloser: r.Body}
		r.Body = body
		defer func() {
			o.keep(in, body.begin.Bytes())
			if form, err := url.ParseQuery(body.begin.String()); err == nil {
				o.meet(credential, form["code_verifier"]...)
			}
		}()
		next.ServeHTTP(rw, r)
	})
}

// watched keeps the beginning of a body.
type watched struct {
	io.ReadCloser
	begin bytes.Buffer
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.begin.Write(p[:min(n, max(0, 64<<10-b.begin.Len()))])
	return n, err
}

// peek keeps what the running program shows of itself: its configuration and
// metrics, the stacks of its goroutines, its arguments. One that is gone, or has
// no admin API, shows less.
func (w *world) peek() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, path := range []string{"/config/", "/metrics", "/debug/pprof/goroutine?debug=2"} {
		if _, b, err := w.admin(ctx, path); err == nil {
			w.out.keep(&w.out.inside, b)
		}
	}
	if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", w.cmd.Process.Pid)); err == nil {
		w.out.keep(&w.out.inside, args)
	}
}

// admin asks the admin API.
func (w *world) admin(ctx context.Context, path string) (int, []byte, error) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.path("admin.sock"))
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

// config returns what the admin API shows of the running configuration.
func (w *world) config() []byte {
	w.t.Helper()
	_, b, err := w.admin(w.ctx(), "/config/")
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// allSecrets returns every secret of the run.
func (w *world) allSecrets() map[string]kind {
	all := map[string]kind{w.apiKey: key, w.clientKey: key, w.secret: credential}
	for _, s := range w.secrets {
		all[s] = credential
	}
	if w.fake != nil {
		for _, s := range w.fake.Secrets() {
			all[s] = credential
		}
	}
	if b, err := os.ReadFile(w.path("data/lanyard-keys.json")); err == nil {
		for _, s := range keysetSecrets(b) {
			all[s] = keyset
		}
	}
	w.out.mu.Lock()
	defer w.out.mu.Unlock()
	for s, k := range w.out.met {
		if all[s] == 0 {
			all[s] = k
		}
	}
	return all
}

// keysetSecrets returns the keys of a keyset, as Tink writes them and raw.
func keysetSecrets(text []byte) []string {
	var ks struct {
		Key []struct {
			KeyData struct{ Value string }
		}
	}
	if json.Unmarshal(text, &ks) != nil {
		return nil
	}
	var out []string
	for _, k := range ks.Key {
		out = append(out, k.KeyData.Value)
		// The last 32 bytes of the message are the key of AES-256.
		if b, err := base64.StdEncoding.DecodeString(k.KeyData.Value); err == nil && len(b) > 32 {
			out = append(out, string(b[len(b)-32:]))
		}
	}
	return out
}

// sweep looks for every secret of the run in all that came out of Lanyard.
func (w *world) sweep() {
	w.t.Helper()
	for _, l := range w.leaks() {
		w.t.Error(l)
	}
}

// leaks looks for every secret of the run, in every spelling, in
//
//   - answers and pages, where the secrets of the flow that they are part of
//     belong;
//   - the files of the run: logs at debug level, output with its panics and
//     dumps, autosave.json, the data directory, backups;
//   - what the program shows of itself (peek), and the traces it sent;
//   - what the app and the provider were sent.
//
// Nothing at all may reach the attacker's host, which is looked at elsewhere.
func (w *world) leaks() []string {
	f := newFinder(w.allSecrets())
	w.mu.Lock()
	out := f.find("an answer", w.seen.Bytes(), flowState|handed)
	w.mu.Unlock()
	w.out.mu.Lock()
	out = append(out, f.find("the program's inside", w.out.inside.Bytes(), 0)...)
	// A browser sends the cookies of localhost to each of its ports.
	out = append(out, f.find("a request to the app", w.out.toApp.Bytes(), handed|cookie)...)
	out = append(out, f.find("a request to the provider", w.out.toProvider.Bytes(), credential|flowState)...)
	w.out.mu.Unlock()
	err := filepath.WalkDir(w.site.Dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.Type().IsRegular():
			return err
		case d.Name() == "Caddyfile": // the test's own
			return nil
		case d.Name() == "lanyard-ballast": // 32 MiB, never written to
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var belongs kind
		if strings.Contains(d.Name(), "keys") && bytes.Contains(b, []byte(`"primaryKeyId"`)) {
			belongs = keyset
		}
		out = append(out, f.find(path, b, belongs)...)
		return nil
	})
	if err != nil {
		out = append(out, err.Error())
	}
	return out
}

// look reports those of the secrets that stand somewhere.
func (w *world) look(where string, in []byte, secrets []string) {
	w.t.Helper()
	all := map[string]kind{}
	for _, s := range secrets {
		all[s] = credential
	}
	for _, l := range newFinder(all).find(where, in, 0) {
		w.t.Error(l)
	}
}
