package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// api returns where lanyard_api is reached from this machine, and under which
// name; nothing if there is no such place.
func (d *doctor) api() (network, addr, host string) {
	for _, s := range d.servers {
		for _, h := range s.handlers {
			if h.name != "lanyard_api" {
				continue
			}
			host = "localhost"
			for _, name := range h.hosts() {
				if !strings.ContainsAny(name, "*{") {
					host = name
					break
				}
			}
			for _, a := range s.listen {
				switch {
				case a.IsUnixNetwork():
					return "unix", a.Host, host
				case a.Host == "" || unspecified(a.Host):
					a.Host = "127.0.0.1"
					fallthrough
				case isLoopback(a.Host):
					return "tcp", a.JoinHostPort(0), host
				}
			}
		}
	}
	return "", "", ""
}

// askLanyard asks the Lanyard that runs with this configuration, if there is one.
func (p *probe) askLanyard(ctx context.Context, addr, host string) {
	a, err := p.ask(ctx, http.MethodGet, "http://"+host+"/v1/health/ready")
	if err != nil {
		p.add("running", "running", levelInfo, "", "Lanyard does not run at "+addr, "")
		return
	}
	var said struct{ Status, Code string }
	_ = json.Unmarshal(a.body, &said) // what is not Lanyard's has neither
	switch {
	case a.status == http.StatusOK && said.Status == "ok":
		p.answers = true
		p.ok("running", "running", "Lanyard runs at "+addr+" and is ready")
	case said.Code != "":
		p.answers = true
		p.problem("running", "running", "", fmt.Sprintf("Lanyard at %s is not ready: %s", addr, said.Code), "its log says why")
	case bytes.Contains(a.body, []byte("HTTPS server")), a.location != "": // its certificate may not be for this machine
		p.mute = true
		p.add("running", "running", levelInfo, "", "something answers at "+addr+" by HTTPS, and was not asked", "")
	default:
		p.problem("running", "running", "", fmt.Sprintf("something else than Lanyard answers at %s (HTTP %d)", addr, a.status), "end what listens there, or use another port")
	}
}
