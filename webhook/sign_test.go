package webhook_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
	"github.com/lanyard-proxy/lanyard/webhook"
)

func key(t *testing.T, text string) secret.String {
	t.Helper()
	k, err := webhook.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestVector is the example of the specification's own libraries.
func TestVector(t *testing.T) {
	k := key(t, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	at := time.Unix(1614265330, 0)
	body := []byte(`{"test": 2432232314}`)
	right := func() http.Header {
		return http.Header{
			"Webhook-Id": {"msg_p5jXN8AQM9LWM0D4loKWxJek"}, "Webhook-Timestamp": {"1614265330"},
			"Webhook-Signature": {"v1,bm90IGl0 v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
		}
	}
	if err := webhook.Verify(k, right(), body, at.Add(4*time.Minute)); err != nil {
		t.Errorf("Verify() = %v", err)
	}
	for name, spoil := range map[string]func(h http.Header){
		"another id":        func(h http.Header) { h.Set("Webhook-Id", "msg_other") },
		"another timestamp": func(h http.Header) { h.Set("Webhook-Timestamp", "1614265331") },
		"an old timestamp":  func(h http.Header) { h.Set("Webhook-Timestamp", "1614264000") },
		"no timestamp":      func(h http.Header) { h.Del("Webhook-Timestamp") },
		"no signature":      func(h http.Header) { h.Del("Webhook-Signature") },
	} {
		h := right()
		spoil(h)
		if webhook.Verify(k, h, body, at) == nil {
			t.Errorf("%s: Verify() = nil", name)
		}
	}
	if webhook.Verify(k, right(), []byte(`{"test": 1}`), at) == nil {
		t.Error("another body: Verify() = nil")
	}
}

// TestNewSecret: while a secret is exchanged each of the two verifies what is
// sent, and then the new one alone.
func TestNewSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		oldKey, newKey := key(t, hookSecret), key(t, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
		a := &app{t: t, store: memstore.New()}
		var got string
		s := webhook.New(webhook.Config{
			Store:  a.store,
			Encode: func(tokenstore.Event) ([]byte, error) { return []byte(`{}`), nil },
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return nil, err
				}
				got = ""
				for sig := range strings.FieldsSeq(r.Header.Get("Webhook-Signature")) {
					for name, key := range map[string]secret.String{"old": oldKey, "new": newKey} {
						h := r.Header.Clone()
						h.Set("Webhook-Signature", sig)
						if webhook.Verify(key, h, body, time.Now()) == nil {
							got += name + " "
						}
					}
				}
				return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
			}),
		})
		defer s.Close()
		for _, tt := range []struct {
			keys []secret.String
			want string
		}{
			{[]secret.String{oldKey}, "old "},
			{[]secret.String{newKey, oldKey}, "new old "},
			{[]secret.String{newKey}, "new "},
		} {
			s.Use([]webhook.Endpoint{{URL: hookURL, Secrets: tt.keys}})
			a.happens(tokenstore.EventActive, "c1")
			time.Sleep(time.Minute)
			synctest.Wait()
			if got != tt.want {
				t.Errorf("signed by %q, want %q", got, tt.want)
			}
		}
	})
}

func TestParseSecret(t *testing.T) {
	for _, text := range []string{
		"", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8I", "whsec_not base64!",
		"whsec_" + strings.Repeat("QUJD", 22),
	} {
		_, err := webhook.ParseSecret(text)
		if err == nil {
			t.Errorf("ParseSecret(%q) = nil", text)
		} else if len(text) > 6 && strings.Contains(err.Error(), text[6:]) {
			t.Errorf("the error has the secret in it: %v", err)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://app.example.com/hooks?a=b": true, "https://10.0.0.7:8443/": true, "http://localhost:3000/h": true,
		"http://127.0.0.1/": true, "http://[::1]:8080/": true,
		"http://app.example.com/": false, "http://10.0.0.7/": false, "ftp://localhost/": false, "/hooks": false,
		"https://user:password@app.example.com/": false, "https://": false, "https:app": false, "https://a/#f": false, "%": false,
	} {
		err := webhook.CheckURL(url)
		if (err == nil) != ok {
			t.Errorf("CheckURL(%q) = %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "user:") {
			t.Errorf("the error has the URL in it: %v", err)
		}
	}
}
