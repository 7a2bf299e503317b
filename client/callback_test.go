package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/client"
)

func TestCallback(t *testing.T) {
	const good = "connection_id=conn_A&completion_code=code&state=s1"
	tests := []struct {
		name, query string
		state, user string
		want        error  // matched by errors.Is
		code        string // of a *CallbackError or *APIError
		bad         bool   // any error
	}{
		{name: "connected", query: good, state: "s1", user: "u1"},
		{name: "completed elsewhere: completion off", query: "connection_id=conn_A&state=s1", state: "s1", user: "u1"},
		{name: "completion off, another's connection", query: "connection_id=conn_A&state=s1", state: "s1", user: "u2", bad: true},
		{name: "another browser's state", query: good, state: "s2", user: "u1", want: client.ErrState},
		{name: "a state that begins alike", query: good, state: "s", user: "u1", want: client.ErrState},
		{name: "no state in the session", query: "connection_id=conn_A&completion_code=code&state=", user: "u1", want: client.ErrState},
		{name: "no state in the URL", query: "connection_id=conn_A&completion_code=code", state: "s1", user: "u1", want: client.ErrState},
		{name: "state twice", query: good + "&state=s1", state: "s1", user: "u1", bad: true},
		{name: "two connections", query: good + "&connection_id=conn_B", state: "s1", user: "u1", bad: true},
		{name: "nobody is signed in", query: good, state: "s1", bad: true},
		{name: "declined", query: "error=user_denied&error_description=No&state=s1", state: "s1", user: "u1", code: "user_denied"},
		{name: "declined, another's state", query: "error=user_denied&state=s2", state: "s1", user: "u1", want: client.ErrState},
		{name: "nothing", query: "state=s1", state: "s1", user: "u1", bad: true},
		{name: "refused", query: "connection_id=conn_A&completion_code=wrong&state=s1", state: "s1", user: "u1", code: "completion_invalid"},
		{name: "an ID that is a path", query: "connection_id=..%2Fevents&completion_code=code&state=s1", state: "s1", user: "u1", code: "connection_not_found"},
		{name: "the redirect URL's own query", query: "x=1&x=2&" + good, state: "s1", user: "u1"},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		switch {
		case r.Method == http.MethodGet, r.URL.Path == "/v1/connections/conn_A/complete" && string(b) == `{"completion_code":"code","user_id":"u1"}`:
			_, _ = io.WriteString(w, `{"id": "conn_A", "user_id": "u1", "status": "ACTIVE"}`)
		default:
			problem(409, "completion_invalid", "")(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, client.Config{APIURL: srv.URL, APIKey: testKey})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			form := httptest.NewRequest(http.MethodPost, "/connected?state=other&connection_id=conn_Z", strings.NewReader(tt.query))
			form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			for _, r := range []*http.Request{httptest.NewRequest(http.MethodGet, "/connected?"+tt.query, nil), form} {
				got, err := c.Callback(r, tt.state, tt.user)
				var ended *client.CallbackError
				var refused *client.APIError
				code := ""
				if errors.As(err, &ended) {
					code = ended.Code
				}
				if errors.As(err, &refused) {
					code = refused.Code
				}
				ok := tt.want == nil && tt.code == "" && !tt.bad
				switch {
				case ok && (err != nil || got.Status != client.Active):
					t.Errorf("%s: %v", r.Method, err)
				case !ok && (err == nil || got != nil), !errors.Is(err, tt.want) && tt.want != nil, code != tt.code:
					t.Errorf("%s: %v, %v; want %v %s", r.Method, got, err, tt.want, tt.code)
				}
			}
		})
	}
}

func TestCallbackBounds(t *testing.T) {
	c := newClient(t, client.Config{})
	r := httptest.NewRequest(http.MethodPost, "/connected", strings.NewReader(url.Values{"state": {strings.Repeat("x", 1<<20)}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if _, err := c.Callback(r, "s", "u"); err == nil || errors.Is(err, client.ErrState) {
		t.Errorf("a form of a megabyte: %v", err)
	}
}
