package fidelity_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// row is one thing that must pass unchanged.
type row struct {
	// name is a sentence that a user understands: "A path goes out byte for byte".
	name string
	// run tries it. The context ends after patience.
	run func(ctx context.Context, w *world) error
	// fails says in a clause why "caddy" or "nginx" do not pass.
	fails marks
	// patience is how long run may take. Default: 20 s.
	patience time.Duration
	// alone says that it takes the whole machine, which would harm the time
	// that other rows measure.
	alone bool
}

// marks are clauses that say what a peer does, by its name: "escapes it".
type marks = map[string]string

// group is the rows under one heading of the document.
type group struct {
	title string
	rows  []row
}

// groups is the whole table, in the document's order.
func groups() []group {
	return []group{
		{"Request line", targetRows},
		{"Headers of requests", requestHeaderRows},
		{"Headers and status of answers", answerRows},
		{"Bodies", bodyRows},
		{"Answers before the final one", interimRows},
		{"How connections end", endingRows},
		{"Connections", connectionRows},
		{"Odd upstreams, over connections that are kept, without and with TLS", oddRows},
		{"Apps that speak HTTP/2", http2Rows},
		{"Upstreams with TLS, which speak HTTP/2", tlsRows},
		{"Server-sent events", sseRows},
		{"WebSocket", webSocketRows},
		{"h2c and gRPC", grpcRows},
	}
}

// proxies is what the table is run against.
var proxies = []string{"lanyard", "caddy", "nginx"}

// nginxVersion is the one that the marks of nginx are true of: Debian 12's.
const nginxVersion = "1.22"

func TestMain(m *testing.M) {
	flag.Parse()
	// Most rows wait, for a pause or a time to pass.
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("12")
	}
	code := m.Run()
	if err := writeFaults(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// TestFidelity runs each row against each proxy. A peer's row has to fail where
// it is marked, and only there: so the document stays true.
func TestFidelity(t *testing.T) {
	for _, proxy := range proxies {
		t.Run(proxy, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, proxy)
			for _, g := range groups() {
				for _, r := range g.rows {
					t.Run(r.name, func(t *testing.T) {
						t.Parallel()
						judge(t, w, r)
					})
				}
			}
		})
	}
}

// machine is held by a row that runs alone, and shared by the others.
var machine sync.RWMutex

// try runs a row, alone or beside others. late says that time ran out.
func (r row) try(t *testing.T, w *world, alone bool) (err error, late bool) { //nolint:revive // late is about err
	t.Helper()
	if alone {
		machine.Lock()
		defer machine.Unlock()
	} else {
		machine.RLock()
		defer machine.RUnlock()
	}
	limit := r.patience
	if limit == 0 {
		limit = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err = r.run(ctx, w)
	if notOurs, ok := errors.AsType[*harnessError](err); ok {
		t.Fatal(notOurs)
	}
	return err, err != nil && (ctx.Err() != nil || timedOut(err) || errors.Is(err, context.DeadlineExceeded))
}

// lateRows counts Lanyard's rows that came late and are tried once more: a busy
// machine does that to some. An answer that hangs by chance does it to more.
var lateRows atomic.Int32

const maxLateRows = 3

// judge runs one row.
func judge(t *testing.T, w *world, r row) {
	t.Helper()
	why, marked := r.fails[w.proxy]
	err, late := r.try(t, w, r.alone)
	if w.proxy == "lanyard" && late && lateRows.Add(1) <= maxLateRows {
		fmt.Fprintf(os.Stderr, "fidelity: %q once more, alone, since time ran out: %v\n", r.name, err)
		err, _ = r.try(t, w, true)
	}
	for tries := 0; tries < 2 && w.proxy != "lanyard" && ((err != nil) != marked || err != nil && !known(w.proxy, r.name, err)); tries++ {
		// A busy machine can do that; the peers are there only to compare.
		t.Logf("once more, alone, since the last try said: %v", err)
		err, _ = r.try(t, w, true)
	}
	complain := t.Errorf
	if w.proxy == "nginx" && !w.markedVersion {
		complain = t.Logf
	}
	switch {
	case w.proxy == "lanyard" && err != nil:
		t.Error(err)
	case w.proxy == "lanyard":
	case err != nil && !marked:
		complain("%s does not pass, and the row does not say so: %v", w.proxy, err)
	case err != nil && !known(w.proxy, r.name, err):
		complain("%s does not pass, but otherwise than %s says (%s; go test -faults adds it): %v", w.proxy, faultsFile, why, err)
	case err != nil:
		t.Logf("as marked (%s): %v", why, err)
	case marked && !strings.HasPrefix(why, atTimes):
		complain("%s passes, but the row says that it %s", w.proxy, why)
	}
}

// atTimes begins the mark of a peer that fails by chance.
const atTimes = "at times "

// harnessError is a failure of the suite itself, not of a proxy.
type harnessError struct{ err error }

func (e *harnessError) Error() string { return "fidelity: " + e.err.Error() }

func (e *harnessError) Unwrap() error { return e.err }

// broken returns an error that is not the proxy's fault.
func broken(format string, args ...any) error {
	return &harnessError{fmt.Errorf(format, args...)}
}

// TestRowsAreSound: names are unique sentences, marks are of peers.
func TestRowsAreSound(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range groups() {
		for _, r := range g.rows {
			if seen[r.name] || strings.ContainsAny(r.name, "|\n") {
				t.Errorf("row %q: twice, or with a sign that the document can't hold", r.name)
			}
			seen[r.name] = true
			for proxy, why := range r.fails {
				if proxy == "lanyard" || !slices.Contains(proxies, proxy) || why == "" {
					t.Errorf("row %q: mark of %q: %q", r.name, proxy, why)
				}
			}
		}
	}
}
