package provider_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestDevice(t *testing.T) {
	s, url := fake(t, nil)
	p := schemed(t, url, tokenstore.AuthOAuth2, `,"issuer":"BASE"`)
	begin := func() tokenstore.Device {
		t.Helper()
		d, err := p.Device(t.Context(), []string{"read"})
		if err != nil || d.Code.IsZero() || d.UserCode == "" || d.VerificationURI != url+"/device" ||
			!strings.HasPrefix(d.VerificationURIComplete, d.VerificationURI) || d.Life != 600 || d.Interval != 1 {
			t.Fatalf("Device() = %+v, %v", d, err)
		}
		return d
	}
	poll := func(d tokenstore.Device) (tokenstore.Token, string) {
		t.Helper()
		a, err := p.PollDevice(t.Context(), d.Code)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := p.Parse(a, tokenstore.Token{}, []string{"read"})
		noSecrets(t, err)
		refusal, ok := errors.AsType[*tokenstore.RefusalError](err)
		if !ok && err != nil || ok && refusal.Kind != tokenstore.RefusedForNow {
			t.Fatalf("Parse() = %v", err)
		}
		if ok {
			return tok, refusal.Code
		}
		return tok, ""
	}
	d := begin()
	if _, code := poll(d); code != "authorization_pending" {
		t.Errorf("poll = %q", code)
	}
	if _, code := poll(d); code != "slow_down" {
		t.Errorf("poll = %q", code)
	}
	d = begin()
	if !s.ApproveDevice(d.UserCode) {
		t.Fatal("nothing to approve")
	}
	if tok, code := poll(d); code != "" || tok.RefreshToken.IsZero() || strings.Join(tok.Scopes, " ") != "read" {
		t.Errorf("poll = %q, %+v", code, tok)
	}
	d = begin()
	s.DenyDevice(d.UserCode)
	if _, code := poll(d); code != "access_denied" {
		t.Errorf("poll = %q", code)
	}
	d = begin()
	s.ExpireDevices()
	if _, code := poll(d); code != "expired_token" {
		t.Errorf("poll = %q", code)
	}
	s.Faults.Device(fakeprovider.OAuthError(400, "invalid_scope"))
	_, err := p.Device(t.Context(), nil)
	if r, ok := errors.AsType[*tokenstore.RefusalError](err); !ok || r.Kind != tokenstore.RefusedScope {
		t.Errorf("Device() = %v", err)
	}
	without := schemed(t, url, tokenstore.AuthOAuth2, `,"authorize_url":"BASE/a","token_url":"BASE/t"`)
	if _, err := without.Device(t.Context(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Device() = %v; want ErrUnsupported", err)
	}
}

// What a device's user is sent to, and shown, is what it says it is.
func TestDeviceAnswers(t *testing.T) {
	for body, good := range map[string]bool{
		`{"device_code":"canary-d","user_code":"A-1","verification_url":"https://g.example/d","expires_in":"900"}`:                                                       true,
		`{"device_code":"canary-d","user_code":"A-1","verification_uri":"https://g.example/d","verification_uri_complete":"javascript:x","expires_in":900,"interval":9}`: true,
		`{"device_code":"canary-d","user_code":"A-1","verification_uri":"javascript:alert(1)","expires_in":900}`:                                                         false,
		`{"device_code":"canary-d","user_code":"A-1","verification_uri":"javascript://g.example/%0aalert(1)","expires_in":900}`:                                          false,
		`{"device_code":"canary-d","user_code":"A-1","verification_uri":"http://g.example/d","expires_in":900}`:                                                          false,
		`{"device_code":"canary-d","user_code":"A-1","verification_uri":"https://u:p@g.example/","expires_in":900}`:                                                      false,
		`{"device_code":"canary-d","user_code":"A\n1","verification_uri":"https://g.example/d","expires_in":900}`:                                                        false,
		`{"device_code":"canary-d","verification_uri":"https://g.example/d","expires_in":900}`:                                                                           false,
		`{"user_code":"A-1","verification_uri":"https://g.example/d","expires_in":900}`:                                                                                  false,
		`{"device_code":"canary-d","user_code":"A-1","verification_uri":"https://g.example/d"}`:                                                                          false,
		`<html>canary</html>`: false,
	} {
		l := newLedger(t, answering(200, "application/json", body))
		p := schemed(t, l.URL, tokenstore.AuthOAuth2, `,"authorize_url":"BASE/a","token_url":"BASE/t","device_url":"BASE/d"`)
		d, err := p.Device(t.Context(), nil)
		noSecrets(t, err)
		if good != (err == nil) || err != nil && !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
			t.Errorf("%s: Device() = %+v, %v", body, d, err)
		}
		if good && (d.Life != 900 || d.VerificationURIComplete != "" || d.Interval != 5 && d.Interval != 9) {
			t.Errorf("%s: Device() = %+v", body, d)
		}
	}
}
