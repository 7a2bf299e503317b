package provider_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const okBody = `{"access_token":"` + newAccess + `","token_type":"Bearer","expires_in":3600}`

func TestExchangeOnTheWire(t *testing.T) {
	base := url.Values{
		"grant_type": {"authorization_code"}, "code": {theCode}, "code_verifier": {theVerifier},
		"redirect_uri": {"https://lanyard.example/callback/acme"},
	}
	with := func(more url.Values) url.Values {
		out := url.Values{}
		for _, vs := range []url.Values{base, more} {
			maps.Copy(out, vs)
		}
		return out
	}
	tests := []struct {
		auth, user, password string
		form                 url.Values
	}{
		{"", url.QueryEscape(clientID), url.QueryEscape(clientSecret), base},
		{provider.AuthBasic, url.QueryEscape(clientID), url.QueryEscape(clientSecret), base},
		{provider.AuthBasicID, url.QueryEscape(clientID), url.QueryEscape(clientSecret), with(url.Values{"client_id": {clientID}})},
		{provider.AuthBasicRaw, clientID, clientSecret, base},
		{provider.AuthPost, "", "", with(url.Values{"client_id": {clientID}, "client_secret": {clientSecret}})},
		{provider.AuthNone, "", "", with(url.Values{"client_id": {clientID}})},
	}
	for _, tt := range tests {
		t.Run("client_auth "+tt.auth, func(t *testing.T) {
			l := newLedger(t, answering(200, "application/json", okBody))
			e := entryAt(l.URL)
			e.ClientAuth = tt.auth
			before := time.Now()
			a, err := exchange(t.Context(), newProvider(t, e))
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != 200 || a.Body.Reveal() != okBody || a.ContentType != "application/json" ||
				a.SentAt.Before(before) || a.ReceivedAt.Before(a.SentAt) || a.SentAt.Location() != time.UTC {
				t.Errorf("Exchange() = %+v", a)
			}
			got := l.all()
			if len(got) != 1 {
				t.Fatalf("%d requests; want 1", len(got))
			}
			r := got[0]
			form, err := url.ParseQuery(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.form, form); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
			if r.Method != http.MethodPost || r.Path != "/token" || r.User != tt.user || r.Password != tt.password {
				t.Errorf("request = %s %s, user %q, password %q", r.Method, r.Path, r.User, r.Password)
			}
			want := map[string]string{
				"Accept": "application/json", "User-Agent": "lanyard", "Accept-Encoding": "",
				"Content-Type": "application/x-www-form-urlencoded", "Cookie": "",
			}
			for name, value := range want {
				if r.Header.Get(name) != value {
					t.Errorf("header %s = %q; want %q", name, r.Header.Get(name), value)
				}
			}
		})
	}
}

func TestRefreshOnTheWire(t *testing.T) {
	for _, tt := range []struct {
		sendScope bool
		separator string
		want      url.Values
	}{
		{want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {oldRefresh}}},
		{
			sendScope: true, separator: ",",
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {oldRefresh}, "scope": {"read,write"}},
		},
	} {
		l := newLedger(t, answering(200, "application/json", okBody))
		e := entryAt(l.URL)
		e.Refresh.SendScope, e.Authorize.ScopeSeparator = tt.sendScope, tt.separator
		if _, err := newProvider(t, e).Refresh(t.Context(), oldToken()); err != nil {
			t.Fatal(err)
		}
		form, _ := url.ParseQuery(l.all()[0].Body)
		if diff := cmp.Diff(tt.want, form); diff != "" {
			t.Errorf("form (-want +got):\n%s", diff)
		}
	}
}

func TestRefreshWithoutRefreshToken(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", okBody))
	_, err := newProvider(t, entryAt(l.URL)).Refresh(t.Context(), tokenstore.Token{AccessToken: secret.New(oldAccess)})
	if !errors.Is(err, tokenstore.ErrNotSent) || len(l.all()) != 0 {
		t.Errorf("Refresh() = %v after %d requests; want ErrNotSent after none", err, len(l.all()))
	}
}

func TestPKCEOff(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", okBody))
	e := entryAt(l.URL)
	e.Authorize.PKCEOff = "it answers 400 to code_verifier"
	if _, err := exchange(t.Context(), newProvider(t, e)); err != nil {
		t.Fatal(err)
	}
	if body := l.all()[0].Body; strings.Contains(body, "code_verifier") {
		t.Error("a code_verifier was sent")
	}
}

// Every HTTP answer that arrives whole is an Answer, whatever it says.
func TestEveryStatusIsAnAnswer(t *testing.T) {
	for _, status := range []int{200, 204, 302, 400, 401, 403, 429, 500, 503} {
		l := newLedger(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		})
		a, err := newProvider(t, entryAt(l.URL)).Refresh(t.Context(), oldToken())
		if err != nil || a.Status != status || a.RetryAfter != "7" {
			t.Errorf("Refresh() with status %d = %+v, %v", status, a, err)
		}
		if n := len(l.all()); n != 1 {
			t.Errorf("status %d: %d requests; want 1", status, n)
		}
	}
}

// Whatever the endpoint does, it sees one POST,
// and what can't be read whole is unknown.
func TestOnePOSTWhateverHappens(t *testing.T) {
	hijack := func(w http.ResponseWriter, text string, reset bool) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, text)
		if reset {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	}
	faults := map[string]http.HandlerFunc{
		"closes":   func(w http.ResponseWriter, _ *http.Request) { hijack(w, "", false) },
		"resets":   func(w http.ResponseWriter, _ *http.Request) { hijack(w, "", true) },
		"not HTTP": func(w http.ResponseWriter, _ *http.Request) { hijack(w, "canary garbage\r\n\r\n", false) },
		"bad header": func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 200 OK\r\ncanary\x00: x\r\n\r\n", false)
		},
		"truncated": func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", false)
		},
		"resets later": func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", true)
		},
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"access_token":"`+strings.Repeat("a", 1<<20)+`"}`)
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		},
		"stalls": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"stalls in the body": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			// The first request leaves a connection behind: the faults must
			// not be retried on a reused one either.
			var calls int
			l := newLedger(t, func(w http.ResponseWriter, r *http.Request) {
				if calls++; calls == 1 {
					answering(200, "application/json", okBody)(w, r)
					return
				}
				fault(w, r)
			})
			p := newProvider(t, entryAt(l.URL))
			if _, err := exchange(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			limit := time.Minute // for the others: longer than they take
			if strings.HasPrefix(name, "stalls") {
				limit = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			_, err := p.Refresh(ctx, oldToken())
			if !errors.Is(err, tokenstore.ErrOutcomeUnknown) || errors.Is(err, tokenstore.ErrNotSent) {
				t.Errorf("Refresh() = %v; want ErrOutcomeUnknown", err)
			}
			noSecrets(t, err)
			if limited := name == "too long" || name == "endless"; limited != strings.Contains(fmt.Sprint(err), "1 MiB") {
				t.Errorf("Refresh() = %v; the limit of 1 MiB stops just what is longer", err)
			}
			if n := len(l.all()); n != 2 {
				t.Errorf("%d requests; want 2, the first and one POST", n)
			}
		})
	}
}

// An endpoint that drips is left after RequestLimit.
func TestRequestLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	t.Parallel()
	for what, ask := range asks() {
		for part, headers := range map[string]bool{"headers": true, "body": false} {
			t.Run("A135 "+part+" to "+what, func(t *testing.T) {
				t.Parallel()
				l := newLedger(t, dripping(headers))
				p := newProvider(t, entryAt(l.URL))
				begun := time.Now()
				_, err := ask(context.WithoutCancel(t.Context()), p)
				if took := time.Since(begun); took < provider.RequestLimit || took > provider.RequestLimit+5*time.Second {
					t.Errorf("it took %v; want %v", took, provider.RequestLimit)
				}
				if !errors.Is(err, tokenstore.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v; want ErrOutcomeUnknown and DeadlineExceeded", err)
				}
				if n := len(l.all()); n != 1 {
					t.Errorf("%d requests; want 1", n)
				}
			})
		}
	}
}

// dripping answers with a byte each 50 ms until the client leaves: of a header
// or of the body.
func dripping(headers bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		text := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
		if headers {
			text += "X-Long: "
		} else {
			text += "\r\n{"
		}
		_, err = io.WriteString(conn, text)
		for tick := time.NewTicker(50 * time.Millisecond); err == nil; <-tick.C {
			_, err = io.WriteString(conn, " ")
		}
	}
}

func TestNotSent(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + closed.Addr().String()
	_ = closed.Close()

	var reached bool
	selfSigned := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	selfSigned.Config.ErrorLog = log.New(io.Discard, "", 0)
	selfSigned.StartTLS()
	defer selfSigned.Close()
	plain := newLedger(t, func(http.ResponseWriter, *http.Request) { reached = true })

	tests := map[string]struct {
		url     string
		private bool
	}{
		"nobody listens":    {nobody, true},
		"unknown authority": {selfSigned.URL, true},
		"no TLS there":      {"https://" + plain.Listener.Addr().String(), true},
		"no such host":      {"https://nowhere.invalid", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := entryAt(tt.url)
			e.AllowPrivate = tt.private
			_, err := exchange(t.Context(), newProvider(t, e))
			if !errors.Is(err, tokenstore.ErrNotSent) || errors.Is(err, tokenstore.ErrOutcomeUnknown) {
				t.Errorf("Exchange() = %v; want ErrNotSent", err)
			}
			noSecrets(t, err)
		})
	}
	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := newProvider(t, entryAt(plain.URL)).Refresh(ctx, oldToken())
		if !errors.Is(err, tokenstore.ErrNotSent) || !errors.Is(err, context.Canceled) {
			t.Errorf("Refresh() = %v; want ErrNotSent and Canceled", err)
		}
	})
	if reached {
		t.Error("a request arrived")
	}
}

// A caller that leaves while its request is under way can't tell what becomes
// of the token.
func TestCancelledUnderWay(t *testing.T) {
	arrived := make(chan struct{})
	l := newLedger(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := newProvider(t, entryAt(l.URL)).Refresh(ctx, oldToken())
	if !errors.Is(err, tokenstore.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("Refresh() = %v; want ErrOutcomeUnknown and Canceled", err)
	}
}
