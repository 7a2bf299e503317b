package pgtest_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
)

// dial returns a connection by a network to a server that says everything back,
// and where that keeps what it has heard.
func dial(t *testing.T) (*pgtest.Network, func() net.Conn, <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	heard := make(chan string, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 1000)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					heard <- string(buf[:n])
					_, _ = conn.Write(buf[:n])
				}
			}()
		}
	}()
	network, dsn := pgtest.NewNetwork(t, "postgres://lanyard@"+l.Addr().String()+"/db")
	addr := strings.TrimSuffix(strings.TrimPrefix(dsn, "postgres://lanyard@"), "/db")
	return network, func() net.Conn {
		conn, err := net.Dial("tcp", addr)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		return conn
	}, heard
}

// say says something and returns the answer.
func say(conn net.Conn, text string) (string, error) {
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	buf := make([]byte, len(text))
	_, err := io.ReadFull(conn, buf)
	return string(buf), err
}

func TestNetwork(t *testing.T) {
	network, dial, heard := dial(t)
	conn := dial()
	if got, err := say(conn, "one"); got != "one" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	network.Cut()
	if _, err := say(conn, "two"); err == nil {
		t.Error("a connection that was cut goes on")
	}
	conn = dial()
	if got, err := say(conn, "three"); got != "three" || err != nil {
		t.Errorf("after Cut: %q, %v", got, err)
	}
	network.Close()
	if _, err := say(dial(), "four"); err == nil {
		t.Error("a closed network lets connections through")
	}
	network.Open()
	conn = dial()
	network.Delay(50 * time.Millisecond)
	began := time.Now()
	if got, err := say(conn, "five"); got != "five" || err != nil || time.Since(began) < 50*time.Millisecond {
		t.Errorf("with a delay: %q, %v after %v", got, err, time.Since(began))
	}
	network.Delay(0)
	cut := network.CutAnswer("COMMIT")
	if got, err := say(conn, "six"); got != "six" || err != nil {
		t.Errorf("what was not to be cut: %q, %v", got, err)
	}
	if _, err := say(conn, "begin; commit"); err == nil {
		t.Error("an answer came that was to be cut")
	}
	<-cut
	for want := range strings.SplitSeq("one three five six", " ") {
		if got := <-heard; got != want {
			t.Errorf("the server heard %q, want %q", got, want)
		}
	}
	if got := <-heard; got != "begin; commit" {
		t.Errorf("the server did not get the message whose answer was cut, but %q", got)
	}
}
