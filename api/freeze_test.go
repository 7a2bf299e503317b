package api_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// fakeFreezer is frozen for "me", once it is.
type fakeFreezer struct{ now api.Freezing }

func (f *fakeFreezer) Freeze(_ context.Context, id string) (api.Freezing, error) {
	if id != "" && (f.now.State != "frozen" || id != f.now.ID) {
		return f.now, tokenstore.ErrNotFrozen
	}
	until := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	f.now = api.Freezing{State: "frozen", ID: "me", Until: &until}
	return f.now, nil
}

func (f *fakeFreezer) Moved(_ context.Context, id, to string) (api.Freezing, error) {
	if f.now.State != "frozen" || id != f.now.ID {
		return f.now, tokenstore.ErrNotFrozen
	}
	f.now = api.Freezing{State: "moved", MovedTo: to}
	return f.now, nil
}

func (f *fakeFreezer) Thaw(context.Context) (api.Freezing, error) {
	if f.now.State == "moved" {
		return f.now, tokenstore.ErrMoved
	}
	f.now = api.Freezing{State: "open"}
	return f.now, nil
}

func (f *fakeFreezer) Freezing() api.Freezing { return f.now }

func (*fakeFreezer) Export(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "lanyard export")
	return err
}

func TestFreeze(t *testing.T) {
	f := &fakeFreezer{now: api.Freezing{State: "open"}}
	b := newBench(t, func(c *api.Config) { c.Freezer = f })
	for _, step := range []struct {
		method, path, body string
		status             int
		code, state        string
	}{
		{"GET", "/v1/freeze", "", 200, "", "open"},
		{"GET", "/v1/freeze/records?id=me", "", 409, "not_frozen", ""},
		{"POST", "/v1/freeze", `{"id":"me"}`, 409, "not_frozen", ""},
		{"POST", "/v1/freeze", `{"moved_to":"there"}`, 400, "invalid_request", ""},
		{"POST", "/v1/freeze", "", 200, "", "frozen"},
		{"POST", "/v1/freeze", `{"id":"me"}`, 200, "", "frozen"},
		{"POST", "/v1/freeze", `{"id":"you"}`, 409, "not_frozen", ""},
		{"GET", "/v1/freeze/records?id=you", "", 409, "not_frozen", ""},
		{"RECORDS", "/v1/freeze/records?id=me", "", 200, "", ""},
		{"DELETE", "/v1/freeze", "", 200, "", "open"},
		{"POST", "/v1/freeze", `{"id":"me","moved_to":"there"}`, 409, "not_frozen", ""},
		{"POST", "/v1/freeze", "{}", 200, "", "frozen"},
		{"POST", "/v1/freeze", `{"id":"me","moved_to":"there"}`, 200, "", "moved"},
		{"DELETE", "/v1/freeze", "", 409, "store_moved", ""},
	} {
		if step.method == "RECORDS" {
			if res := b.raw("GET", step.path); res.Code != step.status || res.Body.String() != "lanyard export" {
				t.Errorf("records = %d %s", res.Code, res.Body)
			}
			continue
		}
		a := b.do(step.method, step.path, step.body)
		b.wants(a, step.status, step.code)
		if got, _ := a.json["state"].(string); got != step.state && step.state != "" {
			t.Errorf("%s %s %s: state %q, want %q", step.method, step.path, step.body, got, step.state)
		}
	}
}

// TestFreezeOfADatabase: it is frozen by who moves it.
func TestFreezeOfADatabase(t *testing.T) {
	b := newBench(t)
	b.wants(b.do("POST", "/v1/freeze", ""), 409, "freeze_unsupported")
	b.wants(b.do("DELETE", "/v1/freeze", ""), 409, "freeze_unsupported")
}
