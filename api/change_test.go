package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestPatch(t *testing.T) {
	b := newBench(t)
	c := b.put(func(c *tokenstore.Connection) {
		c.Name, c.Labels, c.Metadata = "old", map[string]string{"a": "1", "b": "2"}, `{"k":1}`
		c.Fail("timeout")
	})
	path := "/v1/connections/" + c.ID
	for _, tt := range []struct {
		name, body string
		shown      map[string]any // of the answer
		events     int            // so far
	}{
		{"nothing", `{}`, map[string]any{"name": "old"}, 0},
		{"the same", `{"name":"old","labels":{"b":"2","a":"1"},"metadata":{"k": 1},"disabled":false}`, map[string]any{"name": "old"}, 0},
		{"name", `{"name":"new"}`, map[string]any{"name": "new", "metadata": map[string]any{"k": 1.0}}, 1},
		{"labels", `{"labels":{"c":"3"}}`, map[string]any{"labels": map[string]any{"c": "3"}}, 2},
		{"metadata", `{"metadata":{"a":{"b":[null,1.50,"ü"]}}}`, map[string]any{"metadata": map[string]any{"a": map[string]any{"b": []any{nil, 1.5, "ü"}}}}, 3},
		{"disabled", `{"disabled":true}`, map[string]any{"disabled": true, "connect_url": nil}, 4},
		{"both", `{"disabled":false,"name":"both"}`, map[string]any{"disabled": false, "name": "both"}, 6},
		{"null", `{"name":null,"labels":null,"metadata":null}`, map[string]any{"name": "", "labels": map[string]any{}, "metadata": map[string]any{}}, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := b.do("PATCH", path, tt.body)
			b.wants(a, 200, "")
			for name, want := range tt.shown {
				if d := cmp.Diff(want, a.json[name]); d != "" {
					t.Errorf("%s (-want +got):\n%s", name, d)
				}
			}
			page, _, _ := b.store.ListEvents(t.Context(), tokenstore.EventFilter{ConnectionID: c.ID}, "", 100)
			if len(page) != tt.events {
				t.Errorf("%d events, want %d", len(page), tt.events)
			}
			if tt.name == "metadata" && b.stored(c.ID).Metadata != `{"a":{"b":[null,1.50,"ü"]}}` {
				t.Errorf("stored metadata %s; want it as given", b.stored(c.ID).Metadata)
			}
		})
	}
	const ch = "connection.changed"
	b.happened(c.ID, ch, ch, ch, ch+" disabled", ch, ch+" enabled", ch)
	if got := b.stored(c.ID); got.Status != tokenstore.StatusFailed || got.StatusReason != "timeout" {
		t.Errorf("the status has changed: %s, %s", got.Status, got.StatusReason)
	}
}

func TestBadPatchChangesNothing(t *testing.T) {
	b := newBench(t)
	c := b.put(active("a"))
	for body, names := range map[string]string{
		`{"name":1}`:                     "`name`",
		`{"name":"a\u0000"}`:             "`name`",
		`{"labels":{"a":null}}`:          `"a"`,
		`{"labels":[]}`:                  "`labels`",
		`{"metadata":"x"}`:               "`metadata`",
		`{"disabled":null}`:              "`disabled`",
		`{"disabled":0}`:                 "`disabled`",
		`{"disabled":true,"status":"x"}`: `"status"`,
		`{"name":"x","user_id":"u2"}`:    `"user_id"`,
		`{"metadata":{"a":"` + strings.Repeat("m", 16<<10) + `"}}`: "`metadata`",
	} {
		a := b.do("PATCH", "/v1/connections/"+c.ID, body)
		b.wants(a, 400, "invalid_request")
		if !strings.Contains(a.json["detail"].(string), names) {
			t.Errorf("%s: detail %q does not name %s", body[:min(len(body), 80)], a.json["detail"], names)
		}
	}
	if got := b.stored(c.ID).Revision; got != c.Revision {
		t.Errorf("revision = %d, want %d", got, c.Revision)
	}
	b.wants(b.do("PATCH", "/v1/connections/conn_none", `{"name":"x"}`), 404, "connection_not_found")
}

func TestListByLabels(t *testing.T) {
	b := newBench(t)
	labels := func(all map[string]string) func(*tokenstore.Connection) {
		return func(c *tokenstore.Connection) { c.Labels = all }
	}
	both := b.put(labels(map[string]string{"team": "red", "a": "x=y"}))
	red := b.put(labels(map[string]string{"team": "red"}))
	b.put(labels(map[string]string{"team": "blue", "a": "x=y"}))
	b.put(labels(nil))
	for query, want := range map[string][]string{
		"label=team%3Dred":                           {both.ID, red.ID},
		"label=team%3Dred&label=a%3Dx%3Dy":           {both.ID},
		"label=team%3Dred&label=team%3Dred&limit=1":  {both.ID},
		"label=team%3Dred&user_id=u2":                {},
		"label=team%3Dred&status=INITIATED&limit=10": {both.ID, red.ID},
		"label=team%3D":                              {},
	} {
		a := b.do("GET", "/v1/connections?"+query, "")
		b.wants(a, 200, "")
		got := []string{}
		for _, c := range a.json["connections"].([]any) {
			got = append(got, c.(map[string]any)["id"].(string))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", query, d)
		}
	}
}
