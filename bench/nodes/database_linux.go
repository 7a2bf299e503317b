package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/child"
)

// settings are PostgreSQL's defaults but for what a server is given that writes
// much: no checkpoint falls into one round and not into the others.
const settings = `
listen_addresses = '127.0.0.1'
max_connections = 100
shared_buffers = 512MB
max_wal_size = 8GB
min_wal_size = 1GB
checkpoint_timeout = 30min
fsync = on
synchronous_commit = on
full_page_writes = on
`

// A database is a PostgreSQL server that runs.
type database struct {
	child *child.Child
	url   string // for Lanyard
	dir   string // of its socket
	port  string
}

// startDatabase makes a server in dir, which is made for it.
func startDatabase(ctx context.Context, dir string) (*database, error) {
	who, err := serverUser()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if who != nil {
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			return nil, err
		}
	}
	addr, err := child.FreeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	initdb := serverCommand(ctx, who, "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256")
	initdb.Dir = dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	config := filepath.Join(data, "postgresql.auto.conf")
	own := settings + fmt.Sprintf("port = %s\nunix_socket_directories = '%s'\n", port, dir)
	if err := os.WriteFile(config, []byte(own), 0o600); err != nil { // it is there already, and stays its owner's
		return nil, err
	}
	server := serverCommand(context.WithoutCancel(ctx), who, "postgres", "-D", data)
	server.Dir = dir
	d := &database{dir: dir, port: port}
	if d.child, err = child.Start(filepath.Dir(dir), "postgres", server); err != nil {
		return nil, err
	}
	if err := d.setUp(ctx, addr); err != nil {
		return nil, errors.Join(err, d.child.Stop())
	}
	return d, nil
}

// setUp waits for the server and makes Lanyard's role and database.
func (d *database) setUp(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := d.child.WaitFor(ctx, addr); err != nil {
		return err
	}
	for { // it listens before it takes anybody in
		_, err := d.query(ctx, "select 1")
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
	password := rand.Text()
	d.url = "postgres://lanyard:" + password + "@" + addr + "/lanyard?sslmode=disable"
	if _, err := d.query(ctx, "create role lanyard login password '"+password+"'"); err != nil {
		return err
	}
	_, err := d.query(ctx, "create database lanyard owner lanyard")
	return err
}

// query returns what a statement selects. It runs in another database than
// Lanyard's, whose statements are counted.
func (d *database) query(ctx context.Context, statement string) (string, error) {
	cmd := exec.CommandContext(ctx, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", d.dir, "-p", d.port, "-U", "postgres", "-c", statement, "postgres")
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, problem.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

func (d *database) number(ctx context.Context, statement string) (float64, error) {
	text, err := d.query(ctx, statement)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(text, 64)
}

// written returns how many bytes the write-ahead log has had.
func (d *database) written(ctx context.Context) (float64, error) {
	return d.number(ctx, "select pg_current_wal_lsn() - '0/0'")
}

// commits returns how many transactions Lanyards have ended, some of them up to
// lateCount later.
func (d *database) commits(ctx context.Context) (float64, error) {
	return d.number(ctx, "select xact_commit + xact_rollback from pg_stat_database where datname = 'lanyard'")
}

// serverUser returns whom the server runs as, which must not be root. Nil is
// whoever runs this.
func serverUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
	}
	return nil, errors.New("it does not run as root, and there is no user postgres or nobody")
}

// serverCommand returns a program of the server's. Debian has them where no
// PATH leads.
func serverCommand(ctx context.Context, who *syscall.Credential, name string, args ...string) *exec.Cmd {
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(found) > 0 {
		name = found[len(found)-1]
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}
