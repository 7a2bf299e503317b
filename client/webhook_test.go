package client_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/client"
)

func TestVerifyWebhook(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // of Standard Webhooks' own example
	const id, at, body = "msg_1", "1614265330", `{"type":"x","data":{"seq":1,"type":"connection.active"}}`
	now := time.Unix(1614265330, 0)
	sign := func(secret, id, at, body string) string {
		key, _ := base64.StdEncoding.DecodeString(secret[len("whsec_"):])
		h := hmac.New(sha256.New, key)
		_, _ = h.Write([]byte(id + "." + at + "." + body))
		return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	good := sign(secret, id, at, body)
	tests := []struct {
		name, secret, id, at, sig, body string
		now                             time.Time
		ok                              bool
	}{
		{"good", secret, id, at, good, body, now, true},
		{"one of several", secret, id, at, "v1a,xx v1,AAAA " + good, body, now, true},
		{"four minutes old", secret, id, at, good, body, now.Add(4 * time.Minute), true},
		{"six minutes old", secret, id, at, good, body, now.Add(6 * time.Minute), false},
		{"six minutes ahead", secret, id, at, good, body, now.Add(-6 * time.Minute), false},
		{"another body", secret, id, at, good, body + " ", now, false},
		{"another id", secret, "msg_2", at, good, body, now, false},
		{"another time", secret, id, "1614265331", good, body, now, false},
		{"another secret", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", id, at, good, body, now, false},
		{"another version", secret, id, at, "v2" + good[2:], body, now, false},
		{"no signature", secret, id, at, "", body, now, false},
		{"no time", secret, id, "", good, body, now, false},
		{"no secret", "whsec_", id, at, sign("whsec_", id, at, body), body, now, false},
		{"not a secret", "secret", id, at, good, body, now, false},
	}
	for _, tt := range tests {
		h := http.Header{"Webhook-Id": {tt.id}, "Webhook-Timestamp": {tt.at}, "Webhook-Signature": {tt.sig}}
		e, err := client.VerifyWebhook(tt.secret, h, []byte(tt.body), tt.now)
		if (err == nil) != tt.ok || tt.ok && e.Type != "connection.active" || !tt.ok && e != nil {
			t.Errorf("%s: %v, %v", tt.name, e, err)
		}
	}
	h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {at}, "Webhook-Signature": {good}}
	if _, err := client.VerifyWebhook(secret, h, []byte("x"), now); !errors.Is(err, client.ErrWebhook) {
		t.Errorf("a wrong signature is %v", err)
	}
}
