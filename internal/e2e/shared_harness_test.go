package e2e_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/internal/pgtest"
)

// Three Lanyards on one PostgreSQL. What one of them learns the others know at the
// latest a second later.
const (
	threeLanyards = 3
	learned       = time.Second
	// takenOver is how long the work of a dead holder waits for another at most:
	// the life of its lease, and five seconds for what it may have in hand.
	takenOver = 35 * time.Second
)

// trio is three runs that share a database, the provider, the app and the keys.
// The first is where browsers come to.
type trio struct {
	*world
	all [threeLanyards]*world
	db  *pgtest.Cluster // the test's alone
}

// newTrio starts them on a server of their own, and stops them at the end of the
// test, which ends with the sweep.
func newTrio(t *testing.T, opts ...option) *trio {
	t.Helper()
	c := &trio{db: pgtest.New(t)}
	dsn := c.db.Database(t)
	keyset, err := exec.Command(binary(t), "lanyard", "keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	shared := func(w *world, _ *fakeprovider.Config) {
		w.site.Store = "postgres {env.DATABASE_URL}\n\t\tkeyset {env.LANYARD_KEYSET}"
		w.environ = append(w.environ, "DATABASE_URL="+dsn, "LANYARD_KEYSET="+string(keyset))
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		password, _ := u.User.Password()
		w.secrets = append(w.secrets, password)
		w.secrets = append(w.secrets, keysetSecrets(keyset)...)
	}
	c.world = newWorld(t, append([]option{shared}, opts...)...)
	c.all[0] = c.world
	for i := range c.all[1:] {
		site := c.site
		site.Dir, site.Connect, site.Proxy = t.TempDir(), freePort(t), freePort(t)
		w := &world{
			t: t, site: site, fake: c.fake, app: c.app, evil: c.evil, apiKey: c.apiKey, clientKey: c.clientKey,
			secret: c.secret, secrets: c.secrets, bin: c.bin, environ: c.environ,
		}
		c.all[i+1] = w
		w.writeCaddyfile()
		w.start()
		t.Cleanup(func() {
			w.stop()
			w.sweep()
		})
	}
	return c
}

// allServe waits until each of them serves a call.
func (c *trio) allServe(id string) {
	c.t.Helper()
	for _, w := range c.all {
		w.eventually("a call is served", func() error { return w.wantCall(id, http.StatusOK) })
	}
}

// allKnow has each of them serve a call from memory: a read that a look at the
// changes crosses is not kept, but never are several in a row crossed.
func (c *trio) allKnow(id string) {
	c.t.Helper()
	for range 5 {
		c.allServe(id)
	}
}

// patientCall makes a call that may wait for as long as a lease lasts.
func (w *world) patientCall(id string) (answer, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), takenOver)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.proxyURL("/me"), nil)
	if err != nil {
		return answer{}, err
	}
	w.name(req, id)
	return w.tryDo(req)
}

// crowd calls a connection n times at once, spread over those given.
func crowd(id string, n int, ws ...*world) (answers []answer, errs []error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range n {
		w := ws[i%len(ws)]
		all.Go(func() {
			a, err := w.patientCall(id)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				answers = append(answers, a)
			}
		})
	}
	all.Wait()
	return answers, errs
}

// wantAll checks that all calls were served.
func wantAll(t *testing.T, n int, answers []answer, errs []error) {
	t.Helper()
	if len(answers) != n {
		t.Errorf("%d of %d calls were answered: %v", len(answers), n, errs)
	}
	bad := 0
	for _, a := range answers {
		if a.Status != http.StatusOK {
			if bad++; bad <= 3 {
				t.Errorf("HTTP %d: %s", a.Status, a.Body)
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d calls were not served", bad, n)
	}
}

// wantRefreshes checks how many refreshes the provider was asked for.
func (w *world) wantRefreshes(n int) {
	w.t.Helper()
	if got := len(w.fake.Ledger().Refreshes()); got != n {
		w.t.Errorf("%d refreshes, want %d", got, n)
	}
}

// wantSealed looks for secrets and words in the log of all that the database has
// written.
func (c *trio) wantSealed(words ...string) {
	c.t.Helper()
	secrets := c.allSecrets()
	for _, word := range words {
		secrets[word] = credential
	}
	f := newFinder(secrets)
	err := filepath.WalkDir(filepath.Join(c.db.Dir(), "pg_wal"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the database goes on: it has renamed or removed what was listed
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, l := range f.find("the database's "+d.Name(), b, 0) {
			c.t.Error(l)
		}
		return err
	})
	if err != nil {
		c.t.Error(err)
	}
}

// freeze has a run stand still, and returns what lets it go on.
func (w *world) freeze() (thaw func()) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		w.t.Fatal(err)
	}
	var once sync.Once
	thaw = func() { once.Do(func() { _ = w.cmd.Process.Signal(syscall.SIGCONT) }) }
	w.t.Cleanup(thaw)
	return thaw
}

// within waits until check returns nil, for no longer than limit.
func within(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > limit {
			t.Errorf("%s: not so after %v: %v", what, limit, err)
			return
		}
	}
}
