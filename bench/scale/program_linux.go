//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-proxy/lanyard/bench/internal/child"
	"github.com/lanyard-proxy/lanyard/secret"
)

const (
	calls    = 100_000 // proxied, of each kind; of the first with each connection fewer, where there are fewer
	callers  = 16
	apiLists = 3_000
	hotCalls = 1_000 // connections that are called with again and again

	clientKey = "01234567890123456789012345678901234567clientkey"
	apiKey    = "01234567890123456789012345678901234567api-key"
)

// program is what was measured of the program with a store.
type program struct {
	cold             time.Duration // from its start to its first call and to ready, with nothing of the store in memory
	firstCall, ready time.Duration // from its start, once it was started before
	started, called  child.Memory  // after the first call; after all of them
	once, hot        proxied       // the first with each connection; of 1,000 again and again
	list             times         // of a user's connections, through the API
	stop             time.Duration
}

// proxied is what a proxied call costs.
type proxied struct {
	cpu  time.Duration // of the program, for each
	took times
}

// running is a program with its addresses.
type running struct {
	*child.Child
	proxy, api string
	began      time.Time
	client     *http.Client
	sample     sample
}

// measureProgram measures the program at path with the store in dir.
func measureProgram(ctx context.Context, path, dir, logs string, s sample) (m program, err error) {
	upstream := httptest.NewServer(checkBearer(s))
	defer upstream.Close()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	if err := evict(dir); err != nil {
		return m, err
	}
	p, firstCall, ready, err := start(ctx, path, dir, logs, upstream.URL, s)
	if err != nil {
		return m, err
	}
	m.cold = max(firstCall, ready)
	if err := p.Stop(); err != nil {
		return m, err
	}
	if p, m.firstCall, m.ready, err = start(ctx, path, dir, logs, upstream.URL, s); err != nil {
		return m, err
	}
	defer func() {
		began := time.Now()
		err = errors.Join(err, p.Stop())
		m.stop = time.Since(began)
	}()
	if m.started, err = p.Memory(); err != nil {
		return m, err
	}
	if err = atRest(ctx, p.CPU); err != nil {
		return m, err
	}
	unused := slices.DeleteFunc(someOf(s.n, calls), func(i int) bool { return !s.active(i) })
	if m.once, err = p.calls(ctx, len(unused), func(i int) int { return unused[i] }); err != nil {
		return m, err
	}
	if m.hot, err = p.calls(ctx, calls, func(int) int { return s.someActive(min(hotCalls, s.n)) }); err != nil {
		return m, err
	}
	users := someOf(s.users(), usersInUse)
	m.list, err = repeatWarm(apiLists, func() error {
		return p.get(ctx, p.api+"/v1/connections?limit=50&user_id="+url.QueryEscape(userID(users[rand.IntN(len(users))])), apiKey, nil)
	})
	if err != nil {
		return m, err
	}
	m.called, err = p.Memory()
	return m, err
}

// checkBearer is an upstream that wants the token of the connection whose number
// the request tells.
func checkBearer(s sample) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, err := strconv.Atoi(r.Header.Get("Sample"))
		bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if c := s.connection(i); err != nil || !ok || !c.Token.AccessToken.Equal(secret.New(bearer)) {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		_, _ = io.WriteString(w, `{"items":[]}`)
	})
}

// someActive returns an active connection of the first n.
func (s sample) someActive(n int) int {
	for {
		if i := rand.IntN(n); s.active(i) {
			return i
		}
	}
}

// evict has the kernel drop what it has in memory of the files below dir.
func evict(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = f.Sync() // it keeps what is not on the disk yet
		return errors.Join(err, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
}

// start starts the program, and returns how long it took to its first call and
// to ready.
func start(
	ctx context.Context, path, dir, logs, upstream string, s sample,
) (p *running, firstCall, ready time.Duration, err error) {
	if p, err = launch(path, dir, logs, upstream, s); err != nil {
		return nil, 0, 0, err
	}
	firstCall, err = p.until(ctx, func() error { return p.call(ctx, s.someActive(s.n)) })
	if err == nil {
		ready, err = p.until(ctx, func() error { return p.get(ctx, p.api+"/v1/health/ready", apiKey, nil) })
	}
	if err != nil {
		return nil, 0, 0, errors.Join(err, p.Stop())
	}
	return p, firstCall, ready, nil
}

func launch(path, dir, logs, upstream string, s sample) (*running, error) {
	var addrs [2]string
	for i := range addrs {
		var err error
		if addrs[i], err = child.FreeAddr(); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(logs, "Caddyfile")
	if err := os.WriteFile(file, []byte(caddyfile(dir, upstream, addrs)), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), "HOME="+logs, "XDG_DATA_HOME="+logs, "XDG_CONFIG_HOME="+logs)
	p := &running{
		proxy: "http://" + addrs[0], api: "http://" + addrs[1], began: time.Now(), sample: s,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}, Timeout: time.Minute},
	}
	var err error
	p.Child, err = child.Start(logs, "lanyard", cmd)
	return p, err
}

func caddyfile(dir, upstream string, addrs [2]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "{\nadmin off\nlog {\nlevel WARN\n}\nlanyard {\npublic_url http://localhost:9080\nstore badger %q\n", dir)
	fmt.Fprintf(&b, "redirect_url https://app.example.com/integrations/callback\napi_key %s\nclient bench %s\n", apiKey, clientKey)
	for i := range integrations {
		name := integrationOf(i)
		fmt.Fprintf(&b, "provider %s {\nauthorize_url %[2]s/authorize\ntoken_url %[2]s/token\napi_url %[2]s\nallow_private\n}\n", name, upstream)
		fmt.Fprintf(&b, "integration %s {\nclient_id x\nclient_secret yyyyyyyy\n}\n", name)
	}
	b.WriteString("}\n}\n")
	for i, handler := range []string{"lanyard_proxy", "lanyard_api"} {
		host, port, _ := net.SplitHostPort(addrs[i])
		fmt.Fprintf(&b, "http://:%s {\nbind %s\n%s\n}\n", port, host, handler)
	}
	return b.String()
}

// until does what is given until it succeeds, and returns how long after the
// program's start that was.
func (p *running) until(ctx context.Context, do func() error) (time.Duration, error) {
	u, err := url.Parse(p.proxy)
	if err == nil {
		err = p.WaitFor(ctx, u.Host)
	}
	for err == nil {
		failed := do()
		if failed == nil {
			return time.Since(p.began), nil
		}
		select {
		case <-ctx.Done():
			err = errors.Join(ctx.Err(), failed)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return 0, err
}

// call makes a proxied call with connection i.
func (p *running) call(ctx context.Context, i int) error {
	return p.get(ctx, p.proxy+"/items?page=2", clientKey+"."+p.sample.id(i), http.Header{"Sample": {strconv.Itoa(i)}})
}

func (p *running) get(ctx context.Context, url, bearer string, header http.Header) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	if header != nil {
		r.Header = header
	}
	r.Header.Set("Authorization", "Bearer "+bearer)
	answer, err := p.client.Do(r)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", r.URL.Path, answer.Status, body)
	}
	return err
}

// calls makes n calls, the i-th with the connection that choose returns.
func (p *running) calls(ctx context.Context, n int, choose func(i int) int) (proxied, error) {
	cpu, err := p.CPU()
	if err != nil {
		return proxied{}, err
	}
	var mu sync.Mutex
	var done proxied
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			var took times
			var failed error
			for i := int(next.Add(1)) - 1; i < n && failed == nil; i = int(next.Add(1)) - 1 {
				began := time.Now()
				failed = p.call(ctx, choose(i))
				took = append(took, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			done.took, err = append(done.took, took...), errors.Join(err, failed)
		})
	}
	wg.Wait()
	if err != nil {
		return done, err
	}
	after, err := p.CPU()
	done.cpu = (after - cpu) / time.Duration(n)
	return done, err
}
