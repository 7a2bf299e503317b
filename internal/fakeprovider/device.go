package fakeprovider

import (
	"crypto/rand"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	grantTypeDevice = "urn:ietf:params:oauth:grant-type:device_code"
	// deviceLife is how long a device code may be approved and redeemed.
	deviceLife = 10 * time.Minute
)

// endpointDevice is the device authorization endpoint.
const endpointDevice endpoint = "device"

// device is an authorization that waits on another device (RFC 8628).
type device struct {
	userCode string
	client   string
	scopes   []string
	grant    *grant // nil until it is approved
	denied   bool
	spent    bool
	expires  time.Time
	polled   time.Time
	interval time.Duration
}

// Device queues faults for requests to the device authorization endpoint.
func (q *Faults) Device(f ...Fault) { q.add(endpointDevice, f) }

// serveDevice is the device authorization endpoint (RFC 8628 section 3.1).
func (s *Server) serveDevice(w http.ResponseWriter, r *http.Request) {
	form, a, f := s.guarded(w, r, endpointDevice)
	if a != nil {
		f.send(w, *a)
		return
	}
	scopes, refusal := s.scopesAsked(form.Get("scope"), nil)
	if refusal != nil {
		Fault{}.send(w, refusal.answer())
		return
	}
	id, _, _ := clientCredentials(r, form)
	base := s.base(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	text := rand.Text()
	d := &device{
		userCode: text[:4] + "-" + text[4:8], client: id, scopes: scopes,
		expires: time.Now().Add(deviceLife), interval: s.cfg.DeviceInterval,
	}
	code := s.newSecret("dc")
	s.devices[code] = d
	f.send(w, f.answerFor(map[string]any{
		"device_code": code, "user_code": d.userCode, "verification_uri": base + "/device",
		"verification_uri_complete": base + "/device?user_code=" + url.QueryEscape(d.userCode),
		"expires_in":                int(deviceLife / time.Second), "interval": int(d.interval / time.Second),
	}))
}

// UserCodes returns the user codes that wait for an answer, sorted.
func (s *Server) UserCodes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var codes []string
	for _, d := range s.devices {
		if d.grant == nil && !d.denied && time.Now().Before(d.expires) {
			codes = append(codes, d.userCode)
		}
	}
	slices.Sort(codes)
	return codes
}

// ApproveDevice says yes to the device with this user code, as who is signed in.
// With scopes only these are granted. It reports whether one waits for it.
func (s *Server) ApproveDevice(userCode string, scopes ...string) bool {
	return s.answerDevice(userCode, func(d *device) {
		granted := d.scopes
		if len(scopes) > 0 {
			granted = scopes
		}
		d.grant = &grant{id: fmt.Sprintf("grant-%d", len(s.grants)+1), client: d.client, user: s.user, scopes: granted}
		s.grants = append(s.grants, d.grant)
	})
}

// DenyDevice says no to the device with this user code. It reports whether one
// waits for it.
func (s *Server) DenyDevice(userCode string) bool {
	return s.answerDevice(userCode, func(d *device) { d.denied = true })
}

// ExpireDevices ends the life of all device codes.
func (s *Server) ExpireDevices() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		d.expires = time.Now()
	}
}

// SlowDown answers the next n polls of devices with slow_down.
func (s *Server) SlowDown(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slowDowns = n
}

func (s *Server) answerDevice(userCode string, answer func(*device)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		if strings.EqualFold(d.userCode, userCode) && d.grant == nil && !d.denied && time.Now().Before(d.expires) {
			answer(d)
			return true
		}
	}
	return false
}

// redeemDevice answers the grant of RFC 8628 section 3.4.
func (s *Server) redeemDevice(client string, form url.Values, cut []string) (map[string]any, *oauthError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices[form.Get("device_code")]
	now := time.Now()
	if !ok || d.client != client || d.spent {
		return nil, badRequest("invalid_grant", "unknown device code")
	}
	early := now.Before(d.polled.Add(d.interval))
	d.polled = now
	switch {
	case !now.Before(d.expires):
		return nil, badRequest("expired_token", "device code is too old")
	case s.slowDowns > 0 || early:
		// RFC 8628 section 3.5 has the client wait 5 seconds longer from now on;
		// here it is enough to keep the interval.
		s.slowDowns = max(0, s.slowDowns-1)
		return nil, badRequest("slow_down", "")
	case d.denied:
		return nil, badRequest("access_denied", "the user said no")
	case d.grant == nil:
		return nil, badRequest("authorization_pending", "")
	}
	d.spent = true
	if cut != nil {
		d.grant.scopes = cut
	}
	fields := s.newAccess(d.grant, d.grant.scopes)
	fields["refresh_token"] = s.newRefresh(d.grant)
	return fields, nil
}

// devicePage is where people enter the code.
var devicePage = template.Must(template.New("device").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Connect a device – {{.Title}}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
<main>
<h1>{{.Heading}}</h1>
{{- if .Ask}}
<form method="post">
<p><label>Code <input name="user_code" value="{{.Code}}" autocomplete="off"></label></p>
<div class="actions">
<button class="main" type="submit" name="decision" value="allow">Allow</button>
<button type="submit" name="decision" value="deny">Deny</button>
</div>
</form>
{{- end}}
</main>
</html>
`))

// serveDevicePage is the verification URI (RFC 8628 section 3.3).
func (s *Server) serveDevicePage(w http.ResponseWriter, r *http.Request) {
	view := struct {
		Title, Heading, Code string
		Ask                  bool
	}{s.cfg.Title, "Enter the code that your device shows", r.URL.Query().Get("user_code"), true}
	if r.Method == http.MethodPost {
		form, refusal := readForm(w, r)
		done := refusal == nil
		switch form.Get("decision") {
		case "allow":
			done = done && s.ApproveDevice(form.Get("user_code"))
		default:
			done = done && s.DenyDevice(form.Get("user_code"))
		}
		view.Heading = "No device waits for this code"
		if done {
			view.Heading, view.Ask = "Go back to your device", false
		}
	}
	var b strings.Builder
	if err := devicePage.Execute(&b, view); err != nil {
		http.Error(w, "page can't be shown", http.StatusInternalServerError)
		return
	}
	pageHeaders(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(b.String()))
}
