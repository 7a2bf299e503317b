package fakeprovider

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Fault is one thing that goes wrong with a request. It goes wrong once,
// unless Times or Always says otherwise.
type Fault struct {
	name      string
	grantType string // only for this grant type; empty: any
	times     int
	always    bool

	before  func(context.Context) // waits before the request is processed
	after   func(context.Context) // waits between processing and answer
	commit  bool                  // process the request although the answer is another
	drop    bool                  // close the connection without an answer
	cut     bool                  // close it in the middle of the answer
	reset   bool                  // close it with a reset (RST)
	refuse  *oauthError           // answer with this instead
	replace *answer               // answer with this instead
	edit    func(fields map[string]any)
	encode  func(fields map[string]any) answer
	scopes  []string // granted instead
	iss     *string  // in the authorization response instead of the issuer
	raw     func(conn io.Writer)
}

// answer is a whole response.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// Times makes the fault hit the next n requests.
func (f Fault) Times(n int) Fault { f.times = n; return f }

// Always makes the fault hit until Clear.
func (f Fault) Always() Fault { f.always = true; return f }

// OnRefresh lets the fault hit only requests with grant_type=refresh_token.
func (f Fault) OnRefresh() Fault { f.grantType = grantTypeRefresh; return f }

// OnCode lets the fault hit only requests with grant_type=authorization_code.
func (f Fault) OnCode() Fault { f.grantType = grantTypeCode; return f }

// AfterCommit lets the provider process the request first, and then fail: the
// tokens are issued, the caller does not get them.
func (f Fault) AfterCommit() Fault { f.commit = true; return f }

// Delay waits before the request is processed. A caller that hangs up ends
// the wait; the request is then processed all the same.
func Delay(d time.Duration) Fault {
	return Fault{name: "delay", before: func(ctx context.Context) { wait(ctx, d) }}
}

// Hold waits until release is closed before the request is processed, or the
// caller hangs up; the request is then processed all the same.
func Hold(release <-chan struct{}) Fault {
	return Fault{name: "hold", before: func(ctx context.Context) { waitFor(ctx, release) }}
}

// HoldAnswer processes the request, and waits with the answer until release
// is closed or the caller hangs up.
func HoldAnswer(release <-chan struct{}) Fault {
	return Fault{name: "hold answer", after: func(ctx context.Context) { waitFor(ctx, release) }}
}

// Blackholed takes the request and does nothing with it, as a network does
// that loses all that comes after, until the caller hangs up. HoldAnswer(nil)
// does so after the request was processed.
func Blackholed() Fault {
	f := Hold(nil)
	f.name, f.drop = "blackholed", true
	return f
}

func waitFor(ctx context.Context, release <-chan struct{}) {
	select {
	case <-release:
	case <-ctx.Done():
	}
}

// Status answers with a status and an empty body.
func Status(status int) Fault { return Answer(status, "", "") }

// RetryAfter answers with a status and the header Retry-After.
func RetryAfter(status int, after string) Fault {
	f := Answer(status, "", "")
	f.replace.header.Set("Retry-After", after)
	return f
}

// HTML answers with a web page, as firewalls do.
func HTML(status int) Fault {
	f := Answer(status, "text/html; charset=utf-8", "<!doctype html><title>Checking your browser</title><h1>Checking your browser</h1>")
	f.name = fmt.Sprintf("html %d", status)
	return f
}

// Answer answers with exactly this.
func Answer(status int, contentType, body string) Fault {
	h := http.Header{}
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	return Fault{name: fmt.Sprintf("status %d", status), replace: &answer{status, h, []byte(body)}}
}

// Dropped closes the connection before the request is processed.
func Dropped() Fault { return Fault{name: "dropped", drop: true} }

// LostAnswer processes the request, and then closes the connection without an
// answer.
func LostAnswer() Fault { return Fault{name: "lost answer", drop: true, commit: true} }

// Truncated processes the request, and closes the connection in the middle of
// the answer.
func Truncated() Fault { return Fault{name: "truncated", cut: true, commit: true} }

// Reset processes the request, and resets the connection in the middle of the
// answer.
func Reset() Fault { return Fault{name: "reset", cut: true, reset: true, commit: true} }

// OAuthError answers with an error of RFC 6749 section 5.2; at the
// authorization endpoint with one of section 4.1.2.1, by redirect.
func OAuthError(status int, code string) Fault {
	return Fault{name: code, refuse: &oauthError{status, code, "as asked for by the test"}}
}

// InvalidGrant refuses a refresh token or code that would be good.
func InvalidGrant() Fault { return OAuthError(http.StatusBadRequest, "invalid_grant") }

// InvalidClient refuses the client.
func InvalidClient() Fault { return OAuthError(http.StatusUnauthorized, "invalid_client") }

// ExpiresIn puts v in the place of the answer's expires_in; nil leaves it out.
// json.RawMessage writes exactly what it says.
func ExpiresIn(v any) Fault {
	return Fault{name: "expires_in", edit: func(fields map[string]any) {
		if fields["expires_in"] = v; v == nil {
			delete(fields, "expires_in")
		}
	}}
}

// Field puts v in the place of one member of the answer; nil leaves it out.
func Field(name string, v any) Fault {
	return Fault{name: name, edit: func(fields map[string]any) {
		if fields[name] = v; v == nil {
			delete(fields, name)
		}
	}}
}

// NoRefreshToken leaves the refresh token out of the answer.
func NoRefreshToken() Fault { return Field("refresh_token", nil) }

// TokenWithSpace breaks the access token with a space.
func TokenWithSpace() Fault {
	return Fault{name: "token with a space", edit: func(fields map[string]any) {
		t := fmt.Sprint(fields["access_token"])
		fields["access_token"] = t[:len(t)/2] + " " + t[len(t)/2:]
	}}
}

// Nested puts the answer's members one level down.
func Nested(under string) Fault {
	return Fault{name: "nested", edit: func(fields map[string]any) {
		inner := maps.Clone(fields)
		clear(fields)
		fields[under] = inner
	}}
}

// HugeBody adds n bytes to the answer.
func HugeBody(n int) Fault { return Field("padding", strings.Repeat("x", n)) }

// FormEncoded sends the answer as application/x-www-form-urlencoded.
func FormEncoded() Fault {
	return Fault{name: "form encoded", encode: func(fields map[string]any) answer {
		v := url.Values{}
		for name, value := range fields {
			v.Set(name, fmt.Sprint(value))
		}
		return answer{http.StatusOK, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte(v.Encode())}
	}}
}

// ContentType sends the JSON answer under another content type.
func ContentType(contentType string) Fault {
	return Fault{name: "content type", encode: func(fields map[string]any) answer {
		a := jsonAnswer(http.StatusOK, fields)
		a.header.Set("Content-Type", contentType)
		return a
	}}
}

// ScopeCut grants these scopes from now on, whatever was consented to.
func ScopeCut(scopes ...string) Fault {
	return Fault{name: "scope cut", scopes: append([]string{}, scopes...)}
}

// Unauthorized makes the API refuse a token that would be good (RFC 6750
// section 3.1).
func Unauthorized() Fault {
	f := Answer(http.StatusUnauthorized, "application/json", `{"message":"Bad credentials"}`)
	f.replace.header.Set("WWW-Authenticate", `Bearer error="invalid_token", error_description="The access token has expired"`)
	return f
}

// InsufficientScope makes the API ask for a scope (RFC 6750 section 3.1).
func InsufficientScope(scope string) Fault {
	f := Answer(http.StatusForbidden, "application/json", `{"message":"Scope missing"}`)
	f.replace.header.Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+scope+`"`)
	return f
}

// Issuer puts iss in the place of the issuer in the authorization response
// (RFC 9207); empty leaves it out.
func Issuer(iss string) Fault { return Fault{name: "issuer", iss: &iss} }

func (f Fault) waitBefore(ctx context.Context) {
	if f.before != nil {
		f.before(ctx)
	}
}

func (f Fault) waitAfter(ctx context.Context) {
	if f.after != nil {
		f.after(ctx)
	}
}

// fails reports whether the fault answers in the place of the endpoint.
func (f Fault) fails() bool { return f.drop || f.cut || f.refuse != nil || f.replace != nil }

// answerFor returns what is sent for the given fields of a good answer.
func (f Fault) answerFor(fields map[string]any) answer {
	switch {
	case f.refuse != nil:
		return f.refuse.answer()
	case f.replace != nil:
		return *f.replace
	}
	if f.edit != nil {
		f.edit(fields)
	}
	if f.encode != nil {
		return f.encode(fields)
	}
	return jsonAnswer(http.StatusOK, fields)
}

// send writes the answer to the socket, unless the fault says otherwise. With
// drop and cut it does not return: http.ErrAbortHandler closes the connection.
func (f Fault) send(w http.ResponseWriter, a answer) {
	if f.raw != nil {
		f.takeOver(w)
		return
	}
	if f.drop {
		panic(http.ErrAbortHandler)
	}
	body := a.body
	if f.cut {
		body = body[:len(body)/2]
	}
	maps.Copy(w.Header(), a.header)
	w.Header().Set("Content-Length", fmt.Sprint(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
	_ = http.NewResponseController(w).Flush()
	if f.reset {
		reset(w)
	}
	if f.cut {
		panic(http.ErrAbortHandler)
	}
}

// reset closes the connection of w, with an error for the other side to read.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func (e *oauthError) answer() answer {
	a := jsonAnswer(e.status, map[string]any{"error": e.code, "error_description": e.description})
	if e.status == http.StatusUnauthorized {
		a.header.Set("WWW-Authenticate", `Basic realm="token endpoint"`)
	}
	return a
}

func jsonAnswer(status int, v any) answer {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return answer{status: http.StatusInternalServerError, header: http.Header{}, body: []byte(err.Error())}
	}
	return answer{status, http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}, b.Bytes()}
}

func writeJSON(w http.ResponseWriter, status int, v any) { Fault{}.send(w, jsonAnswer(status, v)) }
