package client_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/client"
)

const testKey = "test-key-0123456789abcdef0123456789abcdef"

func newClient(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestSignatureVectors compares with the vectors that Lanyard itself is tested
// with, byte for byte.
func TestSignatureVectors(t *testing.T) {
	b, err := os.ReadFile("../connect/testdata/link_vectors.json")
	if os.IsNotExist(err) && os.Getenv("CI") != "true" { // a copy of this module alone
		t.Skip("not in Lanyard's repository")
	}
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Query, Signature string
		PublicURL              string `json:"public_url"`
		APIKey                 string `json:"api_key"`
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for _, v := range vectors {
		c := newClient(t, client.Config{PublicURL: v.PublicURL, APIKey: v.APIKey})
		endpoint := strings.TrimRight(v.PublicURL, "/") + "/connect"
		if got, want := c.Signed(endpoint, v.Query), endpoint+"?"+v.Query+"&signature="+v.Signature; got != want {
			t.Errorf("%s:\n got %s\nwant %s", v.Name, got, want)
		}
	}
}

func TestCreateConnectURL(t *testing.T) {
	c := newClient(t, client.Config{PublicURL: "https://connect.example.com/auth/", APIKey: testKey})
	before := time.Now()
	link, err := c.CreateConnectURL(client.ConnectParams{
		UserID: "Zoë & co", Integration: "github", Scopes: []string{"read:user", "repo"},
		RedirectURL: "https://app.example.com/cb?x=1", State: "s/+=", ConnectionID: "conn_A", ConnectionName: "Work",
		Labels: map[string]string{"team": "red", "env": "prod=1"}, Params: map[string]string{"shop": "acme"},
		ResponseMode: client.ResponseFormPost,
	})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(link)
	if err != nil || !strings.HasPrefix(link, "https://connect.example.com/auth/connect?") {
		t.Fatalf("link %s, %v", link, err)
	}
	query, _, _ := strings.Cut(u.RawQuery, "&signature=")
	if got := c.Signed("https://connect.example.com/auth/connect", query); got != link {
		t.Errorf("the signature is not over what was sent:\n%s\n%s", link, got)
	}
	q := u.Query()
	var expires int64
	_, _ = fmt.Sscan(q.Get("expires"), &expires)
	if life := time.Unix(expires, 0).Sub(before); life < 14*time.Minute || life > 16*time.Minute {
		t.Errorf("the link lives %v", life)
	}
	q.Del("expires")
	q.Del("signature")
	want := url.Values{
		"user_id": {"Zoë & co"}, "integration": {"github"}, "scopes": {"read:user repo"},
		"redirect_url": {"https://app.example.com/cb?x=1"}, "state": {"s/+="}, "connection_id": {"conn_A"},
		"connection_name": {"Work"}, "labels": {"env=prod=1,team=red"}, "params": {"shop=acme"}, "response_mode": {"form_post"},
	}
	if q.Encode() != want.Encode() {
		t.Errorf("the link says %v, want %v", q, want)
	}
}

func TestLinksThatCantBe(t *testing.T) {
	whole := client.Config{PublicURL: "https://connect.example.com", APIKey: testKey}
	tests := []struct {
		name string
		cfg  client.Config
		p    client.ConnectParams
	}{
		{"no key", client.Config{PublicURL: "https://connect.example.com"}, client.ConnectParams{}},
		{"no public URL", client.Config{APIKey: testKey}, client.ConnectParams{}},
		{"expired", whole, client.ConnectParams{Expires: time.Now().Add(-time.Second)}},
		{"too long a life", whole, client.ConnectParams{Expires: time.Now().Add(25 * time.Hour)}},
		{"a comma in a label", whole, client.ConnectParams{Labels: map[string]string{"a": "b,c=d"}}},
		{"a label's name", whole, client.ConnectParams{Labels: map[string]string{"a=b": "c"}}},
		{"a comma in a parameter", whole, client.ConnectParams{Params: map[string]string{"shop": "a,b"}}},
		{"metadata", whole, client.ConnectParams{Metadata: json.RawMessage(`{}`)}},
	}
	for _, tt := range tests {
		if link, err := newClient(t, tt.cfg).CreateConnectURL(tt.p); err == nil {
			t.Errorf("%s: %s", tt.name, link)
		}
	}
	if link, err := newClient(t, whole).ConnectionsURL("", ""); err == nil {
		t.Errorf("a connections link for nobody: %s", link)
	}
}

func TestConfigsThatCantBe(t *testing.T) {
	for _, cfg := range []client.Config{
		{PublicURL: "connect.example.com"},
		{PublicURL: "https://connect.example.com/?x"},
		{APIURL: "localhost:9080"},
		{APIURL: "http://user@localhost"},
		{APIURL: "unix://relative"},
		{ProxyURL: "ftp://localhost"},
		{APIURL: "http://localhost#x"},
	} {
		if _, err := client.New(cfg); err == nil {
			t.Errorf("New(%v) took it", cfg)
		}
	}
}

// TestKeysArePrintedNowhere: a Client, a Config and what is imported end up in
// logs sooner or later.
func TestKeysArePrintedNowhere(t *testing.T) {
	cfg := client.Config{PublicURL: "https://connect.example.com", APIKey: "the-secret-1", ClientKey: "the-secret-2"}
	c := newClient(t, cfg)
	in := client.ImportParams{AccessToken: "the-secret-3", RefreshToken: "the-secret-4", Credentials: map[string]string{"api_key": "the-secret-5"}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q", "%x"} {
		if text := fmt.Sprintf(verb, cfg) + fmt.Sprintf(verb, &cfg) + fmt.Sprintf(verb, c) + fmt.Sprintf(verb, *c.HTTPClient("conn_A")) +
			fmt.Sprintf(verb, in); strings.Contains(text, "the-secret") || strings.Contains(text, "7468652d7365637265742d") {
			t.Errorf("%s prints a key: %s", verb, text)
		}
	}
}
