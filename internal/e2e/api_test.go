package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// post sends a body to the API with a header, such as an Idempotency-Key.
func (w *world) post(path, media, body, name, value string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.proxyURL(path), strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.apiKey)
	req.Header.Set("Content-Type", media)
	if name != "" {
		req.Header.Set(name, value)
	}
	return w.do(req)
}

// TestChangingConnections: what a PATCH changes holds at once, at the proxy too,
// and after a kill; and it is found again by its labels.
func TestChangingConnections(t *testing.T) {
	w := newWorld(t)
	id := w.connect("ann")
	if a := w.call(id, "/me"); a.Status != http.StatusOK {
		t.Fatalf("call = %d %s", a.Status, a.Body)
	}
	a := w.api(http.MethodPatch, "/v1/connections/"+id, map[string]any{
		"name": "Work", "labels": map[string]string{"team": "red"}, "metadata": map[string]any{"plan": []string{"pro"}}, "disabled": true,
	}, nil)
	if a.Status != http.StatusOK {
		t.Fatalf("PATCH = %d %s", a.Status, a.Body)
	}
	if a := w.call(id, "/me"); a.Status != http.StatusConflict || a.Header.Get("Lanyard-Error") != "connection_not_active" {
		t.Errorf("a call of a disabled connection = %d %s", a.Status, a.Body)
	}
	w.kill()
	w.start()
	var list struct {
		Connections []map[string]any `json:"connections"`
	}
	w.api(http.MethodGet, "/v1/connections?label=team%3Dred&user_id=ann", nil, &list)
	if len(list.Connections) != 1 || list.Connections[0]["id"] != id || list.Connections[0]["disabled"] != true ||
		fmt.Sprint(list.Connections[0]["metadata"]) != "map[plan:[pro]]" {
		t.Errorf("list by label = %v", list.Connections)
	}
	w.api(http.MethodGet, "/v1/connections?label=team%3Dblue", nil, &list)
	if len(list.Connections) != 0 {
		t.Errorf("list by another label = %v", list.Connections)
	}
	w.api(http.MethodPatch, "/v1/connections/"+id, map[string]any{"disabled": false}, nil)
	if a := w.call(id, "/me"); a.Status != http.StatusOK {
		t.Errorf("a call of an enabled connection = %d %s", a.Status, a.Body)
	}
}

// TestIdempotencyKey: the same request again, after a kill too, is answered in
// the same way, and makes no second connection.
func TestIdempotencyKey(t *testing.T) {
	w := newWorld(t)
	const body = `{"integration":"fake","user_id":"ann"}`
	post := func(body string) answer {
		return w.post("/v1/connections", "application/json", body, "Idempotency-Key", "order-1")
	}
	first := post(body)
	w.kill()
	w.start()
	again := post(body)
	if again.Body != first.Body || again.Status != http.StatusCreated || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("again: %d %s\nfirst: %d %s", again.Status, again.Body, first.Status, first.Body)
	}
	if a := post(`{"integration":"fake"}`); a.Status != http.StatusUnprocessableEntity || a.Header.Get("Lanyard-Error") != "idempotency_key_reused" {
		t.Errorf("another body: %d %s", a.Status, a.Body)
	}
	var list struct {
		Connections []connection `json:"connections"`
	}
	w.api(http.MethodGet, "/v1/connections", nil, &list)
	if len(list.Connections) != 1 {
		t.Errorf("%d connections, want 1", len(list.Connections))
	}
}

// TestImportingLines: each line by itself, whatever its auth scheme, tried at
// the provider, and the connections serve.
func TestImportingLines(t *testing.T) {
	s := newSchemes(t)
	s.secrets = append(s.secrets, "stale-refresh-token")
	body := strings.Join([]string{
		fmt.Sprintf(`{"integration":"keyed","id":"conn_Old1","user_id":"ann","credentials":{"api_key":%q}}`, s.key),
		`{"integration":"keyed","user_id":"ann","credentials":{"api_key":"wrong-key"}}`,
		`{"integration":"fake","user_id":"bob","refresh_token":"stale-refresh-token"}`,
		`nonsense`,
	}, "\n")
	a := s.post("/v1/connections/import", "application/jsonl", body, "", "")
	if a.Status != http.StatusOK {
		t.Fatalf("import = %d %s", a.Status, a.Body)
	}
	var got []string
	for line := range strings.Lines(a.Body) {
		var l struct {
			Line       int
			ID, Status string
			Verified   *bool
			Error      struct{ Code string }
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		verified := "unknown"
		if l.Verified != nil {
			verified = fmt.Sprint(*l.Verified)
		}
		got = append(got, fmt.Sprintln(l.Line, l.Status, verified, l.Error.Code))
	}
	want := []string{"1 ACTIVE true \n", "2  unknown credentials_refused\n", "3 EXPIRED false \n", "4  unknown invalid_request\n"}
	if strings.Join(got, "") != strings.Join(want, "") {
		t.Errorf("import answered\n%swant\n%s", strings.Join(got, ""), strings.Join(want, ""))
	}
	again := s.post("/v1/connections/import", "application/jsonl", strings.SplitN(body, "\n", 2)[0], "", "")
	if !strings.Contains(again.Body, `"connection_exists"`) {
		t.Errorf("the same line again = %s", again.Body)
	}
	if a := s.call("conn_Old1", "/me"); a.Status != http.StatusOK {
		t.Errorf("a call of what was imported = %d %s", a.Status, a.Body)
	}
}

// TestListsOfProviders: the catalogue and the configuration's own are shown with
// what an app needs to build its own pages.
func TestListsOfProviders(t *testing.T) {
	s := newSchemes(t)
	a := s.api(http.MethodGet, "/v1/providers", nil, nil)
	for _, want := range []string{`"name":"github"`, `"name":"keyed"`, `"source":"configuration"`, `"source":"catalogue"`} {
		if a.Status != http.StatusOK || !strings.Contains(a.Body, want) {
			t.Errorf("providers = %d without %s: %s", a.Status, want, a.Body)
		}
	}
	a = s.api(http.MethodGet, "/v1/integrations", nil, nil)
	if a.Status != http.StatusOK || !strings.Contains(a.Body, `"auth_scheme":"API_KEY","scopes":[],"fields":[{"name":"api_key"`) {
		t.Errorf("integrations = %d %s", a.Status, a.Body)
	}
}
