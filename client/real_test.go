package client_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/client"
)

// realOne returns a client of a real Lanyard.
func realOne(t *testing.T) *client.Client {
	t.Helper()
	if !here.real {
		t.Skip("no Lanyard: Lanyard's own tests start one and run this")
	}
	return newClient(t, here.config)
}

func TestLifeOfAConnection(t *testing.T) {
	c, ctx, user := realOne(t), t.Context(), "user "+rand.Text()
	link, err := c.Begin(ctx, client.ConnectParams{
		UserID: user, Integration: "fake", RedirectURL: here.redirectURL, State: "s1", ConnectionName: "Work", Labels: map[string]string{"team": "red & blue"},
	})
	if err != nil || link.Status != client.Initiated || time.Until(link.ExpiresAt) < time.Minute {
		t.Fatalf("Begin = %+v, %v", link, err)
	}
	back := open(link.ConnectURL)
	var refused *client.APIError
	if _, err := c.Callback(back, "s1", "somebody else"); !errors.As(err, &refused) || refused.Code != "user_mismatch" {
		t.Errorf("completed for another user: %v", err)
	}
	again, err := c.Begin(ctx, client.ConnectParams{ConnectionID: link.ID, State: "s2"})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Callback(open(again.ConnectURL), "s2", user)
	if err != nil || conn.ID != link.ID || conn.Status != client.Active || conn.UserID != user || conn.Labels["team"] != "red & blue" || conn.ConnectedAt.IsZero() {
		t.Fatalf("Callback = %+v, %v", conn, err)
	}
	name, yes, no := "Home", true, false
	conn, err = c.Update(ctx, conn.ID, client.Change{Name: &name, Metadata: json.RawMessage(`{"plan": "x"}`), Disabled: &yes})
	if err != nil || conn.Name != name || string(conn.Metadata) != `{"plan":"x"}` || !conn.Disabled || conn.Labels["team"] == "" {
		t.Errorf("Update = %+v, %v", conn, err)
	}
	hc := c.HTTPClient(link.ID)
	if _, err := get(t, hc, here.apiURL+"/me"); !errors.As(err, &refused) || refused.Code != "connection_not_active" || refused.Reason != "disabled" {
		t.Errorf("a call of a disabled connection: %v", err)
	}
	if _, err := c.Update(ctx, link.ID, client.Change{Disabled: &no, Labels: map[string]string{}}); err != nil {
		t.Error(err)
	}
	before := conn.Generation
	if conn, err = c.Refresh(ctx, link.ID); err != nil || conn.Generation != before+1 {
		t.Errorf("Refresh = %+v, %v", conn, err)
	}
	if res, err := get(t, hc, here.apiURL+"/me"); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("a call: %v", err)
	}
	gone, err := c.Revoke(ctx, link.ID)
	if err != nil || gone.Status != client.Revoked || !gone.ProviderRevoked {
		t.Errorf("Revoke = %+v, %v", gone, err)
	}
	var reconnect *client.ReconnectRequired
	if _, err := get(t, hc, here.apiURL+"/me"); !errors.As(err, &reconnect) || reconnect.ConnectionID != link.ID || reconnect.URL == "" {
		t.Errorf("a call of a revoked connection: %v", err)
	}
	if _, err := c.Refresh(ctx, link.ID); err == nil {
		t.Error("a revoked connection was refreshed")
	}
	if _, err := c.Delete(ctx, link.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Get(ctx, link.ID); !errors.As(err, &refused) || refused.Code != "connection_not_found" {
		t.Errorf("a deleted connection: %v", err)
	}
}

func TestLists(t *testing.T) {
	c, ctx, team := realOne(t), t.Context(), rand.Text()
	for range 3 {
		if _, err := c.Begin(ctx, client.ConnectParams{UserID: "lister", Integration: "fake", Labels: map[string]string{"team": team}}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for conn, err := range c.Connections(ctx, client.Filter{UserID: "lister", Status: client.Initiated, Labels: map[string]string{"team": team}}) {
		if n++; err != nil || conn.Labels["team"] != team {
			t.Errorf("%+v, %v", conn, err)
		}
	}
	if n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
	integrations, err := c.Integrations(ctx)
	if err != nil || !slices.ContainsFunc(integrations, func(i client.Integration) bool {
		return i.Name == "keyed" && i.AuthScheme == "API_KEY" && len(i.Fields) == 1
	}) {
		t.Errorf("Integrations = %+v, %v", integrations, err)
	}
	providers, err := c.Providers(ctx)
	if err != nil || !slices.ContainsFunc(providers, func(p client.Provider) bool { return p.Name == "fake" && p.APIURL == here.apiURL }) {
		t.Errorf("Providers = %+v, %v", providers, err)
	}
}

func TestCredentialsThatAreNone(t *testing.T) {
	c := realOne(t)
	var refused *client.APIError
	_, err := c.BeginWithCredentials(t.Context(), client.ConnectParams{Integration: "keyed"}, map[string]string{"api_key": "wrong"})
	if !errors.As(err, &refused) || refused.Code != "credentials_refused" {
		t.Errorf("a wrong key: %v", err)
	}
}

func TestEventsAreFollowed(t *testing.T) {
	c, ctx := realOne(t), t.Context()
	link, err := c.Begin(ctx, client.ConnectParams{UserID: "u", Integration: "fake"})
	if err != nil {
		t.Fatal(err)
	}
	f := client.EventFilter{ConnectionID: link.ID}
	for e, err := range c.Events(ctx, f) {
		if err != nil || e.Type != "connection.begun" || e.Actor.Kind != "api_key" {
			t.Fatalf("%+v, %v", e, err)
		}
		f.Cursor = e.ID
	}
	if f.Cursor == "" {
		t.Fatal("no event")
	}
	if _, err := c.Delete(ctx, link.ID); err != nil {
		t.Fatal(err)
	}
	for e, err := range c.Follow(ctx, f) {
		if err != nil || e.Type != "connection.deleted" {
			t.Errorf("%+v, %v", e, err)
		}
		break
	}
}

func TestImports(t *testing.T) {
	c, ctx := realOne(t), t.Context()
	got, err := c.Import(ctx, client.ImportParams{UserID: "mover", Integration: "keyed", Credentials: map[string]string{"api_key": here.key}})
	if err != nil || got.Status != client.Active || got.Verified == nil || !*got.Verified || got.Account.ID == "" {
		t.Fatalf("Import = %+v, %v", got, err)
	}
	id := "conn_" + rand.Text()
	all := slices.Values([]client.ImportParams{
		{ID: id, UserID: "mover", Integration: "fake", AccessToken: "a-token", ExpiresAt: time.Now().Add(time.Hour)},
		{ID: id, UserID: "mover", Integration: "fake", AccessToken: "a-token"},
		{UserID: "mover", Integration: "unknown", AccessToken: "a-token"},
	})
	var codes []string
	for line, err := range c.ImportAll(ctx, all, true) {
		if err != nil {
			t.Fatal(err)
		}
		code := string(line.Status)
		if line.Error != nil {
			code = line.Error.Code
		}
		codes = append(codes, code)
	}
	slices.Sort(codes[:2]) // lines are imported side by side: of two with one ID, either is first
	if !slices.Equal(codes, []string{"ACTIVE", "connection_exists", "invalid_request"}) {
		t.Errorf("ImportAll: %v", codes)
	}
}

func TestConnectionsPage(t *testing.T) {
	c := realOne(t)
	conn := connected(c, "page user")
	link, err := c.ConnectionsURL("page user", here.redirectURL)
	if err != nil {
		t.Fatal(err)
	}
	res, err := get(t, &http.Client{}, link)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("the page of %s: %v, %v", conn.ID, res, err)
	}
}

func TestBySocket(t *testing.T) {
	realOne(t)
	cfg := here.config
	cfg.APIURL = here.socket
	c := newClient(t, cfg)
	conn := connected(c, "socket user")
	res, err := get(t, c.HTTPClient(conn.ID), here.apiURL+"/items?page=1")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("a call by the socket: %v", err)
	}
}

func TestDevice(t *testing.T) {
	c := realOne(t)
	d, err := c.BeginDevice(t.Context(), client.ConnectParams{UserID: "tv", Integration: "fake"})
	if err != nil || d.ID == "" || d.UserCode == "" || d.VerificationURI == "" || d.Interval < 1 {
		t.Fatalf("BeginDevice = %+v, %v", d, err)
	}
	if got, err := c.Get(t.Context(), d.ID); err != nil || got.Status != client.Initiated {
		t.Errorf("the connection: %+v, %v", got, err)
	}
}
