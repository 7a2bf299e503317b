package proxy

import (
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// minKeyLength is the shortest key that a configuration may hold. A shorter
// one in a header of the app's own is no key of ours.
const minKeyLength = 32

// caller is what a request says about who sends it and for which connection.
type caller struct {
	key    secret.String
	id     string
	userID string
	// slot is the header that named both, where that is not Authorization.
	slot string
	// spare are further headers with this key and connection: an SDK may send
	// its token twice, and the key is not the provider's to see.
	spare []string

	hasKey, hasID bool
	ambiguous     bool // it says two things
}

func (c *caller) addKey(key string) {
	k := secret.New(key)
	if c.hasKey && !c.key.Equal(k) {
		c.ambiguous = true
	}
	c.key, c.hasKey = k, true
}

func (c *caller) addID(id string) {
	if c.hasID && c.id != id {
		c.ambiguous = true
	}
	c.id, c.hasID = id, true
}

// readCaller reads every place where a key or a connection may stand. pathID
// is the connection that the path names, if it does.
func readCaller(h http.Header, pathID string) (caller, *guard.Problem) {
	var c caller
	if key, ok := c.only(h["Lanyard-Key"]); ok {
		c.addKey(key)
	}
	if id, ok := c.only(h["Connection-Id"]); ok {
		c.addID(id)
	}
	c.userID, _ = c.only(h["User-Id"])
	if value, ok := c.only(h["Authorization"]); ok {
		c.addAuthorization(value)
	}
	if pathID != "" {
		c.addID(pathID)
	}
	c.findSlots(h)
	if c.ambiguous {
		return c, problemAmbiguous()
	}
	return c, nil
}

// only returns the only value of a header. Two values say two things.
func (c *caller) only(values []string) (value string, ok bool) {
	if len(values) == 0 {
		return "", false
	}
	c.ambiguous = c.ambiguous || len(values) > 1
	return values[0], true
}

// addAuthorization reads `Bearer KEY`, `Bearer KEY.conn_…`, the same with any
// other scheme or none, `Token token=KEY.conn_…` as some providers have it, Basic with KEY.conn_… as the password, and
// `Bearer conn_…`. What is neither is the app's own and says nothing.
func (c *caller) addAuthorization(value string) {
	scheme, credential, ok := strings.Cut(value, " ")
	if !ok {
		scheme, credential = "", value
	}
	credential = strings.TrimSpace(credential)
	if strings.EqualFold(scheme, "Basic") {
		credential = password(credential)
	}
	if key, id, ok := splitSlot(paramValue(credential)); ok {
		c.addKey(key)
		c.addID(id)
		return
	}
	switch {
	case tokenstore.IsID(credential):
		c.addID(credential)
	case strings.EqualFold(scheme, "Bearer"):
		c.addKey(credential)
	}
}

// paramValue returns the value of the last parameter of a credential that
// consists of parameters, else the credential.
func paramValue(credential string) string {
	if strings.IndexByte(credential, '=') < 0 { // nearly always
		return credential
	}
	return strings.Trim(credential[strings.LastIndexByte(credential, '=')+1:], `"`)
}

// findSlots looks for KEY.conn_… in the other headers: which of them is the
// provider's own is only known once the connection is. Where the connection is
// named already, only the same key counts: any other is the app's own business.
func (c *caller) findSlots(h http.Header) {
	named := c.hasID
	for name, values := range h {
		for _, value := range values {
			if strings.Contains(value, idMark) && name != "Authorization" && !dropped(name) {
				c.addSlot(name, value, named)
			}
		}
	}
}

// addSlot reads one value of another header.
func (c *caller) addSlot(name, value string, named bool) {
	key, id, ok := splitSlot(paramValue(value[strings.LastIndexByte(value, ' ')+1:]))
	switch {
	case !ok || !isKey(key):
	case !named:
		c.addKey(key)
		c.addID(id)
		if c.slot != "" {
			c.ambiguous = true
		}
		c.slot = name
	case c.key.Equal(secret.New(key)):
		c.addID(id)
		c.spare = append(c.spare, name)
	}
}

// idMark stands between a key and the ID of a connection.
const idMark = ".conn_"

// splitSlot splits KEY.conn_… at its last ".conn_", which has the last
// underscore if an ID follows.
func splitSlot(s string) (key, id string, ok bool) {
	i := strings.LastIndexByte(s, '_') + 1 - len(idMark)
	if i < 0 || s[i:i+len(idMark)] != idMark || !tokenstore.IsID(s[i+1:]) {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func isKey(s string) bool {
	if len(s) < minKeyLength {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) < 0
}

// password returns the password of Basic credentials (RFC 7617 section 2).
func password(encoded string) string {
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return ""
	}
	_, pass, _ := strings.Cut(string(b), ":")
	return pass
}

// authorize finds out whose key it is that came with c, or returns why it does
// not open the proxy.
func (h *Handler) authorize(c *call, key secret.String) *guard.Problem {
	if c.client = match(h.cfg.Clients, key); c.client != nil {
		c.who = tokenstore.Actor{Kind: tokenstore.ActorClient, Name: c.client.Key.Name}
		return nil
	}
	if h.cfg.Open && directlyLocal(c.in) {
		c.who = tokenstore.Actor{Kind: tokenstore.ActorClient}
		return nil
	}
	if k, ok := guard.Match(h.cfg.APIKeys, key); ok {
		c.who, c.reason = tokenstore.Actor{Kind: tokenstore.ActorAPIKey, Name: k.Name}, "api_key"
		return &guard.Problem{
			Status: http.StatusForbidden, Code: "not_allowed",
			Detail: "This is an API key: it manages connections and signs links, and is not taken by the proxy. Use a client key.",
		}
	}
	if !key.IsZero() {
		if p := h.cfg.Brake.Wrong(guard.From(c.in)); p != nil {
			return p
		}
	}
	detail := "Send a client key, as `Lanyard-Key: KEY` or as `Authorization: Bearer KEY.conn_…`."
	if h.cfg.Open {
		detail = "The proxy is open to this machine only, on a unix socket or loopback and with no proxy between. From elsewhere, send a client key."
	}
	return &guard.Problem{Status: http.StatusUnauthorized, Code: "key_required", Detail: detail}
}

// directlyLocal reports whether r comes by a unix socket, or from loopback to
// loopback with no sign that somebody else is behind it.
func directlyLocal(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		return false
	}
	if local.Network() == "unix" {
		return true
	}
	return loopback(local.String()) && loopback(r.RemoteAddr) && !forwarded(r.Header)
}

func loopback(addr string) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

func forwarded(h http.Header) bool {
	for name := range h {
		if name == "Forwarded" || name == "Via" || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}
