package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// Tests of faults carry the numbers of the cases in the project's list of them,
// F001 to F074.

// failpointsDir holds the program with failpoints once it was built.
var failpointsDir string

// failpointsBinary builds the program with failpoints at its first call.
var failpointsBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lanyard-failpoints-")
	if err != nil {
		return "", err
	}
	failpointsDir = dir
	bin := filepath.Join(dir, "caddy")
	cmd := exec.Command("go", "build", "-tags", "nobadger,nomysql,nopgx,failpoints", "-trimpath", "-ldflags", "-s -w", "-o", bin, "./cmd/lanyard")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program with failpoints: %w\n%s", err, out)
	}
	return bin, nil
})

func removeFailpoints() {
	if failpointsDir != "" {
		_ = os.RemoveAll(failpointsDir)
	}
}

// withFailpoints has a world run the program with failpoints.
func withFailpoints(w *world, _ *fakeprovider.Config) {
	w.t.Helper()
	bin, err := failpointsBinary()
	if err != nil {
		w.t.Fatal(err)
	}
	w.bin = bin
}

// fail makes the named places fail from now on, and only them: a line for each,
// as package failpoint reads them.
func (w *world) fail(lines ...string) {
	w.t.Helper()
	name := w.path("failpoints")
	// Replaced as a whole: the program may be reading it.
	if err := os.WriteFile(name+".new", []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		w.t.Fatal(err)
	}
}

// signal sends the child a signal.
func (w *world) signal(s syscall.Signal) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(s); err != nil {
		w.t.Fatal(err)
	}
}

// died waits until the child has ended by itself, and returns how.
func (w *world) died(within time.Duration) syscall.WaitStatus {
	w.t.Helper()
	select {
	case <-w.exited:
	case <-time.After(within):
		w.t.Fatalf("the program did not end within %v", within)
	}
	status, ok := w.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		w.t.Fatal("no wait status here")
	}
	w.cmd = nil
	return status
}

// output returns what the child has printed.
func (w *world) output() string {
	w.t.Helper()
	b, err := os.ReadFile(w.path("output.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// member is a connection as its client knows it.
type member struct {
	id      string
	account string // the user's name at the provider
	told    uint64 // the highest generation that an answer named
	// unknown counts the token requests whose outcome the program can't have
	// seen: so often its refresh token may be presented again.
	unknown int
	ended   string // named as EXPIRED with this reason
	deleted bool
}

// signIn is held while somebody is signed in at a provider.
var signIn sync.Mutex

// join connects an account that nobody else has.
func (w *world) join(account string) *member {
	w.t.Helper()
	c := w.begin(account)
	browser := newBrowser(w.t)
	to := w.open(browser, c.ConnectURL)
	signIn.Lock()
	w.fake.SetUser(fakeprovider.User{ID: account, Name: account})
	callback, err := fakeprovider.Approve(w.t.Context(), browser, to)
	signIn.Unlock()
	if err != nil {
		w.t.Fatal(err)
	}
	w.complete(c.ID, w.finish(browser, callback).Get("completion_code"), account)
	return &member{id: c.ID, account: account, told: 1}
}

// joinAll connects n accounts, some at the same time.
func (w *world) joinAll(n int) []*member {
	w.t.Helper()
	all := make([]*member, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i] = w.join(fmt.Sprintf("account %d", i+1))
		})
	}
	wg.Wait()
	if w.t.Failed() { // one has ended its goroutine, and not the test
		w.t.FailNow()
	}
	return all
}

// refresh asks the API for a refresh in the background. done is closed after
// its end, whatever that was: the program may die of it.
func (w *world) refresh(m *member) (done <-chan struct{}) {
	return w.refreshWithin(m, patience)
}

// refreshAndLeave asks for a refresh, and hangs up as soon as the provider has
// been asked for it: nobody waits for its end any more.
func (w *world) refreshAndLeave(m *member) {
	w.t.Helper()
	posts := len(w.fake.Ledger().Posts)
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	over := w.refreshUntil(ctx, m)
	w.wantAsked(posts + 1)
	cancel()
	<-over
}

// refreshWithin does what refresh does, and hangs up after d.
func (w *world) refreshWithin(m *member, d time.Duration) <-chan struct{} {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	w.t.Cleanup(cancel)
	return w.refreshUntil(ctx, m)
}

// refreshUntil does what refresh does, and hangs up when ctx ends.
func (w *world) refreshUntil(ctx context.Context, m *member) <-chan struct{} {
	over := make(chan struct{})
	go func() {
		defer close(over)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.proxyURL("/v1/connections/"+m.id+"/refresh"), nil)
		if err != nil {
			w.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+w.apiKey)
		_, _ = w.tryDo(req) //nolint:contextcheck // what checks the answer needs none
	}()
	return over
}

// mustRefresh has a token renewed, and notes what the answer says.
func (w *world) mustRefresh(m *member) {
	w.t.Helper()
	if a := w.api(http.MethodPost, "/v1/connections/"+m.id+"/refresh", nil, nil); a.Status != http.StatusOK {
		w.t.Errorf("%s: refresh: HTTP %d: %s", m.account, a.Status, a.Body)
		return
	}
	c := w.connection(m.id)
	if c.Generation <= m.told {
		w.t.Errorf("%s: refreshed to generation %d after %d", m.account, c.Generation, m.told)
	}
	m.told = max(m.told, c.Generation)
}

// served makes a call and returns an error unless it was answered with the
// account's own token.
func (w *world) served(m *member) error {
	a, err := w.tryCall(m)
	if err != nil {
		return fmt.Errorf("%s: %w", m.account, err)
	}
	if a.Status != http.StatusOK || !strings.Contains(a.Body, `"`+m.account+`"`) {
		return fmt.Errorf("%s: a call got HTTP %d: %s", m.account, a.Status, a.Body)
	}
	return nil
}

// wantReady checks readiness: 200 or 503.
func (w *world) wantReady(status int) error {
	res, err := http.Get(w.proxyURL("/v1/health/ready"))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != status {
		body, _ := io.ReadAll(res.Body)
		return fmt.Errorf("ready: HTTP %d, want %d: %s", res.StatusCode, status, body)
	}
	return nil
}

// grant returns what the provider knows of a connection.
func (w *world) grant(l fakeprovider.Ledger, m *member) fakeprovider.GrantRecord {
	w.t.Helper()
	for _, g := range l.Grants {
		if g.User.Name == m.account {
			return g
		}
	}
	w.t.Fatalf("no grant of %s", m.account)
	return fakeprovider.GrantRecord{}
}

// presented returns how often each refresh token of a grant was presented. One
// that the provider was too busy to look at may come again.
func presented(l fakeprovider.Ledger, grant string) map[int]int {
	n := map[int]int{}
	for _, p := range l.Refreshes() {
		if p.Grant == grant && p.Outcome != fakeprovider.OutcomeLimited {
			n[p.RefreshNumber]++
		}
	}
	return n
}

// newCrowd starts a world whose program has failpoints, with n connections.
func newCrowd(t *testing.T, n int, opts ...option) (*world, []*member) {
	t.Helper()
	w := newWorld(t, append([]option{withFailpoints}, opts...)...)
	return w, w.joinAll(n)
}

// tryCall makes a call to a program that may be going down.
func (w *world) tryCall(m *member) (answer, error) {
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.proxyURL("/me"), nil)
	if err != nil {
		return answer{}, err
	}
	w.name(req, m.id)
	return w.tryDo(req)
}
