package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PgBouncer starts a PgBouncer in transaction mode before the database of a DSN,
// until the test's end, and returns the DSN through it. Beside what that mode
// forbids by itself it has few connections to the server, so that clients really
// share them.
func PgBouncer(t T, dsn string) string {
	t.Helper()
	h, err := theHome()
	check(t, err)
	through, stop, err := h.pgBouncer(dsn)
	check(t, err)
	t.Cleanup(stop)
	return through
}

const pgBouncerINI = `[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
default_pool_size = 5
max_client_conn = 1000
server_login_retry = 1
`

func (h *home) pgBouncer(dsn string) (through string, stop func(), err error) {
	if _, err := find("pgbouncer"); err != nil {
		return "", nil, err
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", nil, fmt.Errorf("reading a DSN: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	name := filepath.Join(h.dir, "pgbouncer-"+strings.ToLower(rand.Text()[:8]))
	ini := fmt.Sprintf(pgBouncerINI, u.Hostname(), u.Port(), port, name+".users")
	for suffix, text := range map[string]string{".ini": ini, ".users": fmt.Sprintf("%q %q\n", "lanyard", h.password)} {
		if err := os.WriteFile(name+suffix, []byte(text), 0o600); err != nil {
			return "", nil, fmt.Errorf("configuring PgBouncer: %w", err)
		}
		if h.root {
			if err := os.Chown(name+suffix, int(h.uid), int(h.gid)); err != nil {
				return "", nil, fmt.Errorf("configuring PgBouncer: %w", err)
			}
		}
	}
	cmd, err := h.command("pgbouncer", "-q", name+".ini")
	if err != nil {
		return "", nil, err
	}
	log, err := os.Create(name + ".log") //nolint:gosec // of our own directory
	if err != nil {
		return "", nil, fmt.Errorf("configuring PgBouncer: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("starting PgBouncer: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	u.Host = "127.0.0.1:" + strconv.Itoa(port)
	err = await("PgBouncer to listen", func() error {
		conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", u.Host)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	if err != nil {
		stop()
		text, _ := os.ReadFile(name + ".log") //nolint:gosec // of its own folder
		return "", nil, fmt.Errorf("%w: %s", err, text)
	}
	return u.String(), stop, nil
}
