package e2e_test

import (
	"bytes"
	"errors"
	"html"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// What the story of readme_test.go is told with: a shell, programs that run
// beside it, and a browser.

// sh runs a command in a shell where those before it have run, from root.
func (s *story) sh(command string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "sh", "-euc", s.shell+s.here(command))
	cmd.Dir, cmd.Env = root, append(slices.Clone(s.env), "HOME="+s.home)
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s\n%v: %s", command, err, out)
	}
	return string(out)
}

// child is a program that runs beside the story.
type child struct {
	*exec.Cmd
	out    safeBuffer
	exited chan error
}

// run starts a program, which is ended with the test at the latest.
func (s *story) run(cmd *exec.Cmd) *child {
	s.t.Helper()
	c := &child{Cmd: cmd, exited: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = &c.out, &c.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { c.exited <- cmd.Wait() }()
	s.t.Cleanup(func() { s.end(c) })
	return c
}

// end ends a program as Ctrl-C does, with what it has started.
func (s *story) end(c *child) {
	if c.exited == nil {
		return
	}
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGINT)
	select {
	case err := <-c.exited:
		if err != nil {
			s.t.Errorf("%s ended with %v\n%s", c, err, tail([]byte(c.out.String())))
		}
	case <-time.After(patience):
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		s.t.Errorf("%s did not end", c)
	}
	c.exited = nil
}

// answers waits until an address answers 200, while c runs.
func (s *story) answers(address string, within time.Duration, c *child) {
	s.t.Helper()
	s.eventually(address+" answers", within, func() error {
		select {
		case err := <-c.exited:
			c.exited = nil
			s.t.Fatalf("%s ended: %v\n%s", c, err, tail([]byte(c.out.String())))
		default:
		}
		res, err := s.browser.Get(address)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
}

func (s *story) eventually(what string, within time.Duration, check func() error) {
	s.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) { // between two looks
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: still not so: %v", what, err)
		}
	}
}

var forward = regexp.MustCompile(`class="btn btn-p" href="([^"]+)"`)

// allow opens a connect link, continues from the review page if there is one,
// allows, and returns the address to which the provider sends the browser.
func (s *story) allow(link string) string {
	s.t.Helper()
	res, page := s.get(link)
	to := res.Header.Get("Location")
	if res.StatusCode == http.StatusOK {
		m := forward.FindStringSubmatch(page)
		if m == nil {
			s.t.Fatalf("no link to the provider on the page: %s", page)
		}
		to = html.UnescapeString(m[1])
	}
	callback, err := fakeprovider.Approve(s.t.Context(), s.browser, to)
	if err != nil {
		s.t.Fatal(err)
	}
	return callback
}

func (s *story) get(address string) (*http.Response, string) {
	s.t.Helper()
	res, err := s.browser.Get(address)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res, string(b)
}

// safeBuffer is a bytes.Buffer that is read while a program writes.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was written so far.
func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
