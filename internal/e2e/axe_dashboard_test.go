package e2e_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// withDashboard mounts the dashboard beside the connect pages, twice: the second
// asks for a user whom nobody names.
func withDashboard(w *world, _ *fakeprovider.Config) {
	w.site.EachSite += "lanyard_dashboard /admin/*\nlanyard_dashboard /closed/* {\n\tuser {http.vars.nobody}\n}\n"
}

func TestDashboardIsFitForEverybody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withDashboard)
	active, dead := w.connect("user-7"), w.connect("user-8")
	w.begin("user-9")
	w.fake.RevokeAll()
	w.call(dead, "/me")
	w.wantStatus(dead, "EXPIRED", "invalid_grant")

	admin := w.site.Public + "/admin/"
	at := func(path string) func(*world, *tab) page {
		return func(_ *world, b *tab) page { return b.open(admin + path) }
	}
	w.audit([]audited{
		{name: "dashboard-list", open: at(""), says: "Reconnect needed", act: "Activity"},
		{name: "dashboard-list-filtered", open: at("?status=EXPIRED&user=user-8"), says: "1 shown", act: "Show"},
		{name: "dashboard-list-empty", open: at("?label=team%3Dnone"), says: "No connection fits", act: "Show all"},
		{name: "dashboard-detail", open: at("connections/" + active), says: "Permissions", act: "Connections"},
		{name: "dashboard-detail-dead", open: at("connections/" + dead), says: "Reconnect needed", act: "Make a reconnect link"},
		{name: "dashboard-events", open: at("events"), says: "Access ended", act: "Connections"},
		{name: "dashboard-link", open: func(_ *world, b *tab) page {
			b.open(admin + "connections/" + dead)
			return b.press("Make a reconnect link")
		}, says: "It ends in", act: "Back to the connection", scripted: 1},
		{name: "dashboard-switched-off", open: func(_ *world, b *tab) page {
			p := b.open(admin + "connections/" + active)
			if b.has("Switch off") {
				p = b.press("Switch off")
			}
			return p
		}, says: "Switched off", act: "Switch on"},
		{name: "dashboard-disconnect", open: func(_ *world, b *tab) page {
			b.open(admin + "connections/" + active)
			return b.press("Disconnect")
		}, says: "Disconnect this account?", act: "Cancel"},
		{name: "dashboard-delete", open: at("connections/" + active + "/delete"), says: "Delete this connection?", act: "Cancel"},
		{name: "dashboard-none", open: at("connections/conn_none"), says: "nothing here", act: "All connections"},
		{name: "dashboard-closed", open: func(w *world, b *tab) page { return b.open(w.site.Public + "/closed/") }, says: "needs to know who you are"},
	})
}

// TestDashboardFollowsWhatHappens looks at a page that nobody touches.
func TestDashboardFollowsWhatHappens(t *testing.T) {
	w := newWorld(t, withDashboard)
	id := w.connect("user-7")
	b := w.browser()
	b.wantPage(b.open(w.site.Public+"/admin/"), http.StatusOK, "Active")
	b.waitFor(`!document.getElementById("live").hidden`)
	eval[bool](b, `window.__same = true`)
	other := w.connect("user-8")
	b.waitFor(`document.body.innerText.includes("user-8")`)
	w.fake.RevokeAll()
	w.call(id, "/me")
	b.waitFor(`document.getElementById("row-` + id + `").innerText.includes("Reconnect needed")`)
	if !eval[bool](b, `window.__same`) {
		t.Error("the page was loaded anew")
	}
	// A reload of the configuration ends the stream, and the page comes back to it.
	if err := w.reload(); err != nil {
		t.Fatal(err)
	}
	w.call(other, "/me")
	b.waitFor(`document.getElementById("row-` + other + `").innerText.includes("Reconnect needed")`)
}

func TestDashboardActs(t *testing.T) {
	w := newWorld(t, withDashboard)
	id := w.connect("user-7")
	b := w.browser()
	b.open(w.site.Public + "/admin/connections/" + id)
	b.wantPage(b.press("Refresh now"), http.StatusOK, "The token was refreshed")
	if c := w.connection(id); c.Generation != 2 {
		t.Errorf("generation %d after a refresh; want 2", c.Generation)
	}
	b.wantPage(b.press("Switch off"), http.StatusOK, "Switched off")
	if a := w.call(id, "/me"); a.Status != http.StatusConflict {
		t.Errorf("a call over a connection that is off: HTTP %d", a.Status)
	}
	b.wantPage(b.press("Switch on"), http.StatusOK, "is on again")
	w.wantWorks(id)
	b.press("Disconnect")
	b.wantPage(b.press("Disconnect"), http.StatusOK, "The provider has ended the access", "Disconnected")
	w.wantStatus(id, "REVOKED", "revoked")
	b.press("Delete")
	b.wantPage(b.press("Delete"), http.StatusOK, "The connection is deleted", "no connections yet")
	var log struct {
		Events []struct {
			Type  string
			Actor struct{ Kind string }
		}
	}
	w.api(http.MethodGet, "/v1/events?connection_id="+id, nil, &log)
	if last := log.Events[len(log.Events)-1]; last.Type != "connection.deleted" || last.Actor.Kind != "operator" {
		t.Errorf("the log ends with %+v", last)
	}
}

// TestDashboardIsBehindAuthentication runs it behind each kind that the
// documentation names.
func TestDashboardIsBehindAuthentication(t *testing.T) {
	auth := http.NewServeMux() // a sign-in service, which knows one cookie
	auth.HandleFunc("/verify", func(rw http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("session"); err != nil || c.Value != "good" {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		rw.Header().Set("Remote-User", "ada")
	})
	server := httptest.NewServer(auth)
	t.Cleanup(server.Close)
	w := newWorld(t, func(w *world, _ *fakeprovider.Config) {
		// ada, password: "hunter2"
		w.site.EachSite += "basic_auth /basic/* {\n\tada $2a$04$TkGyuGrQf5mlEphNrYLxHuyb6bvDX5nEd5eOulg/Hq7TT7byFx2g2\n}\nlanyard_dashboard /basic/*\n" +
			"forward_auth /forward/* " + server.URL + " {\n\turi /verify\n\tcopy_headers Remote-User\n}\n" +
			"lanyard_dashboard /forward/* {\n\tuser {http.reverse_proxy.header.Remote-User}\n}\n" +
			// As if somebody had left the forward_auth out.
			"lanyard_dashboard /bare/* {\n\tuser {rp.header.Remote-User}\n}\n"
	})
	get := func(path string, change func(*http.Request)) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.site.Public+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(r)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	forged := func(r *http.Request) {
		r.Header.Set("Remote-User", "mallory")
		r.Header.Set("X-Forwarded-User", "mallory")
	}
	for _, tt := range []struct {
		name, path string
		change     func(*http.Request)
		status     int
		user       string
	}{
		{"basic_auth, nobody", "/basic/", nil, http.StatusUnauthorized, ""},
		{"basic_auth, ada", "/basic/", func(r *http.Request) { r.SetBasicAuth("ada", "hunter2") }, http.StatusOK, "<span>ada</span>"},
		{"forward_auth, nobody", "/forward/", forged, http.StatusUnauthorized, ""},
		{"forward_auth, ada", "/forward/", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "session", Value: "good"}); forged(r) }, http.StatusOK, "<span>ada</span>"},
		{"without forward_auth", "/bare/", forged, http.StatusForbidden, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body := get(tt.path, tt.change)
			if status != tt.status || tt.user != "" && !strings.Contains(body, tt.user) || strings.Contains(body, "mallory") {
				t.Errorf("HTTP %d %s; want %d and %q", status, body, tt.status, tt.user)
			}
		})
	}
}

// TestDashboardFinds searches without JavaScript.
func TestDashboardFinds(t *testing.T) {
	w := newWorld(t, withDashboard)
	id := w.connect("user-7")
	w.connect("user-8")
	b := w.browser()
	b.withoutScripts()
	b.wantPage(b.open(w.site.Public+"/admin/?q="+url.QueryEscape("user-7")), http.StatusOK, "1 shown", "user-7")
	b.wantPage(b.open(w.site.Public+"/admin/?q="+id), http.StatusOK, "Permissions", id)
}
