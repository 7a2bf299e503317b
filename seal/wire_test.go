package seal_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

func TestNoteRoundTrip(t *testing.T) {
	_, ks := generate(t)
	for name, want := range map[string]tokenstore.Note{
		"every field set":    storetest.FullNote(),
		"zero":               {},
		"text is any octets": {Text: secret.New("\xff\x00 \u2028")},
	} {
		t.Run(name, func(t *testing.T) {
			sealed, err := ks.SealNote(&want, ad)
			if err != nil {
				t.Fatalf("SealNote = %v", err)
			}
			got, err := ks.OpenNote(sealed, ad)
			if err != nil {
				t.Fatalf("OpenNote = %v", err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the note came back changed (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRecordOfBefore opens records as the release before accounts, metadata and
// notes wrote them, field for field.
func TestRecordOfBefore(t *testing.T) {
	text, err := os.ReadFile("testdata/record_before_accounts.json")
	if err != nil {
		t.Fatal(err)
	}
	keys, ks := generate(t)
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(keys)))
	if err != nil {
		t.Fatal(err)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := primitive.Encrypt(append([]byte{1}, bytes.TrimSpace(text)...), ad)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ks.OpenConnection(sealed, ad)
	if err != nil {
		t.Fatalf("OpenConnection = %v", err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := tokenstore.Connection{
		ID: "conn_1", Integration: "github", Provider: "github", UserID: "user-1", Name: "Ada's",
		Labels: map[string]string{"env": "prod"}, Params: map[string]string{"shop": "acme"},
		Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2,
		RequestedScopes: []string{"read", "write"}, RedirectURL: "https://app.example/done",
		CreatedAt: at, UpdatedAt: at, ConnectedAt: at, LastFlow: "flow",
		Token: tokenstore.Token{
			AccessToken: secret.New("access"), RefreshToken: secret.New("refresh"), TokenType: "bearer",
			IssuedAt: at, ExpiresAt: at.Add(time.Hour), Scopes: []string{"read"}, Generation: 3,
		},
		Staged: &tokenstore.Staged{
			Token: tokenstore.Token{AccessToken: secret.New("staged")}, FlowID: "flow", CodeHash: "hash", Until: at.Add(time.Minute),
		},
		Revision: 7,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the record of before (-want +got):\n%s", diff)
	}
	// What has none of the new fields is written as it was.
	again, err := ks.SealConnection(&got, ad)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := primitive.Decrypt(again, ad); err != nil || !bytes.Equal(plain[1:], bytes.TrimSpace(text)) {
		t.Errorf("it is written as %s, %v", plain, err)
	}
}

// openText opens a connection whose record has this text.
func openText(t *testing.T, text string) (tokenstore.Connection, error) {
	t.Helper()
	keys, ks := generate(t)
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(keys)))
	if err != nil {
		t.Fatal(err)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := primitive.Encrypt(append([]byte{1}, text...), ad)
	if err != nil {
		t.Fatal(err)
	}
	return ks.OpenConnection(sealed, ad)
}
