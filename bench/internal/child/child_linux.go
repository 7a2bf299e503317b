package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a program may take to end after SIGTERM.
const stopGrace = 20 * time.Second

// tick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on every
// machine that Go runs on.
const tick = 10 * time.Millisecond

// Child is a program that runs. Its own children count as part of it.
type Child struct {
	Name string
	// Log is the file that has what it printed.
	Log  string
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended
}

// Start starts a program whose output goes to dir/name.log. The program is
// killed when this one dies. Of cmd's own SysProcAttr the rest stays.
func Start(dir, name string, cmd *exec.Cmd) (*Child, error) {
	c := &Child{Name: name, Log: filepath.Join(dir, name+".log"), cmd: cmd, done: make(chan struct{})}
	log, err := os.Create(c.Log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// Stop ends it and waits until it has ended.
func (c *Child) Stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
		return nil
	case <-time.After(stopGrace):
		_ = c.cmd.Process.Kill()
		<-c.done
		return fmt.Errorf("%s did not end in %v and was killed", c.Name, stopGrace)
	}
}

// WaitFor returns once something listens at addr, or why nothing does.
func (c *Child) WaitFor(ctx context.Context, addr string) error {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-c.done:
			text, _ := os.ReadFile(c.Log)
			return fmt.Errorf("%s has ended: %s", c.Name, lastLines(text))
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen at %s: %w", c.Name, addr, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func lastLines(text []byte) string {
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return string(text)
}

// CPU returns the processor time that it and its children have used, also those
// that have ended.
func (c *Child) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range family(c.cmd.Process.Pid) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil && pid != c.cmd.Process.Pid {
			continue // it has just ended
		}
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(stat), ") ") // the name may hold anything
		fields := strings.Fields(rest)
		if !ok || len(fields) < 15 {
			return 0, errors.New("/proc/PID/stat is not as it should be")
		}
		for _, field := range fields[11:15] { // utime, stime, and those of children that were waited for
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n) * tick
		}
	}
	return sum, nil
}

// Memory is what programs have in memory, in bytes: all of it, and the part
// that no file stands behind.
type Memory struct{ RSS, Anon int64 }

// Memory returns what it and its children have in memory.
func (c *Child) Memory() (Memory, error) {
	var m Memory
	for _, pid := range family(c.cmd.Process.Pid) {
		f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return m, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ":")
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			switch name {
			case "VmRSS":
				m.RSS += kb << 10
			case "RssAnon":
				m.Anon += kb << 10
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return m, err
		}
	}
	return m, nil
}

// family returns a process and its children.
func family(pid int) []int {
	pids := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(field); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// FreeAddr returns an address of loopback that nobody listens at.
func FreeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
