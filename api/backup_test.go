package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// fakeKeeper writes parts as its backup, then fails with err.
type fakeKeeper struct {
	parts []string
	err   error
	begun int
	none  bool
}

func (f *fakeKeeper) HasBackup() bool { return !f.none }

func (f *fakeKeeper) Backup(_ context.Context, w io.Writer) error {
	for _, p := range f.parts {
		if _, err := io.WriteString(w, p); err != nil {
			return err
		}
	}
	return f.err
}

func (f *fakeKeeper) Rekey(context.Context) error {
	if f.err == nil {
		f.begun++
	}
	return f.err
}

func (f *fakeKeeper) Rekeying() api.Rekeying {
	if f.begun == 0 {
		return api.Rekeying{State: "needed"}
	}
	return api.Rekeying{State: "running", Total: 10, Done: 4, Damaged: 1}
}

func withKeeper(k *fakeKeeper) func(*api.Config) { return func(c *api.Config) { c.Keeper = k } }

// TestBackup goes over a real connection, where a backup that is cut off must
// not look like one that is whole.
func TestBackup(t *testing.T) {
	for _, tt := range []struct {
		name   string
		keeper fakeKeeper
		status int
		whole  bool
		want   string
	}{
		{"whole", fakeKeeper{parts: []string{"one ", "two"}}, 200, true, "one two"},
		{"failed at once", fakeKeeper{err: fmt.Errorf("gone: %w", tokenstore.ErrUnavailable)}, 503, true, `"store_unavailable"`},
		{"cut off", fakeKeeper{parts: []string{strings.Repeat("x", 1<<16)}, err: errors.New("gone")}, 200, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, withKeeper(&tt.keeper))
			srv := httptest.NewServer(b.h)
			defer srv.Close()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/v1/backup", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+apiKey)
			res, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			if res.StatusCode != tt.status || (err == nil) != tt.whole {
				t.Errorf("GET /v1/backup = %d, %v; want %d, whole %v", res.StatusCode, err, tt.status, tt.whole)
			}
			if tt.whole && !strings.Contains(string(text), tt.want) {
				t.Errorf("the body is %q, want %q", text, tt.want)
			}
			if got := res.Header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control %q", got)
			}
		})
	}
}

func TestBackupHead(t *testing.T) {
	k := &fakeKeeper{parts: []string{"never"}, err: errors.New("never")}
	b := newBench(t, withKeeper(k))
	r := httptest.NewRequest(http.MethodHead, "http://localhost/v1/backup", nil)
	r.Header.Set("Authorization", "Bearer "+apiKey)
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	if w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("HEAD /v1/backup = %d, %q", w.Code, w.Body)
	}
}

func TestNoBackupOfADatabase(t *testing.T) {
	b := newBench(t, withKeeper(&fakeKeeper{none: true, err: errors.New("never")}))
	b.wants(b.do(http.MethodGet, "/v1/backup", ""), 409, "backup_unsupported")
	if events, _, err := b.store.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 10); err != nil || len(events) > 0 {
		t.Errorf("events %v, %v; want none: nothing was read", events, err)
	}
}

func TestRekey(t *testing.T) {
	k := &fakeKeeper{}
	b := newBench(t, withKeeper(k))
	b.wants(b.do(http.MethodGet, "/v1/rekey?x=1", ""), 400, "invalid_request")
	b.wants(b.do(http.MethodPost, "/v1/rekey", `{"x": 1}`), 400, "invalid_request")
	if a := b.do(http.MethodGet, "/v1/rekey", ""); a.status != 200 || a.json["state"] != "needed" {
		t.Errorf("GET before = %d %s", a.status, a.text)
	}
	if k.begun != 0 {
		t.Error("looking began it")
	}
	a := b.do(http.MethodPost, "/v1/rekey", "")
	if a.status != 202 || a.json["state"] != "running" || a.json["total"] != 10.0 || a.json["done"] != 4.0 || a.json["damaged"] != 1.0 {
		t.Errorf("POST = %d %s", a.status, a.text)
	}
	k.err = fmt.Errorf("keyset: %w", tokenstore.ErrUnavailable)
	b.wants(b.do(http.MethodPost, "/v1/rekey", ""), 503, "store_unavailable")
}

func TestBackupAndRekeyNeedTheKey(t *testing.T) {
	k := &fakeKeeper{parts: []string{"never"}}
	b := newBench(t, withKeeper(k))
	for _, m := range []string{"GET /v1/backup", "GET /v1/rekey", "POST /v1/rekey"} {
		method, path, _ := strings.Cut(m, " ")
		b.wants(b.do(method, path, "", func(r *http.Request) { r.Header.Del("Authorization") }), 401, "key_required")
	}
	if k.begun != 0 {
		t.Error("a rekey was begun without a key")
	}
}
