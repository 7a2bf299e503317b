package caddymodule_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/caddymodule"
	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

// The keys of the Lanyards on a database.
const (
	sharedAPIKey    = "api-key-of-all-0123456789abcdefghijk"
	sharedClientKey = "client-key-of-all-0123456789abcdefgh"
)

// onDatabase sets the environment of Lanyards on a database, and returns their
// configuration with further members. It has no secret in it.
func onDatabase(t *testing.T, dsn, more string) string {
	t.Helper()
	keys, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"DATABASE_URL": dsn, "LANYARD_KEYS": string(keys), "LANYARD_API_KEY": sharedAPIKey, "LANYARD_CLIENT_KEY": sharedClientKey,
	} {
		t.Setenv(name, value)
	}
	if more != "" {
		more = ", " + more
	}
	return `{"public_url": "https://connect.example.com", "store": {"engine": "postgres", "url": "{env.DATABASE_URL}"},
		"keyset": "{env.LANYARD_KEYS}", "api_keys": ["{env.LANYARD_API_KEY}"],
		"clients": [{"name": "app", "key": "{env.LANYARD_CLIENT_KEY}"}]` + more + `}`
}

// password returns that of a DSN.
func password(t *testing.T, dsn string) string {
	t.Helper()
	_, rest, _ := strings.Cut(dsn, "://")
	user, _, _ := strings.Cut(rest, "@")
	_, word, ok := strings.Cut(user, ":")
	if !ok || word == "" {
		t.Fatal("the DSN has no password")
	}
	return word
}

// keeps asserts that nothing secret of the database is in the log or in texts.
func (in *instance) keeps(dsn string, texts ...string) {
	in.t.Helper()
	log, err := os.ReadFile(in.log)
	if err != nil {
		in.t.Fatal(err)
	}
	for _, text := range append(texts, string(log)) {
		for _, hidden := range []string{dsn, password(in.t, dsn)} {
			if strings.Contains(text, hidden) {
				in.t.Errorf("%q is told in: %s", hidden, text)
			}
		}
	}
}

// Checking a configuration asks no database: it may be down, or elsewhere.
func TestPostgresConfiguration(t *testing.T) {
	const url = "postgres://lanyard:s3cret-word@127.0.0.1:1/lanyard"
	whole := onDatabase(t, url, "")
	without := func(cut string) string {
		if !strings.Contains(whole, cut) {
			t.Fatalf("the configuration has no %s", cut)
		}
		return strings.Replace(whole, cut, "", 1)
	}
	with := func(store string) string {
		return strings.Replace(whole, `{"engine": "postgres", "url": "{env.DATABASE_URL}"}`, store, 1)
	}
	for _, tt := range []struct{ name, config, url, want string }{
		{"whole", whole, url, ""},
		{"several hosts", whole, "postgres://lanyard:s3cret-word@one:5432,two:5432/lanyard?sslmode=require&pool_max_conns=4", ""},
		{"socket", whole, "postgresql:///lanyard?host=/run/postgresql", ""},
		{"no keyset", without(`"keyset": "{env.LANYARD_KEYS}", `), url, "keyset: it is required with PostgreSQL"},
		{"no API key", without(`"api_keys": ["{env.LANYARD_API_KEY}"],`), url, "api_key: it is required with PostgreSQL"},
		{"no client", without(`,
		"clients": [{"name": "app", "key": "{env.LANYARD_CLIENT_KEY}"}]`), url, "client: it is required with PostgreSQL"},
		{"no URL", with(`{"engine": "postgres"}`), url, "store: postgres needs the URL of its database"},
		{"directory", with(`{"engine": "postgres", "dir": "/data", "url": "{env.DATABASE_URL}"}`), url, "`dir` is for `badger`"},
		{"URL of badger", with(`{"engine": "badger", "url": "{env.DATABASE_URL}"}`), url, "`url` is for `postgres`"},
		{"unknown engine", with(`{"engine": "redis", "url": "{env.DATABASE_URL}"}`), url, `store: "redis" is not a store`},
		{"not set", whole, "", "{env.DATABASE_URL} is empty"},
		{"pairs", whole, "host=127.0.0.1 password=s3cret-word", "the database's URL can't be read"},
		{"another scheme", whole, "mysql://lanyard:s3cret-word@127.0.0.1/lanyard", "the database's URL can't be read"},
		{"bare percent sign", whole, "postgres://lanyard:s3cret-word%zz@127.0.0.1/lanyard", "the database's URL can't be read"},
		{"bare slash", whole, "postgres://lanyard:s3cret-word/x@127.0.0.1/lanyard", "the database's URL can't be read"},
		{"unknown mode", whole, url + "?sslmode=s3cret-word", "store: the database's URL can't be read"},
		{"no such file", whole, url + "?sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("DATABASE_URL", tt.url)
			in, err := provision(t, tt.config, nil)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Provision() = %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Provision() = %v, want an error with %q", err, tt.want)
			}
			if log, _ := os.ReadFile(in.log); strings.Contains(fmt.Sprint(err, string(log)), "s3cret-word") {
				t.Errorf("the password is told: %v\n%s", err, log)
			}
		})
	}
}

func TestReloadKeepsTheDatabase(t *testing.T) {
	dsn := pgtest.New(t).Database(t)
	t.Chdir(t.TempDir())
	home, data := filesIn(t, "."), filesIn(t, os.Getenv("XDG_DATA_HOME"))
	first := onDatabase(t, dsn, github)
	old := started(t, first, both)
	if w := old.api(http.MethodPost, "/v1/connections", sharedAPIKey, `{"integration": "github", "user_id": "ada"}`); w.Code != http.StatusCreated {
		t.Fatalf("begin: %d %s", w.Code, w.Body)
	}
	next := started(t, strings.Replace(first, `"integrations"`, `"redirect_urls": ["https://app.example.com/cb"], "integrations"`, 1), both)
	if n := caddymodule.EnginesInUse(); n != 1 {
		t.Errorf("%d engines after a reload, want 1", n)
	}
	// Another Lanyard, as far as the database can tell.
	t.Setenv("DATABASE_URL", dsn+"&application_name=other")
	other := started(t, first, both)
	if n := caddymodule.EnginesInUse(); n != 2 {
		t.Errorf("%d engines with another URL, want 2", n)
	}
	old.end()
	for _, in := range []*instance{next, other} {
		w := in.api(http.MethodGet, "/v1/connections", sharedAPIKey, "")
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ada"`) {
			t.Errorf("the list is: %d %s", w.Code, w.Body)
		}
		in.keeps(dsn)
	}
	old.keeps(dsn)
	if w := next.api(http.MethodGet, "/v1/backup", sharedAPIKey, ""); w.Code != http.StatusConflict || w.Header().Get("Lanyard-Error") != "backup_unsupported" {
		t.Errorf("backup: %d %s", w.Code, w.Body)
	}
	next.end()
	other.end()
	if now, made := filesIn(t, "."), filesIn(t, os.Getenv("XDG_DATA_HOME")); now != home || made != data {
		t.Errorf("files were made: %s %s", now, made)
	}
}

// filesIn lists what is below a directory.
func filesIn(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func TestAnotherKeysetIsRefused(t *testing.T) {
	dsn := pgtest.New(t).Database(t)
	config := onDatabase(t, dsn, github)
	in := started(t, config, both)
	keys := os.Getenv("LANYARD_KEYS")
	other, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LANYARD_KEYS", string(other))
	refused, err := provision(t, config, both)
	if err != nil {
		t.Fatal(err)
	}
	if err := refused.app.Start(); err == nil || !strings.Contains(err.Error(), "the one that is open stays in force") {
		t.Errorf("a reload with another keyset: %v", err)
	}
	refused.end()
	if w := in.api(http.MethodGet, "/v1/health/ready", "", ""); w.Code != http.StatusOK {
		t.Errorf("after that, ready is %d %s", w.Code, w.Body)
	}
	in.end()
	again, err := provision(t, config, both)
	if err != nil {
		t.Fatal(err)
	}
	err = again.app.Start()
	if err == nil || !strings.Contains(err.Error(), "sealed with another keyset") {
		t.Errorf("a start with another keyset: %v", err)
	}
	again.keeps(dsn, fmt.Sprint(err))
	again.end()
	t.Setenv("LANYARD_KEYS", keys)
	started(t, config, both)
}

// A Lanyard that lacks a key which another one seals with can't be relied on.
func TestKeyOfAnotherLanyard(t *testing.T) {
	dsn := pgtest.New(t).Database(t)
	config := onDatabase(t, dsn, github)
	in := started(t, config, both)
	added, err := seal.AddPrimary([]byte(os.Getenv("LANYARD_KEYS")))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LANYARD_KEYS", string(added))
	t.Setenv("DATABASE_URL", dsn+"&application_name=other") // an engine of its own
	other := started(t, config, both)
	for ends := time.Now().Add(time.Minute); in.api(http.MethodGet, "/v1/health/ready", "", "").Code == http.StatusOK; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(ends) {
			t.Fatal("it is ready without the key")
		}
	}
	if w := other.api(http.MethodGet, "/v1/health/ready", "", ""); w.Code != http.StatusOK {
		t.Errorf("the one that has both keys: %d %s", w.Code, w.Body)
	}
}

// servedFrom starts a Lanyard on a database, with a connection whose token is
// valid, and returns a function that calls with it.
func servedFrom(t *testing.T, dsn string) (in *instance, call func() *httptest.ResponseRecorder) {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Header.Get("Authorization"))
	}))
	t.Cleanup(upstream.Close)
	config := onDatabase(t, dsn, fmt.Sprintf(`"providers": {"acme": {"authorize_url": %[1]q, "token_url": %[1]q, "api_url": %[1]q, "allow_private": true}},
		"integrations": {"acme": {"client_id": "a"}}`, upstream.URL))
	ks, err := seal.Parse([]byte(os.Getenv("LANYARD_KEYS")))
	if err != nil {
		t.Fatal(err)
	}
	store, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: ks})
	if err != nil {
		t.Fatal(err)
	}
	c, err := store.CreateConnection(t.Context(), tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: "acme", Provider: "acme", UserID: "ada", Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2,
		Token: tokenstore.Token{AccessToken: secret.New("at-1"), RefreshToken: secret.New("rt-1"), Generation: 1, IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	in = started(t, config, both)
	return in, func() *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/me", nil)
		r.Header.Set("Lanyard-Key", sharedClientKey)
		r.Header.Set("Connection-Id", c.ID)
		return in.serve("lanyard_proxy", r)
	}
}

func TestDatabaseGoes(t *testing.T) {
	db := pgtest.New(t)
	dsn := db.Database(t)
	in, call := servedFrom(t, dsn)
	ready := func() int { return in.api(http.MethodGet, "/v1/health/ready", "", "").Code }
	for range 5 { // what was written just now may have to be read more than once
		if w := call(); w.Code != http.StatusOK || w.Body.String() != "Bearer at-1" || ready() != http.StatusOK {
			t.Fatalf("with the database: %d %s, ready %d", w.Code, w.Body, ready())
		}
	}
	if err := db.Stop(pgtest.Immediate); err != nil {
		t.Fatal(err)
	}
	if w := call(); w.Code != http.StatusOK || w.Body.String() != "Bearer at-1" {
		t.Errorf("a valid token without the database: %d %s", w.Code, w.Body)
	}
	if code := ready(); code != http.StatusServiceUnavailable {
		t.Errorf("ready without the database: %d", code)
	}
	if w := in.api(http.MethodGet, "/v1/health/live", "", ""); w.Code != http.StatusOK {
		t.Errorf("live without the database: %d", w.Code)
	}
	w := in.api(http.MethodGet, "/v1/connections", sharedAPIKey, "")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Lanyard-Error") != "store_unavailable" {
		t.Errorf("a list without the database: %d %s", w.Code, w.Body)
	}
	if err := db.Start(); err != nil {
		t.Fatal(err)
	}
	for ends := time.Now().Add(time.Minute); ready() != http.StatusOK; {
		if time.Now().After(ends) {
			t.Fatal("it is not ready with the database that is back")
		}
	}
	if w := call(); w.Code != http.StatusOK {
		t.Errorf("with the database that is back: %d %s", w.Code, w.Body)
	}
	in.keeps(dsn, w.Body.String())
}

// A database that starts later than Lanyard is waited for.
func TestDatabaseComes(t *testing.T) {
	db := pgtest.New(t)
	dsn := db.Database(t)
	if err := db.Stop(pgtest.Fast); err != nil {
		t.Fatal(err)
	}
	in, err := provision(t, onDatabase(t, dsn, github), both)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- in.app.Start() }()
	for {
		log, _ := os.ReadFile(in.log)
		if strings.Contains(string(log), "database does not answer, trying again") {
			break
		}
		select {
		case err := <-result:
			t.Fatalf("Start() = %v without a database", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if w := in.serve("lanyard_api", health(ctx)); w.Header().Get("Lanyard-Error") != "store_unavailable" {
		t.Errorf("before the database is there: %d %s", w.Code, w.Body)
	}
	if err := db.Start(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Errorf("Start() = %v", err)
	}
	in.keeps(dsn)
}

func TestDoctorOfADatabase(t *testing.T) {
	db := pgtest.New(t)
	dsn := db.Database(t)
	config := onDatabase(t, dsn, github)
	examine := func(url string, args ...string) (texts map[string]string, all string) {
		t.Helper()
		t.Setenv("DATABASE_URL", url)
		file := filepath.Join(t.TempDir(), "caddy.json")
		if err := os.WriteFile(file, []byte(`{"apps": {"lanyard": `+config+`}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		r := examineFile(t, file, args...)
		texts = map[string]string{}
		for _, f := range r.Findings {
			texts[f.Check] += f.Level + ": " + f.Text
		}
		b, err := json.Marshal(r)
		if err != nil || strings.Contains(string(b), password(t, dsn)) {
			t.Errorf("the doctor tells the password: %s", b)
		}
		return texts, string(b)
	}
	has := func(texts map[string]string, check, want string) {
		t.Helper()
		if !strings.Contains(texts[check], want) {
			t.Errorf("%s is %q, want %q; all: %v", check, texts[check], want, texts)
		}
	}
	texts, _ := examine(dsn)
	has(texts, "store", "ok: postgres "+db.Addr())
	has(texts, "store", "PostgreSQL 15")
	has(texts, "store", "the first start makes its tables")
	has(texts, "database_replication", "info: ")
	has(texts, "keyset", "ok: ")
	started(t, config, both).end()
	texts, _ = examine(dsn)
	if strings.Contains(texts["store"], "makes its tables") || texts["database_pooled"] != "" || texts["database_unreachable"] != "" {
		t.Errorf("of a store that is there: %v", texts)
	}
	texts, _ = examine(pgtest.PgBouncer(t, dsn))
	has(texts, "database_pooled", "info: ")
	if _, err := db.SQL("alter role lanyard in database " + dsn[strings.LastIndex(dsn, "/")+1:strings.IndexAny(dsn+"?", "?")] + " set default_transaction_read_only = on"); err != nil {
		t.Fatal(err)
	}
	texts, _ = examine(dsn)
	has(texts, "database_read_only", "problem: ")
	texts, _ = examine(strings.Replace(dsn, db.Addr(), "127.0.0.1:1", 1))
	has(texts, "database_unreachable", "problem: ")
	texts, all := examine(strings.Replace(dsn, db.Addr(), "127.0.0.1:1", 1), "--offline")
	has(texts, "store", "ok: ")
	if strings.Contains(all, "unreachable") {
		t.Errorf("offline, the database was asked: %s", all)
	}
}
