package pgtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Pair is a primary and its standby. Its methods are for one goroutine at a time.
type Pair struct {
	Primary, Standby *Cluster
	mode             Replication
}

// Replication is what a commit waits for.
type Replication string

// The ways to replicate.
const (
	// Synchronous commits are at the standby, and seen there, before their
	// client is answered.
	Synchronous Replication = "remote_apply"
	// Asynchronous commits are answered before the standby has them: those that
	// it has not got when the primary dies are lost.
	Asynchronous Replication = "local"
)

// NewPair returns a primary and a standby that has all of it, until the test's end.
func NewPair(t T, mode Replication) *Pair {
	t.Helper()
	p, err := StartPair(mode)
	check(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of the primary ends so:\n%s\nthat of the standby:\n%s", p.Primary.logTail(), p.Standby.logTail())
		}
		p.Close()
	})
	return p
}

// StartPair starts a primary and a standby that has all of it.
func StartPair(mode Replication) (*Pair, error) {
	primary, err := Start()
	if err != nil {
		return nil, err
	}
	p := &Pair{Primary: primary, mode: mode}
	if p.Standby, err = primary.newStandby(0); err == nil {
		err = p.replicate()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close ends both and removes their files.
func (p *Pair) Close() {
	p.Primary.Close()
	if p.Standby != nil {
		p.Standby.Close()
	}
}

// newStandby starts a standby of c, at a port, or at any that is free.
func (c *Cluster) newStandby(port int) (*Cluster, error) {
	s := &Cluster{home: c.home, data: filepath.Join(c.home.dir, "data-"+strings.ToLower(rand.Text()[:8])), port: port}
	var err error
	if port == 0 {
		if s.port, err = freePort(); err != nil {
			return nil, err
		}
	}
	_, err = c.home.run("pg_basebackup", "-D", s.data, "-h", c.home.dir, "-p", fmt.Sprint(c.port), "-U", "postgres",
		"-X", "stream", "-c", "fast", "-R", "--no-sync", "--no-manifest")
	if err != nil {
		return nil, err
	}
	own := fmt.Sprintf("port = %d\nsynchronous_standby_names = ''\n", s.port)
	if err := s.append("postgresql.conf", own); err != nil {
		return nil, err
	}
	return s, s.Start()
}

// replicate waits until the standby receives what the primary writes, and has
// commits wait for it from then on, if they are to.
func (p *Pair) replicate() error {
	err := await("the standby to follow", func() error {
		got, err := p.Primary.SQL("select count(*) from pg_stat_replication where state = 'streaming'")
		if err == nil && got != "1" {
			err = fmt.Errorf("%s standbys", got)
		}
		return err
	})
	if err != nil || p.mode != Synchronous {
		return err
	}
	if err := p.Primary.Set("synchronous_commit", "remote_apply"); err != nil {
		return err
	}
	if err := p.Primary.Set("synchronous_standby_names", "*"); err != nil {
		return err
	}
	return await("commits to wait for the standby", func() error {
		got, err := p.Primary.SQL("select sync_state || current_setting('synchronous_commit') from pg_stat_replication")
		if err == nil && got != "syncremote_apply" {
			err = errors.New(got)
		}
		return err
	})
}

// Failover has the primary crash, if it still runs, and the standby take its
// place. Commits then wait for no standby, until there is one again.
func (p *Pair) Failover() error {
	if err := p.Primary.Stop(Immediate); err != nil {
		return err
	}
	return p.Promote()
}

// Promote makes the standby a primary, whatever its primary is doing. One that was
// stopped is started first.
func (p *Pair) Promote() error {
	next := p.Standby
	// With the base backup it has taken over that commits wait for a standby.
	if err := next.append("postgresql.auto.conf", "synchronous_standby_names = ''\n"); err != nil {
		return err
	}
	if next.cmd == nil {
		if err := next.Start(); err != nil {
			return err
		}
	}
	if _, err := next.SQL("select pg_reload_conf()", "select pg_promote(true)"); err != nil {
		return err
	}
	p.Primary, p.Standby = next, p.Primary
	return nil
}

// Rebuild makes the former primary, which is down, a standby with all that the new
// one has.
func (p *Pair) Rebuild() error {
	old := p.Standby
	port := old.port
	old.Close()
	standby, err := p.Primary.newStandby(port)
	if err != nil {
		return err
	}
	p.Standby = standby
	return p.replicate()
}

// Detach stops the standby: what is committed from now on is lost with the
// primary. With Synchronous nothing is committed any more.
func (p *Pair) Detach() error { return p.Standby.Stop(Fast) }

// DSN returns how the role lanyard connects to a database at whichever of the two
// is the primary.
func (p *Pair) DSN(database string) string {
	return p.Primary.home.dsn(p.Primary.Addr()+","+p.Standby.Addr(), database) + "&target_session_attrs=read-write"
}

// Database makes an empty database that the role lanyard owns, and returns its
// DSN with both hosts.
func (p *Pair) Database(t T) string {
	t.Helper()
	name, err := p.Primary.CreateDatabase()
	check(t, err)
	return p.DSN(name)
}

// CatchUp waits until the standby has all that was committed before.
func (p *Pair) CatchUp() error {
	at, err := p.Primary.SQL("select pg_current_wal_lsn()")
	if err != nil {
		return err
	}
	return await("the standby to catch up", func() error {
		got, err := p.Standby.SQL("select pg_last_wal_replay_lsn() >= '" + at + "'")
		if err == nil && got != "t" {
			err = errors.New("it is behind")
		}
		return err
	})
}
