package e2e_test

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// example is a running Caddyfile of this repository, unchanged but for its ports.
type example struct {
	t      *testing.T
	dir    string
	ports  map[string]int // :: port in the file → the one it is here
	cmd    *exec.Cmd
	exited chan error
}

func runExample(t *testing.T, file string, ports ...string) *example {
	t.Helper()
	e := &example{t: t, dir: t.TempDir(), ports: map[string]int{}, exited: make(chan error, 1)}
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	config := string(text)
	for _, p := range ports {
		e.ports[p] = freePort(t)
		config = strings.ReplaceAll(config, ":"+p, fmt.Sprintf(":%d", e.ports[p]))
	}
	path := filepath.Join(e.dir, "Caddyfile")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(filepath.Join(e.dir, "output.log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	e.cmd = exec.Command(binary(t), "run", "--config", path, "--adapter", "caddyfile")
	e.cmd.Dir, e.cmd.Stdout, e.cmd.Stderr, e.cmd.SysProcAttr = e.dir, out, out, dieWithParent()
	e.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+e.dir+"/xdg", "XDG_CONFIG_HOME="+e.dir+"/xdg", "HOME="+e.dir,
		"GITHUB_CLIENT_ID=some-client", "GITHUB_CLIENT_SECRET=some-secret")
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { e.exited <- e.cmd.Wait() }()
	t.Cleanup(e.stop)
	w := &world{t: t}
	w.eventually(file+" runs", func() error {
		res, err := http.Get(e.url("9080", "/v1/health/ready"))
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
	return e
}

func (e *example) url(port, path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", e.ports[port], path)
}

func (e *example) stop() {
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-e.exited:
		if err != nil {
			log, _ := os.ReadFile(filepath.Join(e.dir, "output.log"))
			e.t.Errorf("caddy ended with %v\n%s", err, tail(log))
		}
	case <-time.After(patience):
		_ = e.cmd.Process.Kill()
		e.t.Error("caddy did not end")
	}
}

// listening returns the addresses on which a process takes connections and
// datagrams, and the names of its unix sockets.
func listening(t *testing.T, pid int) []string {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", pid)
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Skipf("this system does not say what a process listens on: %v", err)
	}
	mine := map[string]bool{} // :: inode
	for _, fd := range fds {
		to, _ := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			mine[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var all []string
	for _, table := range []struct {
		name, state             string
		address, stateAt, inode int // columns
	}{{"tcp", "0A", 1, 3, 9}, {"tcp6", "0A", 1, 3, 9}, {"udp", "07", 1, 3, 9}, {"udp6", "07", 1, 3, 9}, {"unix", "00010000", 7, 3, 6}} {
		f, err := os.Open(proc + "/net/" + table.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a system without IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			c := strings.Fields(lines.Text())
			if len(c) > table.inode && c[table.stateAt] == table.state && mine[c[table.inode]] {
				address := "unix"
				if table.name != "unix" {
					address = readAddress(t, c[table.address]).String()
				}
				all = append(all, address)
			}
		}
	}
	slices.Sort(all)
	return all
}

// readAddress reads an address as /proc/net has it: 32-bit words, each with its
// lowest byte first, and the port.
func readAddress(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	var number uint16
	if _, err2 := fmt.Sscanf(port, "%X", &number); err != nil || err2 != nil {
		t.Fatalf("%q: %v, %v", s, err, err2)
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, number)
}

func TestAttacksOnTheExamples(t *testing.T) {
	for file, ports := range map[string][]string{
		"Caddyfile.example":              {"9080", "9081", "9082", "9083"},
		"examples/express-app/Caddyfile": {"9080", "9081", "9082"},
		"examples/github/Caddyfile":      {"9080", "9081"},
		"examples/go-app/Caddyfile":      {"9080", "9081", "9082"},
	} {
		t.Run(file, func(t *testing.T) {
			e := runExample(t, file, ports...)
			t.Run("A163 and A165 Loopback only, and no admin API", func(t *testing.T) {
				var want []string
				for _, p := range ports {
					want = append(want, fmt.Sprintf("127.0.0.1:%d", e.ports[p]))
				}
				slices.Sort(want)
				if got := listening(t, e.cmd.Process.Pid); !slices.Equal(got, want) {
					t.Errorf("it listens on %q, want %q and nothing else", got, want)
				}
				for _, other := range otherAddresses(t) {
					for _, p := range ports {
						if conn, err := net.DialTimeout("tcp", net.JoinHostPort(other, fmt.Sprint(e.ports[p])), time.Second); err == nil {
							_ = conn.Close()
							t.Errorf("%s answers on port %s", other, p)
						}
					}
				}
			})
			t.Run("A166 Other process in the pod", func(t *testing.T) { e.wantShut(t) })
		})
	}
}

// otherAddresses returns the machine's addresses that are not loopback.
func otherAddresses(t *testing.T) []string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			all = append(all, n.IP.String())
		}
	}
	return all
}

// wantShut checks what another process finds that has no key: answers that say
// 401, and files that it may not read.
func (e *example) wantShut(t *testing.T) {
	t.Helper()
	const id = "conn_AAAAAAAAAAAAAAAAAAAAAAAAAA"
	wrong := strings.Repeat("k", 32)
	for _, path := range []string{"/v1/connections", "/v1/connections/" + id, "/v1/integrations", "/v1/backup", "/v1/events", "/user", "/github/user", "/"} {
		for _, header := range [][2]string{{"Connection-Id", id}, {"Authorization", "Bearer " + wrong}, {"Authorization", "Bearer " + wrong + "." + id}, {"Lanyard-Key", wrong}} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url("9080", path), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(header[0], header[1])
			res, err := newAddress(t).RoundTrip(req) // one address is slowed down soon
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusUnauthorized || res.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("GET %s with %s: HTTP %d, want 401", path, header[0], res.StatusCode)
			}
		}
	}
	err := filepath.WalkDir(filepath.Join(e.dir, "xdg", "caddy", "lanyard"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v, want it to be its owner's only", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
