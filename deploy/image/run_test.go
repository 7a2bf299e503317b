package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

const (
	apiKey    = "an-api-key-of-a-test-0123456789abcdef"
	clientKey = "a-client-key-of-a-test-0123456789abcdef"
	patience  = 30 * time.Second
)

// TestImageRuns unpacks the image and runs it as an engine would that was told
// to be strict: its own user, no capabilities, no new privileges, a read-only
// root. A user connects, the app calls, the probes answer, and after SIGTERM
// another container goes on with the same volume.
func TestImageRuns(t *testing.T) {
	root, config := unpack(t)
	if _, err := exec.LookPath("runc"); err != nil || os.Getuid() != 0 {
		t.Skip("takes runc and root")
	}
	m := newMachine(t, root, config)
	if out, err := m.try(t, root); err != nil {
		t.Skipf("this machine lets runc start nothing: %v: %s", err, out)
	}
	c := m.start(t)
	m.waitReady(t, c)
	if out, err := c.exec("/caddy", "lanyard", "health", "--live"); err != nil {
		t.Errorf("health --live: %v: %s", err, out)
	}
	c.isConfined(t)
	id := m.connect(t)
	m.call(t, id)
	if out, err := c.exec("/bin/sh", "-c", "true"); err == nil {
		t.Errorf("there is a shell in the image: %s", out)
	}
	c.stop(t)

	c = m.start(t)
	m.waitReady(t, c)
	conn := m.ask(t, http.MethodGet, "/v1/connections/"+id, "", http.Header{"Authorization": {"Bearer " + apiKey}}, http.StatusOK)
	if !bytes.Contains(conn, []byte(`"ACTIVE"`)) {
		t.Errorf("in a second container: %s", conn)
	}
	c.stop(t)
	if out, err := c.exec(config.Healthcheck.Test[1:]...); err == nil {
		t.Errorf("a stopped container is healthy: %s", out)
	}
}

// unpack builds the image of the program under test, looks at its files, and
// returns the folder that they are in.
func unpack(t *testing.T) (string, v1.Config) {
	t.Helper()
	bin := os.Getenv("LANYARD_BIN")
	if bin == "" {
		bin, _ = filepath.Abs("../../caddy")
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skipf("the program under test is not built: run ./xcaddy.sh (%v)", err)
	}
	certs := filepath.Join(t.TempDir(), "certs.pem") // nothing here asks for one
	if err := os.WriteFile(certs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := content{Certs: certs, Version: "test"}.image(program{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, File: bin})
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	names := untar(t, mutate.Extract(img), root)
	want := []string{"caddy", "data", "etc", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt"}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("the image holds %q, want %q", names, want)
	}
	if runtime.GOOS == "linux" {
		isStatic(t, filepath.Join(root, "caddy"))
	}
	return root, file.Config
}

func untar(t *testing.T, layers io.ReadCloser, root string) (names []string) {
	t.Helper()
	defer layers.Close()
	for r := tar.NewReader(layers); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(root, filepath.FromSlash(head.Name))
		names = append(names, filepath.ToSlash(filepath.Clean(head.Name)))
		if head.Typeflag == tar.TypeDir {
			err = os.MkdirAll(to, fs.FileMode(head.Mode))
		} else {
			data, rerr := io.ReadAll(r)
			err = errors.Join(rerr, os.WriteFile(to, data, fs.FileMode(head.Mode)))
		}
		if err == nil && os.Getuid() == 0 {
			err = os.Chown(to, head.Uid, head.Gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func isStatic(t *testing.T, file string) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static: it asks for an interpreter")
		}
	}
}

// machine is what containers of the image run on: ports, a volume, a
// configuration.
type machine struct {
	config  v1.Config
	dir     string // the bundle
	proxy   string // the app's side
	done    string // where the flow ends
	browser *http.Client
}

func newMachine(t *testing.T, root string, config v1.Config) *machine {
	t.Helper()
	m := &machine{config: config, dir: t.TempDir()}
	ports := freePorts(t, 4)
	m.proxy, m.done = "http://127.0.0.1:"+ports[0], "http://localhost:"+ports[3]+"/done"
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	m.browser = &http.Client{Jar: jar, Timeout: patience, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), m.done) || req.URL.Path == "/authorize" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	caddyfile := strings.NewReplacer("PROXY", ports[0], "CONNECT", ports[1], "PROVIDER", ports[2], "APP", ports[3]).Replace(read(t, "testdata/Caddyfile"))
	for _, dir := range []string{"data", "caddy", "secrets"} {
		if err := os.Mkdir(filepath.Join(m.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(m.dir, dir), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"caddy/Caddyfile": caddyfile, "secrets/api_key": apiKey + "\n", "secrets/client_key": clientKey + "\n"} {
		path := filepath.Join(m.dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o400), os.Chown(path, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
	}
	m.write(t, m.spec(root))
	return m
}

func (m *machine) write(t *testing.T, spec object) {
	t.Helper()
	data, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, "config.json"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// try starts a container that only says the program's version.
func (m *machine) try(t *testing.T, root string) (string, error) {
	t.Helper()
	defer m.write(t, m.spec(root))
	spec := m.spec(root)
	spec["process"].(object)["args"] = []string{"/caddy", "version"}
	m.write(t, spec)
	out, err := exec.Command("runc", "--root", t.TempDir(), "run", "--bundle", m.dir, fmt.Sprintf("lanyard-try-%d", os.Getpid())).CombinedOutput()
	return string(out), err
}

type object = map[string]any

// spec is the bundle's configuration in the words of the OCI runtime
// specification. The network is this machine's, so that this test can be both
// the app and the browser.
func (m *machine) spec(root string) object {
	bind := func(name, to, access string) object {
		return object{"type": "bind", "source": filepath.Join(m.dir, name), "destination": to, "options": []string{"rbind", "nosuid", "nodev", access}}
	}
	none := []string{}
	return object{
		"ociVersion": "1.0.2",
		"root":       object{"path": root, "readonly": true},
		"process": object{
			"args":            slices.Concat(m.config.Entrypoint, m.config.Cmd),
			"env":             append(slices.Clone(m.config.Env), "LANYARD_URL="+m.proxy),
			"cwd":             "/",
			"user":            object{"uid": nobody, "gid": nobody},
			"noNewPrivileges": true,
			"capabilities":    object{"bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none},
		},
		"mounts": []object{
			{"type": "proc", "source": "proc", "destination": "/proc"},
			{"type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": []string{"nosuid", "mode=755", "size=64k"}},
			bind("data", "/data", "rw"), bind("caddy", "/etc/caddy", "ro"), bind("secrets", "/run/secrets", "ro"),
		},
		"linux": object{"namespaces": []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}},
	}
}

// container is one run of the image.
type container struct {
	id, state string
	cmd       *exec.Cmd
	out       *bytes.Buffer // to be read once it has ended
}

func (m *machine) start(t *testing.T) *container {
	t.Helper()
	c := &container{id: fmt.Sprintf("lanyard-test-%d-%d", os.Getpid(), time.Now().UnixNano()), state: t.TempDir(), out: new(bytes.Buffer)}
	c.cmd = exec.Command("runc", "--root", c.state, "run", "--bundle", m.dir, c.id)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			_ = exec.Command("runc", "--root", c.state, "kill", c.id, "KILL").Run()
			_ = c.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("container:\n%s", c.out)
		}
	})
	return c
}

func (c *container) exec(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "runc", append([]string{"--root", c.state, "exec", c.id}, args...)...).CombinedOutput()
	return string(out), err
}

// waitReady asks as an engine does, by the image's own health check.
func (m *machine) waitReady(t *testing.T, c *container) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		out, err := c.exec(m.config.Healthcheck.Test[1:]...)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not healthy: %v: %s", err, out)
		}
	}
}

// isConfined asks the kernel what the program may do.
func (c *container) isConfined(t *testing.T) {
	t.Helper()
	out, err := exec.Command("runc", "--root", c.state, "state", c.id).Output()
	if err != nil {
		t.Fatal(err)
	}
	var state struct{ Pid int }
	if err := json.Unmarshal(out, &state); err != nil {
		t.Fatal(err)
	}
	status := strings.Join(strings.Fields(read(t, fmt.Sprintf("/proc/%d/status", state.Pid))), " ")
	for _, want := range []string{
		"Uid: 65532 65532 65532 65532", "Gid: 65532 65532 65532 65532", "NoNewPrivs: 1",
		"CapInh: 0000000000000000", "CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 0000000000000000", "CapAmb: 0000000000000000",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("the program's status lacks %q: %s", want, status)
		}
	}
}

// stop ends the container as an engine does. It never wanted to write to its
// root.
func (c *container) stop(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("runc", "--root", c.state, "kill", c.id, "TERM").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	late := time.AfterFunc(patience, func() { _ = c.cmd.Process.Signal(syscall.SIGKILL) })
	defer late.Stop()
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v, want exit 0", err)
	}
	for _, wrong := range []string{"read-only file system", `"level":"error"`, "permission denied"} {
		if strings.Contains(c.out.String(), wrong) {
			t.Errorf("the log has %q:\n%s", wrong, c.out)
		}
	}
}

// connect goes through the flow as an app and its user's browser do.
func (m *machine) connect(t *testing.T) (id string) {
	t.Helper()
	var begun struct {
		ID         string
		ConnectURL string `json:"connect_url"`
	}
	body := m.ask(t, http.MethodPost, "/v1/connections", `{"integration": "demo", "user_id": "user_123"}`,
		http.Header{"Authorization": {"Bearer " + apiKey}, "Content-Type": {"application/json"}}, http.StatusCreated)
	if err := json.Unmarshal(body, &begun); err != nil {
		t.Fatal(err)
	}
	resp, err := m.browser.Get(begun.ConnectURL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	authorize, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || authorize.Path != "/authorize" {
		t.Fatalf("the link led to %q (status %d, %v)", resp.Header.Get("Location"), resp.StatusCode, err)
	}
	resp, err = m.browser.PostForm(authorize.String(), url.Values{"decision": {"allow"}, "scope": {"profile:read"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if to := resp.Header.Get("Location"); !strings.HasPrefix(to, m.done+"?connection_id="+begun.ID) {
		t.Fatalf("the flow ended at %q (status %d)", to, resp.StatusCode)
	}
	return begun.ID
}

func (m *machine) call(t *testing.T, id string) {
	t.Helper()
	m.ask(t, http.MethodGet, "/me", "", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {id}}, http.StatusOK)
}

func (m *machine) ask(t *testing.T, method, path, body string, header http.Header, status int) []byte {
	t.Helper()
	req, err := http.NewRequest(method, m.proxy+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := m.browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %d, %v, want %d: %s", method, path, resp.StatusCode, err, status, answer)
	}
	return answer
}

func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at the end, so that each is another
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

// quiet returns a logger that says nothing unless the test fails.
func quiet(t *testing.T) *log.Logger {
	t.Helper()
	return log.New(t.Output(), "", 0)
}
