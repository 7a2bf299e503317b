package seal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

var ad = tokenstore.AssociatedData("store", "epoch", tokenstore.KindConnection, "conn_1", 7)

func generate(t *testing.T) ([]byte, *seal.Keyset) {
	t.Helper()
	text, err := seal.Generate()
	if err != nil {
		t.Fatalf("Generate = %v", err)
	}
	ks, err := seal.Parse(text)
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	return text, ks
}

func TestConnectionRoundTrip(t *testing.T) {
	_, ks := generate(t)
	zoned := storetest.FullConnection()
	zoned.CreatedAt = time.Now().In(time.FixedZone("here", 3600)) // with a monotonic reading
	for name, want := range map[string]tokenstore.Connection{
		"every field set": storetest.FullConnection(),
		"zero":            {},
		"empty, not nil": {
			Labels: map[string]string{}, RequestedScopes: []string{},
			Intent: &tokenstore.Intent{Answer: &tokenstore.Answer{}}, Staged: &tokenstore.Staged{},
		},
		"another zone": zoned,
		"odd texts":    {Name: "<&\u2028\ufffd\\ufffd\"", UserID: "\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			sealed, err := ks.SealConnection(&want, ad)
			if err != nil {
				t.Fatalf("SealConnection = %v", err)
			}
			got, err := ks.OpenConnection(sealed, ad)
			if err != nil {
				t.Fatalf("OpenConnection = %v", err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the connection came back changed (-want +got):\n%s", diff)
			}
			if got.CreatedAt.Location() != time.UTC {
				t.Errorf("CreatedAt came back in zone %v, want UTC", got.CreatedAt.Location())
			}
			if want.ConnectedAt.IsZero() != got.ConnectedAt.IsZero() {
				t.Errorf("ConnectedAt = %v, want %v", got.ConnectedAt, want.ConnectedAt)
			}
		})
	}
}

func TestFlowRoundTrip(t *testing.T) {
	_, ks := generate(t)
	for name, want := range map[string]tokenstore.Flow{
		"every field set":      storetest.FullFlow(),
		"zero":                 {},
		"state is any octets":  {AppState: "\xff\x00 \u2028"},
		"answer is any octets": {Answer: &tokenstore.Answer{ContentType: "\xfe", RetryAfter: "\xfd", Body: secret.New("\xfc")}},
	} {
		t.Run(name, func(t *testing.T) {
			sealed, err := ks.SealFlow(&want, ad)
			if err != nil {
				t.Fatalf("SealFlow = %v", err)
			}
			got, err := ks.OpenFlow(sealed, ad)
			if err != nil {
				t.Fatalf("OpenFlow = %v", err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the flow came back changed (-want +got):\n%s", diff)
			}
		})
	}
	// What a callback told must not keep the answer from being stored.
	told := tokenstore.Flow{Answer: &tokenstore.Answer{Callback: map[string]string{"scope": "read\xff"}}}
	sealed, err := ks.SealFlow(&told, ad)
	if err != nil {
		t.Fatalf("SealFlow of a callback that is not UTF-8 = %v", err)
	}
	if got, err := ks.OpenFlow(sealed, ad); err != nil || got.Answer.Callback["scope"] != "read\ufffd" {
		t.Errorf("OpenFlow = %+v, %v", got, err)
	}
}

func TestEventRoundTrip(t *testing.T) {
	_, ks := generate(t)
	for name, want := range map[string]tokenstore.Event{
		"every field set": storetest.FullEvent(),
		"zero":            {},
		"odd texts":       {Reason: "<&\u2028\ufffd\\ufffd\"", UserID: "\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			sealed, err := ks.SealEvent(&want, ad)
			if err != nil {
				t.Fatalf("SealEvent = %v", err)
			}
			got, err := ks.OpenEvent(sealed, ad)
			if err != nil {
				t.Fatalf("OpenEvent = %v", err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the event came back changed (-want +got):\n%s", diff)
			}
		})
	}
	// Whatever somebody calls itself, what it did is written.
	e := tokenstore.Event{Type: "t\xff", ConnectionID: "c\xff", Reason: "r\xff", Actor: tokenstore.Actor{Name: "n\xff", From: "f\xff"}}
	sealed, err := ks.SealEvent(&e, ad)
	if err != nil {
		t.Fatalf("SealEvent of texts that aren't UTF-8 = %v", err)
	}
	want := tokenstore.Event{Type: "t\ufffd", ConnectionID: "c\ufffd", Reason: "r\ufffd", Actor: tokenstore.Actor{Name: "n\ufffd", From: "f\ufffd"}}
	if got, err := ks.OpenEvent(sealed, ad); err != nil || got != want {
		t.Errorf("OpenEvent = %+v, %v; want %+v", got, err, want)
	}
}

func TestNotUTF8(t *testing.T) {
	_, ks := generate(t)
	c := tokenstore.Connection{UserID: "user-\xff"}
	if _, err := ks.SealConnection(&c, ad); err == nil || strings.Contains(err.Error(), "user-") {
		t.Errorf("SealConnection of a user ID that is not UTF-8 = %v, want an error that doesn't quote it", err)
	}
	// What a provider wrote must not keep its token from being stored.
	c = tokenstore.Connection{Token: tokenstore.Token{
		AccessToken: secret.New("\xff"), TokenType: "b\xff", Scopes: []string{"s\xff"}, Metadata: map[string]string{"k\xff": "v\xff"},
	}, Account: tokenstore.Account{ID: "i\xff", Name: "n\xff", Email: "e\xff"}}
	c.Stage(tokenstore.Staged{Account: c.Account})
	sealed, err := ks.SealConnection(&c, ad)
	if err != nil {
		t.Fatalf("SealConnection = %v", err)
	}
	got, err := ks.OpenConnection(sealed, ad)
	if err != nil || !got.Token.AccessToken.Equal(c.Token.AccessToken) || got.Token.Scopes[0] != "s\ufffd" {
		t.Errorf("OpenConnection = %q, %v; want the token as it was and a readable scope", got.Token.Scopes, err)
	}
	want := tokenstore.Account{ID: "i\ufffd", Name: "n\ufffd", Email: "e\ufffd"}
	if got.Account != want || got.Staged.Account != want {
		t.Errorf("OpenConnection = accounts %q and %q, want %q", got.Account, got.Staged.Account, want)
	}
	if c.Account.ID != "i\xff" || c.Token.Scopes[0] != "s\xff" || c.Token.Metadata["k\xff"] != "v\xff" {
		t.Error("sealing changed the record it was given")
	}
}

func TestNothingInClear(t *testing.T) {
	keys, ks := generate(t)
	c, f, e, n := storetest.FullConnection(), storetest.FullFlow(), storetest.FullEvent(), storetest.FullNote()
	sealedConnection, err1 := ks.SealConnection(&c, ad)
	sealedFlow, err2 := ks.SealFlow(&f, ad)
	sealedEvent, err3 := ks.SealEvent(&e, ad)
	sealedBytes, err4 := ks.SealBytes([]byte(storetest.Canary), ad)
	sealedNote, err5 := ks.SealNote(&n, ad)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	for _, sealed := range [][]byte{sealedConnection, sealedFlow, sealedEvent, sealedNote, sealedBytes} {
		for _, word := range []string{storetest.Canary, "access_token", "conn_", "Y2FuYXJ5"} { // the last is base64
			if bytes.Contains(sealed, []byte(word)) {
				t.Errorf("sealed bytes contain %q", word)
			}
		}
	}
	if out := fmt.Sprintf("%v %+v %#v", ks, ks, ks); strings.Contains(out, "canary") || bytes.Contains(keys, []byte(out)) {
		t.Errorf("a keyset prints as %s", out)
	}
}

func TestOpenRefuses(t *testing.T) {
	_, ks := generate(t)
	_, other := generate(t)
	c, f := storetest.FullConnection(), storetest.FullFlow()
	sealed, _ := ks.SealConnection(&c, ad)
	sealedFlow, _ := ks.SealFlow(&f, ad)
	e := storetest.FullEvent()
	sealedEvent, _ := ks.SealEvent(&e, ad)
	n := storetest.FullNote()
	sealedNote, _ := ks.SealNote(&n, ad)
	foreign, _ := ks.SealBytes([]byte(`{"id":"conn_1"}`), ad)
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)/2] ^= 1
	for name, open := range map[string]func() error{
		"another key":           func() error { _, err := other.OpenConnection(sealed, ad); return err },
		"other associated data": func() error { _, err := ks.OpenConnection(sealed, append(ad, 0)); return err },
		"a flipped bit":         func() error { _, err := ks.OpenConnection(flipped, ad); return err },
		"cut short":             func() error { _, err := ks.OpenConnection(sealed[:len(sealed)-1], ad); return err },
		"nothing":               func() error { _, err := ks.OpenConnection(nil, ad); return err },
		"another format":        func() error { _, err := ks.OpenConnection(foreign, ad); return err },
		"a record as bytes":     func() error { _, err := ks.OpenBytes(sealed, ad); return err },
		"another key, flow":     func() error { _, err := other.OpenFlow(sealedFlow, ad); return err },
		"another key, event":    func() error { _, err := other.OpenEvent(sealedEvent, ad); return err },
		"another place, event":  func() error { _, err := ks.OpenEvent(sealedEvent, nil); return err },
		"another key, note":     func() error { _, err := other.OpenNote(sealedNote, ad); return err },
		"another place, note":   func() error { _, err := ks.OpenNote(sealedNote, nil); return err },
		"another key, bytes":    func() error { _, err := other.OpenBytes(foreign, ad); return err },
	} {
		if err := open(); !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("%s: open = %v, want ErrCorrupt", name, err)
		}
	}
}

// TestFormats seals by hand what a later or broken version could have written.
func TestFormats(t *testing.T) {
	text, ks := generate(t)
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		inside string
		want   error
	}{
		"as today":                  {"\x01" + `{"id":"conn_1"}`, nil},
		"with a field of the next":  {"\x01" + `{"id":"conn_1","new":1}`, nil},
		"a later format":            {"\x03" + `{"id":"conn_1"}`, tokenstore.ErrCorrupt},
		"empty":                     {"", tokenstore.ErrCorrupt},
		"not JSON":                  {"\x01canary", tokenstore.ErrCorrupt},
		"a field of the wrong kind": {"\x01" + `{"id":["canary"]}`, tokenstore.ErrCorrupt},
	} {
		sealed, err := primitive.Encrypt([]byte(tc.inside), ad)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ks.OpenConnection(sealed, ad)
		if !errors.Is(err, tc.want) || (err == nil && c.ID != "conn_1") {
			t.Errorf("%s: OpenConnection = %q, %v; want %v", name, c.ID, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), storetest.Canary) {
			t.Errorf("%s: the error quotes the record: %v", name, err)
		}
	}
}

func TestParse(t *testing.T) {
	good, _ := generate(t)
	change := func(from, to string) string { return strings.Replace(string(good), from, to, 1) }
	var fields map[string]any
	if err := json.Unmarshal(good, &fields); err != nil {
		t.Fatalf("Generate made no JSON: %v", err)
	}
	handle, err := keyset.NewHandle(mac.HMACSHA256Tag256KeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var macKeys bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&macKeys)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"as generated":   {string(good), ""},
		"with blanks":    {"\n " + string(good) + "\n", ""},
		"empty":          {"", "empty"},
		"blank":          {" \n", "empty"},
		"not JSON":       {"canary", "not JSON"},
		"cut short":      {string(good[:len(good)/2]), "not JSON"},
		"other JSON":     {`{"key":"canary"}`, "not a Tink keyset"},
		"no keys":        {`{"primaryKeyId":1,"key":[]}`, "not a Tink keyset"},
		"encrypted":      {`{"encryptedKeyset":"Y2FuYXJ5"}`, "not a Tink keyset"},
		"no primary":     {change(`"primaryKeyId":`, `"primaryKeyId":1, "x":`), "not a Tink keyset"},
		"other primary":  {fmt.Sprintf(`{"primaryKeyId":1,"key":%s}`, mustJSON(t, fields["key"])), "no enabled primary"},
		"disabled":       {change(`"ENABLED"`, `"DISABLED"`), "no enabled primary"},
		"another kind":   {macKeys.String(), "not for authenticated encryption"},
		"unknown kind":   {change("AesGcmKey", "CanaryKey"), "not for authenticated encryption"},
		"key damaged":    {change(`"value":"`, `"value":"AAAA`), "can't be read"},
		"key of another": {change("AesGcmKey", "HmacKey"), "can't be read"},
	} {
		t.Run(name, func(t *testing.T) {
			ks, err := seal.Parse([]byte(tc.text))
			switch {
			case tc.want == "" && (err != nil || ks == nil):
				t.Errorf("Parse = %v, want a keyset", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("Parse = %v, want an error with %q", err, tc.want)
			}
			if err != nil && strings.Contains(strings.ToLower(err.Error()), storetest.Canary) {
				t.Errorf("the error quotes the keyset: %v", err)
			}
		})
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRotation: a keyset with a new primary still opens what the old one sealed.
func TestRotation(t *testing.T) {
	text, old := generate(t)
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	manager := keyset.NewManagerFromHandle(handle)
	id, err := manager.Add(aead.AES256GCMKeyTemplate())
	if err == nil {
		err = manager.SetPrimary(id)
	}
	if err != nil {
		t.Fatal(err)
	}
	if handle, err = manager.Handle(); err != nil {
		t.Fatal(err)
	}
	var rotatedText bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&rotatedText)); err != nil {
		t.Fatal(err)
	}
	rotated, err := seal.Parse(rotatedText.Bytes())
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	f := storetest.FullFlow()
	sealed, _ := old.SealFlow(&f, ad)
	if _, err := rotated.OpenFlow(sealed, ad); err != nil {
		t.Errorf("OpenFlow with the rotated keyset = %v", err)
	}
	sealed, _ = rotated.SealFlow(&f, ad)
	if _, err := old.OpenFlow(sealed, ad); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("OpenFlow of the new primary's with the old keyset = %v, want ErrCorrupt", err)
	}
}
