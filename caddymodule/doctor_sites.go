package caddymodule

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// checkSites looks at who reaches the handlers.
func (d *doctor) checkSites() {
	d.readServers()
	served := map[string]bool{}
	for _, s := range d.servers {
		told := map[string]bool{}
		for _, h := range s.handlers {
			served[h.name] = true
			if told[h.name] {
				continue
			}
			told[h.name] = true
			switch h.name {
			case "lanyard_api", "lanyard_proxy", transportName:
				d.checkListener(&s, &h)
			case "lanyard_dashboard":
				d.checkDashboard(&s, &h)
			}
		}
	}
	d.checkServed(served)
	for _, name := range []string{"lanyard_api", "lanyard_proxy"} {
		if !served[name] && (name != "lanyard_proxy" || !served[transportName]) {
			d.add("sites", name+"_missing", levelInfo, "", "no site has "+name, "")
		}
	}
}

// public returns an address of the server that other machines reach, or "".
func (s *server) public() string {
	for _, a := range s.listen {
		if !a.IsUnixNetwork() && !a.IsFdNetwork() && !isLoopback(a.Host) {
			return a.String()
		}
	}
	return ""
}

func (d *doctor) checkListener(s *server, h *handler) {
	addr := s.public()
	if addr == "" {
		d.ok("listener", "listener", h.name+" is reached from this machine alone")
		return
	}
	site, directive := d.siteOf(s, h)
	if h.Open {
		place := directive.place
		for _, l := range directive.find("open") {
			place = l.place
		}
		d.problem("listener", "open_proxy", place, fmt.Sprintf("%s asks for no key, and listens at %s, where other machines reach it", h.name, addr),
			"remove `open`, or let the site listen on loopback alone (`bind 127.0.0.1`)")
		return
	}
	text := fmt.Sprintf("other machines reach %s at %s", h.name, addr)
	switch {
	case len(h.Names) > 0:
		d.warning("listener", "listener_public", site.place, text+", with a key and as "+strings.Join(h.Names, ", "), "see that only your app's machines can")
	case h.name == transportName: // it has no names, by which to tell what is meant
		d.warning("listener", "listener_public", site.place, text+", with a key", "add `bind 127.0.0.1`, or see that only your app's machines can")
	default:
		d.problem("listener", "listener_public", site.place, text, "add `bind 127.0.0.1` (or the names by which your app's machines call: `names`)")
	}
}

func (d *doctor) checkDashboard(s *server, h *handler) {
	verifies := s.clientAuth && strings.Contains(h.User, phClientCert)
	switch addr := s.public(); {
	case h.authenticated() || verifies:
		d.ok("dashboard", "dashboard", "who opens it is authenticated")
	case addr == "":
		d.ok("dashboard", "dashboard", "it is reached from this machine alone")
	default:
		site, directive := d.siteOf(s, h)
		d.problem("dashboard", "dashboard_open", cmp.Or(directive.place, site.place),
			"nobody is authenticated before lanyard_dashboard, which listens at "+addr,
			"put `basic_auth` or `forward_auth` before it, or `bind 127.0.0.1`; docs/dashboard.md shows it")
	}
}

// siteOf returns the lines of the site and of the directive that a handler comes
// from, empty ones where they are not known.
func (d *doctor) siteOf(s *server, h *handler) (site, directive *line) {
	words := []string{h.name}
	if h.name == transportName {
		words = []string{"transport", "lanyard"}
	}
	for _, l := range d.lines {
		found := l.find(words...)
		if len(l.words) == 0 || len(found) == 0 {
			continue
		}
		for _, key := range l.words {
			if s.listensAt(portOf(strings.TrimSuffix(key, ","))) {
				return l, found[0]
			}
		}
	}
	return &line{}, &line{}
}

// portOf returns the port of a site's address.
func portOf(address string) uint {
	a, err := httpcaddyfile.ParseAddress(address)
	if err != nil {
		return 0
	}
	if a.Port == "" && a.Scheme == "http" {
		return 80
	}
	n, _ := strconv.ParseUint(cmp.Or(a.Port, "443"), 10, 16)
	return uint(n)
}

func (s *server) listensAt(port uint) bool {
	return slices.ContainsFunc(s.listen, func(a caddy.NetworkAddress) bool { return a.StartPort <= port && port <= a.EndPort })
}

// checkServed looks whether requests for public_url reach lanyard_connect.
func (d *doctor) checkServed(served map[string]bool) {
	place := d.at("public_url")
	if !served["lanyard_connect"] {
		d.problem("public_url", "connect_missing", place, "no site has lanyard_connect, which users are sent to", "add `lanyard_connect` to the site of public_url")
		return
	}
	u := d.settings.publicURL
	if u.Hostname() == noPublicURL {
		return
	}
	paths := []string{"/connect/connections"}
	for _, name := range slices.Sorted(maps.Keys(d.app.Integrations)) {
		paths = append(paths, "/callback/"+name)
	}
	for _, path := range paths {
		if d.serves(u, path) {
			continue
		}
		if d.serves(nil, u.Path+path) {
			d.problem("public_url", "connect_host", place, fmt.Sprintf("no site with lanyard_connect takes requests for %s", u.Hostname()),
				fmt.Sprintf("name the site %s, or correct public_url", u.Hostname()))
		} else {
			d.problem("public_url", "connect_path", place, fmt.Sprintf("%s%s does not reach lanyard_connect", u, path), "let its matcher cover /connect* and /callback/* below public_url")
		}
		return
	}
	d.ok("public_url", "connect_served", "its requests reach lanyard_connect")
}

// serves reports whether a handler lanyard_connect gets requests for a path
// below u, or for a path whatever the host if there is no u.
func (d *doctor) serves(u *url.URL, path string) bool {
	target := &url.URL{Scheme: "https", Path: path}
	if u != nil {
		target.Host, target.Path = u.Host, u.Path+path
	}
	r := &http.Request{Method: http.MethodGet, URL: target, Host: target.Host, RequestURI: target.RequestURI(), Header: http.Header{}}
	for _, s := range d.servers {
		for _, h := range s.handlers {
			if h.name == "lanyard_connect" && h.matches(r) {
				return true
			}
		}
	}
	return false
}

func (d *doctor) checkAdmin() {
	place := ""
	for _, l := range d.globals().find("admin") {
		place = cmp.Or(place, l.place)
	}
	if place == "" { // it would stand beside
		place = d.at()
	}
	listen := ""
	if d.cfg.Admin != nil {
		listen = d.cfg.Admin.Listen
		if d.cfg.Admin.Disabled {
			d.ok("admin", "admin", "Caddy's admin API is off")
			return
		}
	}
	addr, err := caddy.ParseNetworkAddressWithDefaults(cmp.Or(listen, caddy.DefaultAdminListen), "tcp", 2019)
	const fix = "write `admin off` (and reload by SIGUSR1) or `admin unix//run/caddy/admin.sock|0600` into the global options"
	switch {
	case err != nil || addr.IsUnixNetwork() || addr.IsFdNetwork():
		d.ok("admin", "admin", "Caddy's admin API listens on a socket")
	case isLoopback(addr.Host):
		d.warning("admin", "admin_tcp", place, "every program on this machine can change the configuration by Caddy's admin API at "+addr.String(), fix)
	default:
		d.problem("admin", "admin_tcp", place, "other machines can change the configuration by Caddy's admin API at "+addr.String(), fix)
	}
}

// checkAccessLogs looks whether access logs would hold keys and one-time codes.
func (d *doctor) checkAccessLogs() {
	for _, s := range d.servers {
		if s.Logs == nil {
			continue
		}
		wanted := []string{"request>uri"}
		site := &line{}
		for _, h := range s.handlers {
			if h.name == "lanyard_proxy" || h.name == transportName {
				wanted = append(wanted, "request>headers>Lanyard-Key")
			}
			if l, _ := d.siteOf(&s, &h); l.place != "" {
				site = l
			}
		}
		place := site.place
		for _, l := range site.find("log") {
			place = l.place
		}
		if name, field := d.unfiltered(&s, wanted); field != "" {
			d.problem("logs", "access_log", place, fmt.Sprintf("the access log %q holds one-time codes or keys: nothing filters %s", name, field),
				"filter the default logger as docs/configuration.md shows (`format filter`)")
		} else {
			d.ok("logs", "access_log", "codes and keys are kept out of the access log")
		}
	}
}

// unfiltered returns the log that gets a server's requests and the first of the
// fields that it does not filter.
func (d *doctor) unfiltered(s *server, fields []string) (name, field string) {
	names := []string{s.Logs.DefaultLoggerName}
	for _, more := range s.Logs.LoggerNames {
		names = append(names, more...)
	}
	logs := map[string]*caddy.CustomLog{}
	if d.cfg.Logging != nil {
		maps.Copy(logs, d.cfg.Logging.Logs)
	}
	if logs["default"] == nil {
		logs["default"] = &caddy.CustomLog{}
	}
	for _, log := range slices.Sorted(maps.Keys(logs)) {
		takes := slices.ContainsFunc(names, func(n string) bool { return takes(logs[log], strings.TrimSuffix("http.log.access."+n, ".")) })
		if !takes {
			continue
		}
		var enc struct {
			Format string                     `json:"format"`
			Fields map[string]json.RawMessage `json:"fields"`
		}
		if raw := logs[log].EncoderRaw; raw != nil {
			_ = json.Unmarshal(raw, &enc) // what can't be read filters nothing
		}
		for _, f := range fields {
			if _, ok := enc.Fields[f]; !ok || enc.Format != "filter" {
				return log, f
			}
		}
	}
	return "", ""
}

// takes reports whether a log gets the messages of the logger name.
func takes(log *caddy.CustomLog, name string) bool {
	below := func(prefix string) bool {
		return name == prefix || strings.HasPrefix(name, strings.TrimSuffix(prefix, ".")+".")
	}
	return (len(log.Include) == 0 || slices.ContainsFunc(log.Include, below)) && !slices.ContainsFunc(log.Exclude, below)
}

// checkLoops looks for providers that are this Lanyard itself.
func (d *doctor) checkLoops() {
	for _, name := range slices.Sorted(maps.Keys(d.settings.integrations)) {
		providerName := d.settings.integrations[name].providerName
		e, err := d.app.entry(providerName)
		if err != nil {
			continue
		}
		for option, text := range map[string]string{"api_url": e.APIURL, "token_url": e.TokenURL, "authorize_url": e.AuthorizeURL, "issuer": e.Issuer} {
			text, err := caddy.NewReplacer().ReplaceOrErr(text, false, false) // its errors were findings before
			if err != nil {
				continue
			}
			if u, err := url.Parse(text); err == nil && u.Host != "" && d.isOwn(u) {
				d.problem("integration "+name, "proxy_loop", d.at("provider "+providerName, option),
					fmt.Sprintf("%s is %s, where this Lanyard listens itself", option, u.Host), "write the provider's own address")
			}
		}
	}
}

// isOwn reports whether u leads to a server that has a handler of Lanyard.
func (d *doctor) isOwn(u *url.URL) bool {
	port := uint(443)
	if u.Scheme == "http" {
		port = 80
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		port = uint(n)
	}
	if u.Host == d.settings.publicURL.Host {
		return true
	}
	for _, s := range d.servers {
		for _, a := range s.listen {
			same := a.Host == u.Hostname() || isLoopback(u.Hostname()) && (a.Host == "" || isLoopback(a.Host) || unspecified(a.Host))
			if same && !a.IsUnixNetwork() && a.StartPort <= port && port <= a.EndPort {
				return true
			}
		}
		for _, h := range s.handlers {
			if s.listensAt(port) && slices.Contains(h.hosts(), u.Hostname()) {
				return true
			}
		}
	}
	return false
}

func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}
