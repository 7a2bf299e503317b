package dashboard_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/dashboard"
	"github.com/lanyard-proxy/lanyard/revoke"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestListShowsEachStatus(t *testing.T) {
	tests := []struct {
		name   string
		change func(*tokenstore.Connection)
		want   string
	}{
		{"active", nil, "Active"},
		{"disabled", func(c *tokenstore.Connection) { c.Disabled = true }, "Switched off"},
		{"expired", func(c *tokenstore.Connection) { c.Expire(tokenstore.ReasonInvalidGrant) }, "Reconnect needed"},
		{"revoked", func(c *tokenstore.Connection) { c.Revoke() }, "Disconnected"},
		{"failed", func(c *tokenstore.Connection) {
			c.Status, c.StatusReason, c.Token = tokenstore.StatusFailed, "user_denied", tokenstore.Token{}
		}, "Not connected"},
		{"waiting for the user", func(c *tokenstore.Connection) {
			c.Status, c.Token = tokenstore.StatusInitiated, tokenstore.Token{}
		}, "Waiting for the user"},
		{"waiting for the app", func(c *tokenstore.Connection) {
			c.Status, c.Token = tokenstore.StatusInitiated, tokenstore.Token{}
			c.Stage(tokenstore.Staged{Token: tokenstore.Token{AccessToken: secret.New(canary)}})
		}, "Waiting for the app"},
		{"integration gone", func(c *tokenstore.Connection) { c.Integration = "gone" }, "Not configured"},
		{"no refresh token", func(c *tokenstore.Connection) { c.LoseRefreshToken(tokenstore.ReasonInvalidGrant) }, "Active, not renewable"},
		{"retrying", func(c *tokenstore.Connection) { c.Intent = &tokenstore.Intent{Unknown: 1} }, "Retrying"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			c := d.connection(tt.change)
			d.want(d.get("/admin/"), http.StatusOK, ">"+tt.want+"</span>", "./connections/"+c.ID, "user_1")
			d.want(d.get("/admin/connections/"+c.ID), http.StatusOK, ">"+tt.want+"</span>", c.ID)
		})
	}
}

func TestListPagesAndFilters(t *testing.T) {
	d := newDesk(t)
	for range 60 {
		d.connection(nil)
	}
	other := d.connection(func(c *tokenstore.Connection) {
		c.UserID, c.Labels = "user_2", map[string]string{"team": "sales"}
		c.Expire(tokenstore.ReasonInvalidGrant)
	})

	first := d.get("/admin/")
	d.want(first, http.StatusOK, "50 shown", "Next page", "Reconnect needed <b>1</b>")
	next := regexpFind(t, first.body, `href="(\./\?cursor=[^"]+)">Next page`)
	second := d.get("/admin/" + strings.TrimPrefix(next, "./"))
	d.want(second, http.StatusOK, "11 shown", "First page", other.ID)

	for _, query := range []string{"?user=user_2", "?label=team%3Dsales", "?status=EXPIRED", "?status=EXPIRED&integration=fake&user=user_2"} {
		a := d.get("/admin/" + query)
		d.want(a, http.StatusOK, other.ID, "1 shown")
	}
	d.want(d.get("/admin/?label=team%3Dresearch"), http.StatusOK, "No connection fits")
	for _, query := range []string{"?status=NONE", "?cursor=x", "?label=team", "?user=" + strings.Repeat("u", 600)} {
		d.want(d.get("/admin/"+query), http.StatusBadRequest, "does not fit the list")
	}
	for search, want := range map[string]string{
		other.ID: "./connections/" + other.ID, "team=sales": "./?label=team%3Dsales&status=EXPIRED", "user_2": "./?status=EXPIRED&user=user_2", "dXNlcg==": "./?status=EXPIRED&user=dXNlcg%3D%3D",
	} {
		a := d.get("/admin/?status=EXPIRED&cursor=x&q=" + url.QueryEscape(search))
		if a.status != http.StatusSeeOther || a.location != want {
			t.Errorf("a search for %q leads to %q with HTTP %d; want %q", search, a.location, a.status, want)
		}
	}
}

func TestDetailTellsWhatThereIs(t *testing.T) {
	d := newDesk(t)
	c := d.connection(func(c *tokenstore.Connection) {
		c.Name, c.Labels, c.Params = "Work", map[string]string{"team": "sales"}, map[string]string{"shop": "acme"}
		c.Account = tokenstore.Account{ID: "acct-9", Name: "Ada Lovelace", Email: "ada@demo.test"}
		c.Metadata, c.RequestedScopes = `{"plan":"<b>pro</b>"}`, []string{"read", "write"}
		c.Happened(tokenstore.Event{Type: tokenstore.EventRefreshed, Actor: tokenstore.Actor{Kind: tokenstore.ActorLanyard}})
		c.Happened(tokenstore.Event{Type: tokenstore.EventRefreshFailed, Reason: "HTTP 503", Actor: tokenstore.Actor{Kind: tokenstore.ActorLanyard}})
	})
	d.want(d.get("/admin/connections/"+c.ID), http.StatusOK,
		"Work", "team=sales", "shop=acme", "acct-9", "Ada Lovelace", "ada@demo.test", "&lt;b&gt;pro&lt;/b&gt;", "api.fake.example",
		"granted 1 of 2", "Not granted", "See what you have", "1 of the last 2 refreshes worked", "Refresh failed", "HTTP 503",
		"by Lanyard itself", "in 59 min", "<dt>Generation</dt><dd>7</dd>", `<time datetime="`)
	d.want(d.get("/admin/connections/"+c.ID), http.StatusOK, "Told by the provider", "given=given")
	untold := d.connection(func(c *tokenstore.Connection) { c.Token.Metadata = nil })
	d.want(d.get("/admin/connections/"+untold.ID), http.StatusOK, "has not told where this account&#39;s API is")
	d.want(d.get("/admin/connections/conn_none"), http.StatusNotFound, "nothing here")
	d.want(d.get("/admin/connections/"+c.ID+"/x"), http.StatusNotFound)
	d.want(d.get("/admin/none"), http.StatusNotFound)
	if a := d.do(http.MethodPut, "/admin/", nil, nil); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" {
		t.Errorf("PUT = HTTP %d, Allow %q", a.status, a.header.Get("Allow"))
	}
	if a := d.get("/admin"); a.status != http.StatusSeeOther || a.location != "./admin/" {
		t.Errorf("/admin leads to %q with HTTP %d", a.location, a.status)
	}
}

func TestEventsAreListedNewestFirst(t *testing.T) {
	d := newDesk(t)
	c := d.connection(nil)
	for range 70 {
		d.parts.Record(t.Context(), tokenstore.Event{Type: tokenstore.EventRefreshed, ConnectionID: c.ID})
	}
	d.parts.Record(t.Context(), tokenstore.Event{Type: tokenstore.EventKeyRefused, Actor: tokenstore.Actor{From: "192.0.2.7"}, Denied: true, Count: 3})
	first := d.get("/admin/events")
	d.want(first, http.StatusOK, "Key refused (refused) × 3", "from 192.0.2.7", "50 shown")
	older := regexpFind(t, first.body, `href="(events\?cursor=[^"]+)">Older`)
	d.want(d.get("/admin/"+older), http.StatusOK, "21 shown", "Newest")
	if a := d.get("/admin/events?connection_id=" + c.ID); strings.Contains(a.body, "Key refused") || !strings.Contains(a.body, "Refreshed") {
		t.Errorf("the events of one connection: %s", a.body)
	}
	d.want(d.get("/admin/events?cursor=x"), http.StatusBadRequest)
}

func TestChanges(t *testing.T) {
	d := newDesk(t)
	c := d.connection(nil)
	page := "/admin/connections/" + c.ID
	steps := []struct {
		from, to, location, notice string
		before                     func()
	}{
		{page, page + "/refresh", "../../connections/" + c.ID + "?done=refreshed", "The token was refreshed", nil},
		{page, page + "/refresh", "../../connections/" + c.ID + "?done=reconnect", "has to connect again", func() { d.parts.refreshErr = tokenstore.ErrReconnect }},
		{page, page + "/refresh", "../../connections/" + c.ID + "?done=unavailable", "did not answer", func() { d.parts.refreshErr = &tokenstore.UnavailableError{} }},
		{page, page + "/disable", "../../connections/" + c.ID + "?done=disabled", "is switched off", nil},
		{page, page + "/enable", "../../connections/" + c.ID + "?done=enabled", "is on again", nil},
		{page + "/disconnect", page + "/disconnect", "../../connections/" + c.ID + "?done=shared", "another connection of the same account", func() { d.parts.outcome.Reason = revoke.ReasonShared }},
		{page + "/delete", page + "/delete", "../../?done=deleted", "is deleted", nil},
	}
	for _, s := range steps {
		if s.before != nil {
			s.before()
		}
		a := d.post(s.from, s.to)
		if a.status != http.StatusSeeOther || a.location != s.location {
			t.Fatalf("POST %s = HTTP %d to %q; want %q: %s", s.to, a.status, a.location, s.location, a.body)
		}
		to, _ := url.Parse(s.to)
		d.want(d.get(to.ResolveReference(must(url.Parse(a.location))).String()), http.StatusOK, s.notice)
	}
	if want := (tokenstore.Actor{Kind: "operator", Name: "ada", From: "127.0.0.1"}); d.parts.by != want {
		t.Errorf("it was done by %+v; want %+v", d.parts.by, want)
	}
	var told []string
	for _, e := range d.events() {
		if e.Type == tokenstore.EventChanged && e.Actor.Name == "ada" {
			told = append(told, e.Reason)
		}
	}
	if !slices.Equal(told, []string{"disabled", "enabled"}) {
		t.Errorf("the log tells of %v", told)
	}
	d.want(d.get(page), http.StatusNotFound)
}

func must(u *url.URL, _ error) *url.URL { return u }

func TestLinkIsShownAndWrittenDown(t *testing.T) {
	d := newDesk(t)
	c := d.connection(func(c *tokenstore.Connection) { c.Expire(tokenstore.ReasonInvalidGrant) })
	page := "/admin/connections/" + c.ID
	d.want(d.post(page, page+"/link"), http.StatusOK, "https://connect.example/connect?connection_id="+c.ID, "https%3A%2F%2Fapp.example%2Fcallback", "user_1", "in 1")
	if e := d.events(); len(e) != 1 || e[0].Type != tokenstore.EventLinked || e[0].Actor.Name != "ada" || e[0].ConnectionID != c.ID {
		t.Errorf("the log tells of %+v", e)
	}
	off := d.connection(func(c *tokenstore.Connection) { c.Disabled = true })
	d.want(d.post(page, "/admin/connections/"+off.ID+"/link"), http.StatusConflict, "switched off")
	if d.do(http.MethodGet, page+"/link", nil, nil).status != http.StatusMethodNotAllowed {
		t.Error("a link is made by GET")
	}
}

// TestForeignFormsChangeNothing holds what another site, a planted cookie or
// another user's form could send.
func TestForeignFormsChangeNothing(t *testing.T) {
	tests := []struct {
		name   string
		form   func(token string) url.Values
		change func(*http.Request)
	}{
		{"no token", func(string) url.Values { return url.Values{} }, nil},
		{"another token", func(token string) url.Values { return url.Values{"csrf": {"x" + token[1:]}} }, nil},
		{"another site", nil, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }},
		{"another port of this machine", nil, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }},
		{"another origin", nil, func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }},
		{"no origin", nil, func(r *http.Request) { r.Header.Set("Origin", "null") }},
		{"no cookie", nil, func(r *http.Request) { r.Header.Del("Cookie") }},
		{"another cookie", nil, func(r *http.Request) {
			r.Header.Set("Cookie", "lanyard-dashboard=ABCDEFGHIJKLMNOPQRSTUVWXYZ")
		}},
		{"two cookies", nil, func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "lanyard-dashboard", Value: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})
		}},
		{"early data", nil, func(r *http.Request) { r.Header.Set("Early-Data", "1") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			c := d.connection(nil)
			page := "/admin/connections/" + c.ID
			form := url.Values{"csrf": {d.token(page)}}
			if tt.form != nil {
				form = tt.form(form.Get("csrf"))
			}
			cookies := d.client.Jar.(*jar).cookies
			d.client.Jar = nil
			a := d.do(http.MethodPost, page+"/delete", form, func(r *http.Request) {
				r.AddCookie(cookies[0])
				if tt.change != nil {
					tt.change(r)
				}
			})
			if a.status != http.StatusForbidden && a.status != http.StatusTooEarly {
				t.Errorf("HTTP %d", a.status)
			}
			if len(d.parts.asked) > 0 {
				t.Errorf("it was done: %v", d.parts.asked)
			}
		})
	}
	t.Run("another user's token", func(t *testing.T) {
		d := newDesk(t)
		c := d.connection(nil)
		page := "/admin/connections/" + c.ID
		token := d.token(page)
		d.who.Name = "eve"
		d.want(d.do(http.MethodPost, page+"/delete", url.Values{"csrf": {token}}, nil), http.StatusForbidden, "Nothing was changed")
	})
	t.Run("the page's own", func(t *testing.T) {
		d := newDesk(t)
		c := d.connection(nil)
		page := "/admin/connections/" + c.ID
		a := d.do(http.MethodPost, page+"/delete", url.Values{"csrf": {d.token(page)}}, func(r *http.Request) {
			r.Header.Set("Origin", d.server.URL)
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		})
		d.want(a, http.StatusSeeOther)
	})
}

// TestStrangersAreKeptOut holds who gets in where nobody was authenticated.
func TestStrangersAreKeptOut(t *testing.T) {
	loopback, elsewhere := "127.0.0.1:80", "192.0.2.7:4711"
	tests := []struct {
		name          string
		local, remote string
		host          string
		header        [2]string
		who           dashboard.Visitor
		want          int
	}{
		{"this machine", loopback, "127.0.0.1:5", "localhost:9080", [2]string{}, dashboard.Visitor{Local: true}, http.StatusOK},
		{"by IPv6", "[::1]:80", "[::1]:5", "[::1]:9080", [2]string{}, dashboard.Visitor{Local: true}, http.StatusOK},
		{"by another address of the loopback", loopback, "127.0.0.1:5", "127.0.0.9", [2]string{}, dashboard.Visitor{Local: true}, http.StatusOK},
		{"where a user is asked for", loopback, "127.0.0.1:5", "localhost", [2]string{}, dashboard.Visitor{}, http.StatusForbidden},
		{"another machine", "192.0.2.1:80", elsewhere, "localhost", [2]string{}, dashboard.Visitor{Local: true}, http.StatusForbidden},
		{"another machine's address on the loopback", loopback, elsewhere, "localhost", [2]string{}, dashboard.Visitor{Local: true}, http.StatusForbidden},
		{"this machine by its own address", "192.0.2.1:80", "127.0.0.1:5", "localhost", [2]string{}, dashboard.Visitor{Local: true}, http.StatusForbidden},
		{"a name of a web page", loopback, "127.0.0.1:5", "evil.example", [2]string{}, dashboard.Visitor{Local: true}, http.StatusForbidden},
		{"a name that looks like one", loopback, "127.0.0.1:5", "localhost.evil.example", [2]string{}, dashboard.Visitor{Local: true}, http.StatusForbidden},
		{"no name", loopback, "127.0.0.1:5", "", [2]string{}, dashboard.Visitor{Local: true}, http.StatusForbidden},
		{"a proxy on this machine", loopback, "127.0.0.1:5", "localhost", [2]string{"X-Forwarded-For", "192.0.2.7"}, dashboard.Visitor{Local: true}, http.StatusForbidden},
		{"another proxy", loopback, "127.0.0.1:5", "localhost", [2]string{"Forwarded", ""}, dashboard.Visitor{Local: true}, http.StatusForbidden},
		{"a third proxy", loopback, "127.0.0.1:5", "localhost", [2]string{"Via", "1.1 x"}, dashboard.Visitor{Local: true}, http.StatusForbidden},
		{"somebody known, from elsewhere", "192.0.2.1:80", elsewhere, "ops.example", [2]string{"Via", "1.1 x"}, dashboard.Visitor{Name: "ada"}, http.StatusOK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			d.connection(nil)
			r := fromRemote(httptest.NewRequest(http.MethodGet, "/admin/", http.NoBody), tt.local, tt.remote)
			r.Host = tt.host
			if tt.header[0] != "" {
				r.Header.Set(tt.header[0], tt.header[1])
			}
			w := httptest.NewRecorder()
			d.handler.Serve(w, r, "/", tt.who)
			if w.Code != tt.want {
				t.Errorf("HTTP %d; want %d", w.Code, tt.want)
			}
			if shown := strings.Contains(w.Body.String(), "user_1"); shown != (tt.want == http.StatusOK) {
				t.Errorf("connections are shown: %v", shown)
			}
			if tt.want == http.StatusForbidden && !strings.Contains(w.Body.String(), "lanyard_dashboard /admin/*") {
				t.Error("the page does not say what to write")
			}
		})
	}
}

// TestLocalIsABrowsers: a proxy on this machine that passes its own host name on
// and adds no header, as nginx does by default, still speaks HTTP/1.0.
func TestLocalIsABrowsers(t *testing.T) {
	d := newDesk(t)
	d.connection(nil)
	r := fromRemote(httptest.NewRequest(http.MethodGet, "/admin/", http.NoBody), "127.0.0.1:80", "127.0.0.1:5")
	r.Host, r.Proto, r.ProtoMinor = "127.0.0.1:9080", "HTTP/1.0", 0
	w := httptest.NewRecorder()
	d.handler.Serve(w, r, "/", dashboard.Visitor{Local: true})
	if w.Code != http.StatusForbidden {
		t.Errorf("HTTP %d: somebody behind a proxy is taken for local", w.Code)
	}
}

func TestLiveTellsWhatHasChanged(t *testing.T) {
	d := newDesk(t)
	c := d.connection(nil)
	d.parts.Record(t.Context(), tokenstore.Event{Type: tokenstore.EventRefreshed, ConnectionID: "conn_before"})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.server.URL+"/admin/live", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := d.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), "conn_before") {
				t.Error("it tells of what was before")
			}
			if strings.HasPrefix(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("the stream ended without %q: %v", want, lines.Err())
	}
	until("event: hello")
	d.parts.Record(t.Context(), tokenstore.Event{Type: tokenstore.EventRefreshed, ConnectionID: c.ID})
	until("data: " + c.ID)
	d.handler.Close() // ends it, and waits
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream ended with %v", err)
	}
	if a := d.get("/admin/live"); a.status != http.StatusServiceUnavailable {
		t.Errorf("after the end: HTTP %d", a.status)
	}
}

func TestDamagedRecords(t *testing.T) {
	d := newDesk(t)
	h, err := dashboard.New(dashboard.Config{
		Store: damaged{d.store}, Refresher: d.parts, Links: d.parts, Revoker: d.parts, Audit: d.parts, Key: secret.New("key"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	d.handler = h
	d.want(d.get("/admin/"), http.StatusOK, "Damaged record", "store_corrupt", "conn_damaged")
	d.want(d.get("/admin/connections/conn_damaged"), http.StatusOK, "can’t be opened", "Delete")
	d.want(d.get("/admin/connections/conn_damaged/delete"), http.StatusOK, "Delete this connection?")
}

// damaged is a store with one connection that can't be opened.
type damaged struct{ dashboard.Store }

func (damaged) Connection(context.Context, string) (tokenstore.Connection, error) {
	return tokenstore.Connection{}, tokenstore.ErrCorrupt
}

func (damaged) ListConnections(context.Context, tokenstore.Filter, string, int) ([]tokenstore.Connection, string, error) {
	return []tokenstore.Connection{{ID: "conn_damaged", CreatedAt: time.Now(), Damaged: true}}, "", nil
}
