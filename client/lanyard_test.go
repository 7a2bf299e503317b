package client_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-proxy/lanyard/client"
)

// here is the Lanyard that tests and examples use: a real one where the
// environment says so, as Lanyard's own tests do, else a stand-in.
var here struct {
	config      client.Config
	real        bool
	redirectURL string
	apiURL      string // of the provider of the integrations fake and keyed
	key         string // that this provider takes
	browser     string // answers a POST of a link with where the browser is then
	socket      string // the API and the proxy, by unix://
}

func TestMain(m *testing.M) {
	if here.real = os.Getenv("LANYARD_TEST_API_URL") != ""; here.real {
		here.config = client.Config{
			PublicURL: os.Getenv("LANYARD_TEST_PUBLIC_URL"), APIURL: os.Getenv("LANYARD_TEST_API_URL"),
			APIKey: os.Getenv("LANYARD_API_KEY"), ClientKey: os.Getenv("LANYARD_CLIENT_KEY"),
		}
		here.redirectURL, here.apiURL = os.Getenv("LANYARD_TEST_REDIRECT_URL"), os.Getenv("LANYARD_TEST_PROVIDER_API")
		here.key, here.browser = os.Getenv("LANYARD_TEST_KEY"), os.Getenv("LANYARD_TEST_BROWSER")
		here.socket = os.Getenv("LANYARD_TEST_SOCKET")
		os.Exit(m.Run())
	}
	s := &standIn{connections: map[string]*client.Connection{}}
	srv := httptest.NewServer(s)
	here.config = client.Config{PublicURL: srv.URL, APIURL: srv.URL, APIKey: testKey, ClientKey: clientKey}
	here.redirectURL, here.apiURL = "https://app.example.com/connected", "https://api.example.com"
	here.key, here.browser = "key", srv.URL+"/browser"
	code := m.Run()
	srv.Close()
	os.Exit(code)
}

// open opens a link in a browser whose user consents, and returns the request
// with which the app is called then.
func open(link string) *http.Request {
	res, err := http.Post(here.browser, "text/plain", strings.NewReader(link))
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	back, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		log.Fatalf("the browser: %v, HTTP %d: %s", err, res.StatusCode, back)
	}
	return httptest.NewRequest(http.MethodGet, string(back), nil)
}

// standIn does what the examples need of Lanyard and of a provider.
type standIn struct {
	mu          sync.Mutex
	connections map[string]*client.Connection // guarded by mu
}

// ServeHTTP implements http.Handler.
func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch id, ok := strings.CutPrefix(r.URL.Path, "/v1/connections/"); {
	case r.URL.Path == "/browser":
		s.browse(w, r)
	case r.Header.Get("Lanyard-Key") == clientKey && r.Header.Get("Authorization") == "" && r.URL.Path == "/me":
		_, _ = io.WriteString(w, `{"name": "Ada Lovelace"}`)
	case r.Header.Get("Authorization") != "Bearer "+testKey:
		problem(401, "key_required", "")(w, r)
	case r.URL.Path == "/v1/providers":
		_, _ = io.WriteString(w, `{"providers": [{"name": "fake", "api_url": "https://api.example.com"}]}`)
	case r.URL.Path == "/v1/connections" && r.Method == http.MethodPost:
		var in struct {
			Integration, Name string
			UserID            string `json:"user_id"`
			Labels            map[string]string
			Credentials       map[string]string
		}
		_ = json.NewDecoder(r.Body).Decode(&in)
		c := s.add(in.Integration, in.UserID)
		c.Name, c.Labels = in.Name, in.Labels
		if in.Credentials["api_key"] == here.key {
			c.Status, c.AuthScheme = client.Active, "API_KEY"
		}
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(c)
	case r.URL.Path == "/v1/connections":
		var list []*client.Connection
		for _, c := range s.connections {
			if user := r.URL.Query().Get("user_id"); user == "" || c.UserID == user {
				list = append(list, c)
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"connections": list, "next_cursor": nil})
	case ok:
		id = strings.TrimSuffix(id, "/complete")
		c := s.connections[id]
		if c == nil {
			problem(404, "connection_not_found", "")(w, r)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/complete") {
			c.Status = client.Active
		}
		_ = json.NewEncoder(w).Encode(c)
	default:
		problem(404, "not_found", "")(w, r)
	}
}

func (s *standIn) add(integration, userID string) *client.Connection {
	c := &client.Connection{
		ID: fmt.Sprintf("conn_%d", len(s.connections)+1), Integration: integration, Provider: "fake", UserID: cmp.Or(userID, "default"),
		Status: client.Initiated, AuthScheme: "OAUTH2", Scopes: client.Scopes{Granted: []string{"read"}},
	}
	s.connections[c.ID] = c
	return c
}

// browse takes a connect link and says where the browser is then.
func (s *standIn) browse(w http.ResponseWriter, r *http.Request) {
	link, _ := io.ReadAll(r.Body)
	u, _ := url.Parse(string(link))
	q := u.Query()
	c := s.connections[q.Get("connection_id")]
	if c == nil {
		c = s.add(q.Get("integration"), q.Get("user_id"))
	}
	for scope := range strings.FieldsSeq(q.Get("scopes")) {
		if !slices.Contains(c.Scopes.Granted, scope) {
			c.Scopes.Granted = append(c.Scopes.Granted, scope)
		}
	}
	back := url.Values{"connection_id": {c.ID}, "completion_code": {"code"}, "state": {q.Get("state")}}
	_, _ = io.WriteString(w, q.Get("redirect_url")+"?"+back.Encode())
}
