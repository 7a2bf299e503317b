package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// threads is how many wrk has: as many at each of one or three Lanyards.
const threads = 3

// wrkScript has wrk ask for each connection in turn. Its threads begin at
// different ones, and each asks one Lanyard.
const wrkScript = `local threads = 0
local ports = {}
function setup(thread)
	if #ports == 0 then
		for port in io.lines("PORTS") do ports[#ports + 1] = port end
	end
	thread.addr = wrk.lookup("127.0.0.1", ports[threads % #ports + 1])[1]
	thread:set("first", threads * 3333)
	threads = threads + 1
end
function init(args)
	n, requests = 0, {}
	for line in io.lines("CALLS") do
		local path, auth = line:match("(%S+) (.*)")
		requests[n] = wrk.format("GET", path .. "?page=2", {
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

// wrk spreads calls over the Lanyards, and returns how many were answered as
// they should be. It fails if one was not.
func (b *bench) wrk(ctx context.Context, running []*lanyard, length time.Duration) (calls float64, took time.Duration, err error) {
	var lines, ports strings.Builder
	for _, c := range b.called() {
		fmt.Fprintf(&lines, "%s Bearer %s.%s\n", c.path(), clientKey, c.id)
	}
	for _, l := range running {
		_, port, _ := strings.Cut(l.proxy, ":")
		ports.WriteString(port + "\n")
	}
	script, callFile, portFile := filepath.Join(b.dir, "wrk.lua"), filepath.Join(b.dir, "calls"), filepath.Join(b.dir, "ports")
	text := strings.NewReplacer("PORTS", portFile, "CALLS", callFile).Replace(wrkScript)
	err = errors.Join(os.WriteFile(script, []byte(text), 0o600), os.WriteFile(callFile, []byte(lines.String()), 0o600),
		os.WriteFile(portFile, []byte(ports.String()), 0o600))
	if err != nil {
		return 0, 0, err
	}
	out, err := exec.CommandContext(ctx, "wrk", "-t"+strconv.Itoa(threads), "-c"+strconv.Itoa(callers), fmt.Sprintf("-d%.0fs", length.Seconds()),
		"-s", script, "http://"+running[0].proxy).CombinedOutput()
	at := bytes.LastIndexByte(bytes.TrimSpace(out), '{')
	var r struct{ Requests, US, Bytes, Bad, Broken float64 }
	if at < 0 || json.Unmarshal(out[at:], &r) != nil {
		return 0, 0, fmt.Errorf("wrk: %w: %s", errors.Join(err, ctx.Err()), out)
	}
	if r.Requests == 0 || r.Bad > 0 || r.Broken > 0 || r.Bytes < r.Requests*answerSize {
		return 0, 0, fmt.Errorf("of %.0f calls %.0f were refused and %.0f failed, with %.0f bytes in all", r.Requests, r.Bad, r.Broken, r.Bytes)
	}
	return r.Requests, time.Duration(r.US) * time.Microsecond, nil
}
