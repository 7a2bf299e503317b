package seal_test

import (
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// typical returns a connection as most are: with an access token of 1 KB, as a
// JWT has, a refresh token and two scopes.
func typical() tokenstore.Connection {
	now := time.Now().UTC().Round(0)
	return tokenstore.Connection{
		ID: "conn_1", Integration: "github", Provider: "github", UserID: "user-1", Name: "Acme's GitHub",
		Labels: map[string]string{"plan": "pro"}, Account: tokenstore.Account{ID: "4711", Name: "Ada", Email: "ada@example.com"},
		Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2,
		RequestedScopes: []string{"read:user", "repo"}, RedirectURL: "https://app.example.com/connected",
		CreatedAt: now, UpdatedAt: now, ConnectedAt: now, LastUsedAt: now, LastRefreshedAt: now,
		Token: tokenstore.Token{
			AccessToken: secret.New(strings.Repeat("a", 1024)), RefreshToken: secret.New(strings.Repeat("r", 64)),
			TokenType: "Bearer", IssuedAt: now, ExpiresAt: now.Add(time.Hour), Scopes: []string{"read:user", "repo"}, Generation: 7,
		},
		Revision: 7,
	}
}

// benchKeys returns a new keyset and its text.
func benchKeys(b *testing.B) (*seal.Keyset, []byte) {
	b.Helper()
	text, err := seal.Generate()
	if err != nil {
		b.Fatal(err)
	}
	ks, err := seal.Parse(text)
	if err != nil {
		b.Fatal(err)
	}
	return ks, text
}

// BenchmarkParse is the cost of setting the keys up, once for each start.
func BenchmarkParse(b *testing.B) {
	_, text := benchKeys(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := seal.Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSealConnection is the sealing's part in writing a connection.
func BenchmarkSealConnection(b *testing.B) {
	ks, _ := benchKeys(b)
	c := typical()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ks.SealConnection(&c, ad); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenConnection is the sealing's part in reading a connection.
func BenchmarkOpenConnection(b *testing.B) {
	ks, _ := benchKeys(b)
	c := typical()
	sealed, err := ks.SealConnection(&c, ad)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ks.OpenConnection(sealed, ad); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSealBytes and BenchmarkOpenBytes are what of that is encryption: 1 KB
// as it stands.
func BenchmarkSealBytes(b *testing.B) {
	ks, _ := benchKeys(b)
	plain := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ks.SealBytes(plain, ad); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenBytes(b *testing.B) {
	ks, _ := benchKeys(b)
	sealed, err := ks.SealBytes(make([]byte, 1024), ad)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ks.OpenBytes(sealed, ad); err != nil {
			b.Fatal(err)
		}
	}
}
