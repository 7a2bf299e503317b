package fidelity_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	mixSeed = flag.Uint64("mix.seed", 0, "what TestNoAnswerIsAnothers draws its calls from; 0: anything")
	mixTime = flag.Duration("mix.time", 4*time.Second, "how long TestNoAnswerIsAnothers goes on for each kind of upstream")
)

const (
	mixUsers = 200
	mixApps  = 32
)

// TestNoAnswerIsAnothers has many users call at once over the same few kept
// connections, to an upstream that does all that may put a connection out of
// step. Each answer proves for which call and whose token it is. None may be
// another's, and a call whose own answer is in order has to get it.
func TestNoAnswerIsAnothers(t *testing.T) {
	seed := *mixSeed
	if seed == 0 {
		seed = mathrand.Uint64()
	}
	w := newWorld(t, "lanyard")
	s, err := w.tls()
	if err != nil {
		t.Fatal(err)
	}
	for name, up := range map[string]*upstream{"plain": newUpstream(t, nil), "TLS": s.h1} {
		t.Run(name, func(t *testing.T) {
			up.spec.Users = mixUsers
			m := &mix{t: t, lane: lane{w: w, up: up}, seed: seed, count: map[string]int{}, arrived: map[string]int{}}
			m.run()
		})
	}
}

// mix is one run.
type mix struct {
	lane

	t    *testing.T
	seed uint64

	mu      sync.Mutex
	wrong   int            // guarded by mu
	count   map[string]int // guarded by mu :: what became of which calls
	arrived map[string]int // guarded by mu :: call → times
}

// complain prints the first things that went wrong.
func (m *mix) complain(format string, args ...any) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wrong++; m.wrong <= 10 {
		m.t.Errorf(format+" (-mix.seed %d)", append(args, m.seed)...)
	}
}

func (m *mix) run() {
	m.t.Logf("-mix.seed %d", m.seed)
	tag, _, off := m.up.handle(m.serve)
	defer off()
	ctx, cancel := context.WithTimeout(m.t.Context(), *mixTime+2*time.Minute)
	defer cancel()
	until := time.Now().Add(*mixTime)
	var work sync.WaitGroup
	for app := range mixApps {
		work.Go(func() {
			a := &mixApp{m: m, r: mathrand.New(mathrand.NewPCG(m.seed, uint64(app))), ctx: ctx}
			defer a.hangUp()
			for n := 0; ctx.Err() == nil && (time.Now().Before(until) || !m.seenAll()); n++ {
				a.call(tag, fmt.Sprintf("%d.%d", app, n))
			}
		})
	}
	work.Wait()
	total := 0
	for _, what := range slices.Sorted(maps.Keys(m.count)) {
		m.t.Logf("%6d %s", m.count[what], what)
		total += m.count[what]
	}
	if m.wrong > 0 {
		m.t.Errorf("%d of %d calls went wrong (-mix.seed %d)", m.wrong, total, m.seed)
	}
	if !m.seenAll() {
		m.t.Errorf("not all went as they should at least once, in %d calls (-mix.seed %d)", total, m.seed)
	}
}

// seenAll reports whether each plan was carried out at least once.
func (m *mix) seenAll() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !slices.ContainsFunc(mixPlans, func(p mixPlan) bool { return m.count[p.name+": as it should"] == 0 })
}

// mixCall is a call, as its path tells the upstream.
type mixCall struct {
	id     string
	plan   int // the index of what the upstream does
	user   int
	size   int    // of the answer's body, about
	chance uint64 // what the upstream draws from
}

func (c mixCall) path(tag string) string {
	return fmt.Sprintf("/%s/%s/%d/%d/%d/%d", tag, c.id, c.plan, c.user, c.size, c.chance)
}

// proof is what an answer to the call says in X-Proof, and begins its body with.
func (c mixCall) proof() string { return c.id + " for " + userToken(c.user) }

func (c mixCall) body() string {
	return c.proof() + "\n" + strings.Repeat(c.id+",", c.size/(len(c.id)+1))
}

func (m *mix) serve(s *served) error {
	var c mixCall
	method, rest, _ := strings.Cut(s.start, " ")
	path, _, _ := strings.Cut(rest, " ")
	parts := strings.Split(path, "/")
	if len(parts) != 7 {
		m.complain("a request went out as %s", short(s.start))
		return errClose
	}
	c.id = parts[2]
	if _, err := fmt.Sscan(strings.Join(parts[3:], " "), &c.plan, &c.user, &c.size, &c.chance); err != nil || c.plan >= len(mixPlans) {
		m.complain("a request went out as %s", short(s.start))
		return errClose
	}
	if got, want := s.value("Authorization"), "Bearer "+userToken(c.user); got != want {
		m.complain("call %s of %s went out with %s", c.id, userToken(c.user), got)
	}
	body, err := s.text()
	if err != nil {
		return errClose // the app has hung up
	}
	if body != "" && body != c.body() {
		m.complain("call %s went out with the body %s", c.id, short(body))
	}
	m.mu.Lock()
	m.arrived[c.id]++
	again := m.arrived[c.id] > 1 && method != "GET" && method != "HEAD"
	m.mu.Unlock()
	if again {
		m.complain("%s %s (%s) arrived twice", method, c.id, mixPlans[c.plan].name)
	}
	return mixPlans[c.plan].serve(&mixServed{served: s, call: c, method: method, r: mathrand.New(mathrand.NewPCG(c.chance, 1))})
}

// mixApp is an app, which makes one call at a time, each for another user.
type mixApp struct {
	m   *mix
	r   *mathrand.Rand
	ctx context.Context //nolint:containedctx // of the run
	c   *client         // nil: none yet
}

func (a *mixApp) hangUp() {
	if a.c != nil {
		_ = a.c.Close()
		a.c = nil
	}
}

func (a *mixApp) call(tag, id string) {
	plan := 0
	if a.r.IntN(100) < 40 {
		plan = a.r.IntN(len(mixPlans))
	}
	p := &mixPlans[plan]
	call := mixCall{id: id, plan: plan, user: a.r.IntN(mixUsers), size: []int{0, 100, 5000, 5000 + a.r.IntN(60_000)}[a.r.IntN(4)], chance: a.r.Uint64()}
	method := []string{"GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "DELETE", "DELETE", "POST"}[a.r.IntN(10)]
	outcome, err := a.try(tag, method, call, p)
	if err != nil {
		a.m.complain("%s %s (%s, of %d bytes): %v", method, id, p.name, call.size, err)
		outcome = "wrong"
	}
	a.m.mu.Lock()
	a.m.count[p.name+": "+outcome]++
	a.m.mu.Unlock()
}

// try makes a call and says what became of it. An error is what may not be.
func (a *mixApp) try(tag, method string, call mixCall, p *mixPlan) (outcome string, err error) {
	if a.c == nil {
		if a.c, err = a.m.dial(a.ctx); err != nil {
			return "", err
		}
	}
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n", method, call.path(tag), a.c.host, a.m.keyOf(call.user))
	switch {
	case method == "POST" && !p.behind && a.r.IntN(2) == 0:
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(call.body()), call.body())
	case method == "POST":
		head += "Content-Length: 0\r\n\r\n"
	default:
		head += "\r\n"
	}
	if err := a.c.send(head); err != nil {
		return "", err
	}
	if p.silent || a.r.IntN(25) == 0 { // before the answer, or as it comes
		time.Sleep(time.Duration(a.r.IntN(3000)) * time.Microsecond)
		a.hangUp()
		return "as it should", nil
	}
	hints, answer, err := a.c.answer()
	if err != nil {
		a.hangUp()
		if p.fails && wantNoTimeout(err) == nil {
			return "broken off", nil
		}
		return "", err
	}
	for _, h := range hints {
		if h.value("X-Proof") != call.proof() {
			return "", fmt.Errorf("ANOTHER'S: %s", short(h.lines))
		}
	}
	return a.judge(method, call, p, answer)
}

// judge reads the answer's body.
func (a *mixApp) judge(method string, call mixCall, p *mixPlan, answer *message) (string, error) {
	status := answer.status()
	bare := method == "HEAD" || status == 204 || status == 304
	body := ""
	if !bare && a.r.IntN(25) == 0 { // it leaves in the middle
		part := make([]byte, a.r.IntN(2000))
		n, _ := io.ReadFull(answer.body(), part)
		a.hangUp()
		if answer.value("X-Proof") == call.proof() && !strings.HasPrefix(call.body(), string(part[:n])) {
			return "", fmt.Errorf("ANOTHER'S: %s", short(string(part[:n])))
		}
		return "as it should", nil
	}
	if !bare {
		var err error
		if body, err = answer.text(); err != nil {
			a.hangUp()
			switch {
			case wantNoTimeout(err) != nil || !p.fails:
				return "", fmt.Errorf("after %d bytes: %w", len(body), err)
			case !strings.HasPrefix(call.body(), body):
				return "", fmt.Errorf("ANOTHER'S: %s", short(body))
			}
			return "as it should", nil
		}
	}
	if answer.length() < 0 && !answer.chunked() && !bare || answer.value("Connection") == "close" {
		a.hangUp()
	}
	proof := answer.value("X-Proof")
	switch {
	case proof == "" && status == 408 && (body == idleTimeout || method == "HEAD" && answer.length() == int64(len(idleTimeout))):
		return "an idle connection's end", nil // an upstream can send that just as a request is on its way
	case proof == "" && (status == 502 || status == 504) && (p.fails || method != "GET" && method != "HEAD"):
		if p.fails {
			return "as it should", nil
		}
		return "sent once, not answered", nil
	case proof != call.proof():
		return "", fmt.Errorf("ANOTHER'S: %s %s %s", answer.start, short(answer.lines), short(body))
	case p.fails && (method != "HEAD" || !p.later):
		return "", fmt.Errorf("an answer that is none came as %s with %d bytes", answer.start, len(body))
	case bare && status != 204 && status != 304 && status != 200 || !bare && status != 200:
		return "", fmt.Errorf("status %d", status)
	case !bare && !p.bare && body != call.body():
		return "", fmt.Errorf("ANOTHER'S: the body has %d bytes, want %d: %s", len(body), len(call.body()), short(body))
	}
	return "as it should", nil
}

// keyOf is what an app sends for a user.
func (m *mix) keyOf(user int) string {
	key, _, _ := strings.Cut(m.w.key, ".")
	return key + "." + userID(user)
}

// dial is for calls of many users.
func (m *mix) dial(ctx context.Context) (*client, error) {
	f, err := m.w.via(m.up.spec)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", f.Addr)
	if err != nil {
		return nil, broken("dialing: %w", err)
	}
	deadline, _ := ctx.Deadline()
	return &client{Conn: conn, in: bufio.NewReader(conn), w: m.w, host: f.Addr}, errors.Join(conn.SetDeadline(deadline))
}
