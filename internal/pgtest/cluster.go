package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Cluster is one PostgreSQL server with its databases. Its methods are for one
// goroutine at a time, except Database and SQL.
type Cluster struct {
	home *home
	data string // its data directory
	port int

	cmd    *exec.Cmd     // nil while it is down
	exited chan struct{} // closed when it has ended
	pause  *pause        // nil unless it stands still
}

// Mode is how a server is stopped.
type Mode string

// The ways to stop a server.
const (
	Fast      Mode = "fast"      // its clients are cut off, all is written down
	Immediate Mode = "immediate" // as by a crash: it recovers at its start
)

var shared = sync.OnceValues(Start)

// Shared returns a server for all tests of the process. It must be left running.
func Shared(t T) *Cluster {
	t.Helper()
	c, err := shared()
	check(t, err)
	return c
}

// New returns a server that is the test's alone, until its end.
func New(t T) *Cluster {
	t.Helper()
	c, err := Start()
	check(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of PostgreSQL ends so:\n%s", c.logTail())
		}
		c.Close()
	})
	return c
}

// Start starts a server.
func Start() (*Cluster, error) {
	h, err := theHome()
	if err != nil {
		return nil, err
	}
	c := &Cluster{home: h, data: filepath.Join(h.dir, "data-"+strings.ToLower(rand.Text()[:8]))}
	if c.port, err = freePort(); err != nil {
		return nil, err
	}
	cp := exec.CommandContext(context.Background(), "cp", "-a", h.template, c.data) //nolint:gosec // both are ours
	if _, err := output(cp); err != nil {
		return nil, err
	}
	return c, c.begin()
}

// settings are those of every server. What is not synced survives a crash of the
// server, only not one of the machine.
const settings = `
listen_addresses = '127.0.0.1'
max_connections = 300
shared_buffers = 32MB
fsync = off
full_page_writes = off
wal_init_zero = off
wal_recycle = off
min_wal_size = 16MB
max_wal_size = 256MB
wal_keep_size = 256MB
wal_level = replica
max_wal_senders = 10
max_replication_slots = 5
wal_retrieve_retry_interval = 100ms
hot_standby = on
log_min_messages = warning
log_line_prefix = '%m [%p] '
`

// begin starts a server whose data directory has just been made.
func (c *Cluster) begin() error {
	own := settings + fmt.Sprintf("port = %d\nunix_socket_directories = '%s'\n", c.port, c.home.dir)
	if err := c.append("postgresql.conf", own); err != nil {
		return err
	}
	return c.Start()
}

func (c *Cluster) append(name, text string) error {
	f, err := os.OpenFile(filepath.Join(c.data, name), os.O_APPEND|os.O_WRONLY, 0) //nolint:gosec // of our own directory
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("configuring the server: %w", err)
	}
	return nil
}

// Start starts a server that is down, and waits until it answers.
func (c *Cluster) Start() error {
	if err := c.Launch(); err != nil {
		return err
	}
	return c.Wait()
}

// Launch starts a server that is down.
func (c *Cluster) Launch() error {
	if c.cmd != nil {
		return errors.New("the server is running already")
	}
	cmd, err := c.home.command("postgres", "-D", c.data)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(c.data+".log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the server's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	exited := make(chan struct{})
	go func() { // ends with the server
		_ = cmd.Wait()
		close(exited)
	}()
	c.cmd, c.exited = cmd, exited
	return nil
}

// Wait waits until the server answers.
func (c *Cluster) Wait() error {
	return await("PostgreSQL to answer", func() error {
		select {
		case <-c.exited:
			return &endedError{c.logTail()}
		default:
		}
		_, err := c.SQL("select 1")
		return err
	})
}

// Stop stops the server and returns when it is down.
func (c *Cluster) Stop(how Mode) error {
	if c.cmd == nil {
		return nil
	}
	signal := syscall.SIGINT
	if how == Immediate {
		signal = syscall.SIGQUIT
	}
	c.Resume()
	err := c.cmd.Process.Signal(signal)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping the server: %w", err)
	}
	<-c.exited
	c.cmd = nil
	return nil
}

// Restart stops the server and starts it again.
func (c *Cluster) Restart(how Mode) error {
	if err := c.Stop(how); err != nil {
		return err
	}
	return c.Start()
}

// Close ends the server and removes its files.
func (c *Cluster) Close() {
	_ = c.Stop(Immediate)
	_ = os.RemoveAll(c.data)
	_ = os.Remove(c.data + ".log")
}

// pause is a shell that lets processes stand still until its input ends: also
// when this process is killed.
type pause struct {
	cmd *exec.Cmd
	end io.Closer
}

// Pause lets the server and all that it does stand still: its connections stay
// open, and nothing is answered.
func (c *Cluster) Pause() error {
	if c.cmd == nil || c.pause != nil {
		return errors.New("the server does not run")
	}
	// The server first: after that it starts no others.
	pid := c.cmd.Process.Pid
	if err := stop(c.cmd.Process); err != nil {
		return fmt.Errorf("pausing the server: %w", err)
	}
	pids := []string{strconv.Itoa(pid)}
	for _, p := range childrenOf(pid) {
		pids = append(pids, strconv.Itoa(p))
	}
	const script = `kill -STOP "$@" 2>/dev/null; echo; cat; kill -CONT "$@" 2>/dev/null; :`
	cmd := exec.CommandContext(context.Background(), "/bin/sh", append([]string{"-c", script, "sh"}, pids...)...) //nolint:gosec // process IDs
	cmd.SysProcAttr = ownSession()
	end, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("pausing the server: %w", err)
	}
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("pausing the server: %w", err)
	}
	c.pause = &pause{cmd, end}
	if _, err := said.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("pausing the server: %w", err)
	}
	return nil
}

// Resume lets a server go on that stands still.
func (c *Cluster) Resume() {
	if c.pause == nil {
		return
	}
	_ = c.pause.end.Close()
	_ = c.pause.cmd.Wait()
	c.pause = nil
}

// SQL runs statements as the server's superuser, and returns what they select,
// without headings, fields parted by a bar.
func (c *Cluster) SQL(statements ...string) (string, error) {
	args := []string{"-XAtq", "-v", "ON_ERROR_STOP=1", "-h", c.home.dir, "-p", strconv.Itoa(c.port), "-U", "postgres"}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	return c.home.run("psql", append(args, "postgres")...)
}

// Set changes a setting, and returns when it is in force: for new sessions, for
// all writes, and soon for the sessions there are.
func (c *Cluster) Set(name, value string) error {
	if _, err := c.SQL("alter system set "+name+" = '"+value+"'", "select pg_reload_conf()"); err != nil {
		return err
	}
	err := await("the setting "+name, func() error {
		got, err := c.SQL("select setting from pg_settings where name = '" + name + "'")
		if err == nil && got != value {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
	if err != nil {
		return err
	}
	// Whether commits wait for a standby is made known to all by the process that
	// makes checkpoints, which has been told of the new settings before this.
	_, err = c.SQL("checkpoint")
	return err
}

// Database makes an empty database that the role lanyard owns, and returns its
// DSN. It is dropped at the end of the test.
func (c *Cluster) Database(t T) string {
	t.Helper()
	name, err := c.CreateDatabase()
	check(t, err)
	t.Cleanup(func() {
		if c.cmd != nil && c.pause == nil {
			_, _ = c.SQL("drop database if exists " + name + " with (force)")
		}
	})
	return c.DSN(name)
}

// CreateDatabase makes an empty database that the role lanyard owns.
func (c *Cluster) CreateDatabase() (name string, err error) {
	name = "db" + strings.ToLower(rand.Text()[:12])
	_, err = c.SQL("create database " + name + " owner lanyard")
	return name, err
}

// Addr returns where the server listens.
func (c *Cluster) Addr() string { return "127.0.0.1:" + strconv.Itoa(c.port) }

// DSN returns how the role lanyard connects to a database. It has a password.
func (c *Cluster) DSN(database string) string { return c.home.dsn(c.Addr(), database) }

func (h *home) dsn(hosts, database string) string {
	return "postgres://lanyard:" + h.password + "@" + hosts + "/" + database + "?sslmode=disable"
}

// logTail returns the end of the server's log.
func (c *Cluster) logTail() string {
	log, _ := os.ReadFile(c.data + ".log")
	return string(log[max(0, len(log)-4000):])
}

// Dir returns where the server keeps everything.
func (c *Cluster) Dir() string { return c.data }
