package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The numbers of requests a second at which latency is measured. At the low one a
// program sleeps between any two of them, and most of what it adds is how long
// the machine takes to wake it. At the high one, a third of what stock Caddy can
// do where the processors are shared, it is at work when the next comes.
const (
	lowRate  = 1000
	highRate = 4000
)

// The number of parallel requests: of small ones, and of large ones.
const (
	manyParallel = 64
	fewParallel  = 8
	uploads      = 4
)

// What the jobs with this program as the upstream use of the connections.
const (
	uploadConnections = 10
	sseConnections    = 200
)

// wrkScript has wrk ask for each connection in turn. Its threads begin at
// different ones.
const wrkScript = `local threads = 0
function setup(thread) thread:set("first", threads * 5000); threads = threads + 1 end
function init(args)
	local file, prefix = args[1], args[2]
	n, requests = 0, {}
	for auth in io.lines(file) do
		requests[n] = wrk.format("GET", string.format("%s%05d?page=2", prefix, n), {
			["Authorization"] = auth, ["Accept"] = "application/json", ["Accept-Language"] = "en",
			["User-Agent"] = "bench/1", ["X-Request-Id"] = "abcdef0123456789"})
		n = n + 1
	end
	i = first
end
function request() i = (i + 1) % n; return requests[i] end
function done(s)
	io.write(string.format('\n{"requests":%d,"us":%d,"bytes":%d,"bad":%d,"broken":%d}\n', s.requests, s.duration, s.bytes,
		s.errors.status, s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout))
end
`

// A load drives one program. It is made for each job with each upstream.
type load struct {
	dir    string
	warm   time.Duration // before what is measured
	length time.Duration // of what is measured
	client *http.Client
	// connections are tried before what is measured.
	connections int
	next        int // the connection that latency goes on with
}

// newLoad returns a load whose client trusts the upstream, where it goes there
// directly.
func newLoad(dir string, quick bool, u *upstreams, j *job) *load {
	l := &load{dir: dir, warm: time.Second, length: 3 * time.Second, connections: connections}
	if j.name == "requests" {
		l.length = 4 * time.Second
	}
	if quick {
		l.warm, l.length, l.connections = 0, time.Second, connections/10
	}
	var protocols http.Protocols
	protocols.SetHTTP1(!j.h2c)
	protocols.SetUnencryptedHTTP2(j.h2c)
	protocols.SetHTTP2(true) // where the upstream offers it
	l.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: u.pool, MinVersion: tls.VersionTLS12},
		Protocols:           &protocols,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1024,
	}}
	return l
}

// A runner drives a program and returns what it measured.
type runner func(ctx context.Context, l *load, p *program) (figures, error)

// work has a program do something for a while, and returns how many units it
// did in what time.
type work func(length time.Duration) (units float64, took time.Duration, err error)

// measured returns the figures of work, after a while of it that does not
// count. CPU is for each perCPU units.
func (l *load) measured(p *program, perCPU float64, do work) (figures, error) {
	if l.warm > 0 {
		if _, _, err := do(l.warm); err != nil {
			return nil, err
		}
	}
	before, err := cpu(p)
	if err != nil {
		return nil, err
	}
	units, took, err := do(l.length)
	if err != nil {
		return nil, err
	}
	after, err := cpu(p)
	if err != nil {
		return nil, err
	}
	if units == 0 {
		return nil, errors.New("not one request was answered")
	}
	f := figures{metricRate: units / took.Seconds()}
	if p.child != nil {
		f[metricCPU] = (after - before).Seconds() / units * perCPU
	}
	return f, nil
}

func cpu(p *program) (time.Duration, error) {
	if p.child == nil {
		return 0, nil
	}
	return p.child.CPU()
}

func runSmall(ctx context.Context, l *load, p *program) (figures, error) {
	return l.measured(p, 100_000, func(length time.Duration) (float64, time.Duration, error) {
		return l.wrk(ctx, p, pathSmall, smallSize, manyParallel, length)
	})
}

func runDownload(ctx context.Context, l *load, p *program) (figures, error) {
	return l.measured(p, 1000, func(length time.Duration) (float64, time.Duration, error) {
		n, took, err := l.wrk(ctx, p, pathBig, bigSize, fewParallel, length)
		return n * bigSize / 1e6, took, err
	})
}

// wrk returns the number of requests that were answered as they should be. It
// fails if one was not.
func (l *load) wrk(ctx context.Context, p *program, prefix string, size, parallel int, length time.Duration) (requests float64, took time.Duration, err error) {
	script, auths := filepath.Join(l.dir, "wrk.lua"), filepath.Join(l.dir, "auths")
	if err := errors.Join(os.WriteFile(script, []byte(wrkScript), 0o600), writeLines(auths, p.auths)); err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, "wrk", "-t2", "-c"+strconv.Itoa(parallel), fmt.Sprintf("-d%.0fs", max(1, length.Seconds())),
		"-s", script, p.url, "--", auths, prefix)
	out, err := cmd.CombinedOutput()
	at := bytes.LastIndexByte(bytes.TrimSpace(out), '{')
	var r struct{ Requests, US, Bytes, Bad, Broken float64 }
	if at < 0 || json.Unmarshal(out[at:], &r) != nil {
		return 0, 0, fmt.Errorf("wrk: %w: %s", errors.Join(err, ctx.Err()), out)
	}
	if r.Bad > 0 || r.Broken > 0 || r.Bytes < r.Requests*float64(size) {
		return 0, 0, fmt.Errorf("of %.0f requests %.0f were refused and %.0f failed, with %.0f bytes in all", r.Requests, r.Bad, r.Broken, r.Bytes)
	}
	return r.Requests, time.Duration(r.US) * time.Microsecond, nil
}

func writeLines(file string, lines []string) error {
	var text bytes.Buffer
	for _, line := range lines {
		text.WriteString(line + "\n")
	}
	return os.WriteFile(file, text.Bytes(), 0o600)
}

var h2loadLine = regexp.MustCompile(`requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)

// runH2C has h2load speak HTTP/2 to the proxy. It sends the same headers with
// every request: those of one connection.
func runH2C(ctx context.Context, l *load, p *program) (figures, error) {
	return l.measured(p, 100_000, func(length time.Duration) (float64, time.Duration, error) { return l.h2load(ctx, p, length) })
}

func (l *load) h2load(ctx context.Context, p *program, length time.Duration) (requests float64, took time.Duration, err error) {
	// a fixed number of requests, since h2load's own clock counts what it
	// breaks off at the end as failed
	count := int(length.Seconds() * 8000)
	begin := time.Now()
	out, err := exec.CommandContext(ctx, "h2load", "-t2", "-c"+strconv.Itoa(fewParallel), "-m"+strconv.Itoa(manyParallel/fewParallel),
		"-n", strconv.Itoa(count), "-H", "authorization: "+p.auths[0], "-H", "accept: application/json", "-H", "accept-language: en",
		"-H", "user-agent: bench/1", "-H", "x-request-id: abcdef0123456789", p.url+path(pathSmall, 0)+"?page=2").CombinedOutput()
	took = time.Since(begin)
	if err != nil {
		return 0, 0, fmt.Errorf("h2load: %w: %s", err, out)
	}
	m := h2loadLine.FindSubmatch(out)
	if m == nil || string(m[1]) != string(m[3]) {
		return 0, 0, fmt.Errorf("h2load: not all were answered as they should be: %s", out)
	}
	return float64(count), took, nil
}

// do sends a request for the connection i and reads the answer, which has to be
// what the upstream gives to the right token. firstByte is when the body began.
func (l *load) do(ctx context.Context, p *program, prefix string, i int) (firstByte time.Time, err error) {
	method, body, length, size := http.MethodGet, io.Reader(nil), 0, len(sseEvents)
	switch prefix {
	case pathSmall:
		size = smallSize
	case pathUpload:
		method, body, length, size = http.MethodPost, bytes.NewReader(uploadBody), uploadSize, len(uploadAnswer)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.url+path(prefix, i)+"?page=2", body)
	if err != nil {
		return time.Time{}, err
	}
	req.ContentLength = int64(length)
	req.Header = http.Header{
		"Authorization": {p.auths[i]}, "Accept": {"application/json"}, "Accept-Language": {"en"},
		"User-Agent": {"bench/1"}, "X-Request-Id": {"abcdef0123456789"},
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	defer resp.Body.Close()
	var first [1]byte
	n, err := io.ReadFull(resp.Body, first[:])
	firstByte = time.Now()
	if err == nil || errors.Is(err, io.EOF) {
		var rest int64
		rest, err = io.Copy(io.Discard, resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || int64(n)+rest != int64(size)) {
			err = fmt.Errorf("%s with %d bytes for connection %d", resp.Status, int64(n)+rest, i)
		}
	}
	return firstByte, err
}

// latencyAt is a runner that sends requests at a fixed rate, whether or not the
// last one was answered, and measures from when each had to be sent.
func latencyAt(rate int) runner {
	return func(ctx context.Context, l *load, p *program) (figures, error) { return l.latency(ctx, p, rate) }
}

func (l *load) latency(ctx context.Context, p *program, rate int) (figures, error) {
	warm := int(l.warm.Seconds() * float64(rate))
	all := warm + int(l.length.Seconds()*float64(rate))
	took := make([]time.Duration, all)
	errs := make([]error, all)
	first := l.next
	l.next += all
	var wg sync.WaitGroup
	runtime.LockOSThread() // for sleepUntil
	defer runtime.UnlockOSThread()
	begin := time.Now().Add(10 * time.Millisecond)
	for n := range all {
		due := begin.Add(time.Duration(n) * time.Second / time.Duration(rate))
		sleepUntil(due)
		wg.Go(func() {
			_, errs[n] = l.do(ctx, p, pathSmall, (first+n)%connections)
			took[n] = time.Since(due)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err // the others are its like
		}
	}
	took = took[warm:]
	return figures{metricP50: us(percentile(took, 0.5)), metricP99: us(percentile(took, 0.99))}, nil
}

// sleepUntil sleeps in the kernel: time.Sleep of an idle program ends up to a
// millisecond late, which is more than what is measured.
func sleepUntil(due time.Time) {
	if wait := time.Until(due); wait > 0 {
		ts := syscall.NsecToTimespec(wait.Nanoseconds())
		_ = syscall.Nanosleep(&ts, nil) // cut short by a signal: a request is early
	}
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

var uploadBody = bytes.Repeat([]byte("0123456789abcdef"), uploadSize/16)

func runUpload(ctx context.Context, l *load, p *program) (figures, error) {
	return l.measured(p, 1000, func(length time.Duration) (float64, time.Duration, error) { return l.upload(ctx, p, length) })
}

// upload sends bodies for that long and returns the megabytes.
func (l *load) upload(ctx context.Context, p *program, length time.Duration) (mb float64, took time.Duration, err error) {
	var sent atomic.Int64
	errs := make([]error, uploads)
	begin := time.Now()
	var wg sync.WaitGroup
	for n := range uploads {
		wg.Go(func() {
			for errs[n] == nil && time.Since(begin) < length {
				i := int(sent.Add(1)) % uploadConnections
				_, errs[n] = l.do(ctx, p, pathUpload, i)
			}
		})
	}
	wg.Wait()
	return float64(sent.Load()) * uploadSize / 1e6, time.Since(begin), errors.Join(errs...)
}

// runSSE asks for events, one stream after the other.
func runSSE(ctx context.Context, l *load, p *program) (figures, error) {
	count := int(l.length.Seconds() * 100)
	var took []time.Duration
	for n := range count {
		begin := time.Now()
		first, err := l.do(ctx, p, pathSSE, n%sseConnections)
		if err != nil {
			return nil, err
		}
		took = append(took, first.Sub(begin))
	}
	return figures{metricP50: us(percentile(took, 0.5)), metricP99: us(percentile(took, 0.99))}, nil
}
