package pgtest_test

import (
	"fmt"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want checks what a statement selects.
func want(t *testing.T, c *pgtest.Cluster, statement, result string) {
	t.Helper()
	got, err := c.SQL(statement)
	if err != nil || got != result {
		t.Errorf("%s = %q, %v; want %q", statement, got, err, result)
	}
}

func TestCluster(t *testing.T) {
	c := pgtest.New(t)
	_, err := c.SQL("create table t (n int)", "insert into t values (1)")
	must(t, err)
	must(t, c.Restart(pgtest.Immediate))
	want(t, c, "select n from t", "1")
	must(t, c.Pause())
	c.Resume()
	must(t, c.Restart(pgtest.Fast))
	want(t, c, "select n from t", "1")
	must(t, c.Pause())
	must(t, c.Stop(pgtest.Immediate))
}

func TestPair(t *testing.T) {
	p := pgtest.NewPair(t, pgtest.Synchronous)
	_, err := p.Primary.SQL("create table t (n int)")
	must(t, err)
	for n := range 3 {
		_, err := p.Primary.SQL(fmt.Sprintf("insert into t values (%d)", n))
		must(t, err)
		want(t, p.Standby, "select count(*) from t", fmt.Sprint(n+1))
		must(t, p.Failover())
		want(t, p.Primary, "select count(*) from t", fmt.Sprint(n+1))
		must(t, p.Rebuild())
	}
}

func TestAsynchronousPairLosesCommits(t *testing.T) {
	p := pgtest.NewPair(t, pgtest.Asynchronous)
	_, err := p.Primary.SQL("create table t (n int)", "insert into t values (1)")
	must(t, err)
	must(t, p.CatchUp())
	must(t, p.Detach())
	_, err = p.Primary.SQL("insert into t values (2)")
	must(t, err)
	must(t, p.Failover())
	if got, err := p.Primary.SQL("select count(*) from t"); err != nil || got == "2" {
		t.Errorf("count = %q, %v; want the second to be lost", got, err)
	}
}
