package connect

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

// minePath is where users see their connections, under {public_url}. The page
// of one of them follows, with the same signed query.
const minePath = "/connect/connections"

// maxMine bounds how many connections of a user a page shows.
const maxMine = 200

// MineLink returns a link to the page on which the user sees the connections,
// good until expires, at most 24 hours ahead. redirectURL is where the page
// leads back to, if it is registered; empty: nowhere. The query is signed as a
// connect link's, with {public_url}/connect/connections as the endpoint.
func (s *Signer) MineLink(userID, redirectURL string, expires time.Time) string {
	mine := s.mine()
	q := url.Values{"user_id": {userID}, "expires": {strconv.FormatInt(expires.Unix(), 10)}}
	if redirectURL != "" {
		q.Set("redirect_url", redirectURL)
	}
	query := q.Encode()
	return mine.endpoint + "?" + query + "&signature=" + mine.signature(mine.keys[0], query)
}

func (s *Signer) mine() *Signer { return &Signer{endpoint: s.endpoint + "/connections", keys: s.keys} }

// verifyMine reads the query of such a link. The error wraps ErrLinkInvalid or
// ErrLinkExpired.
func (s *Signer) verifyMine(rawQuery string, now time.Time) (Params, error) {
	p, err := s.mine().Verify(rawQuery, now)
	if err != nil {
		return p, err
	}
	only := Params{UserID: p.UserID, RedirectURL: p.RedirectURL, Expires: p.Expires}
	if s.Sign(p, p.Expires) != s.Sign(only, p.Expires) {
		return Params{}, errors.Join(ErrLinkInvalid, errors.New("it says more than a user and a redirect_url"))
	}
	return p, nil
}

// ownView is one of the user's own connections.
type ownView struct {
	ID            string
	Tile          ui.Tile
	Title, Detail string
	Status        string // as in the keys of texts: active, paused …
	Class         string // of the status's shape and colour
	Connect       string // the link that connects it again, empty for none
	Disconnect    string // the link to the page that disconnects it, empty for none
	known         bool   // its integration is configured
}

// Alert reports whether something has to be done about it.
func (v ownView) Alert() bool { return v.Status == "expired" }

// statusClass says how a status looks.
var statusClass = map[string]string{
	"active": "ok", "paused": "info", "expired": "warn", "revoked": "info", "failed": "bad", "initiated": "info",
}

func (h *Handler) ownView(l *ui.Lang, c *tokenstore.Connection, account string) ownView {
	in, known := h.cfg.Integrations[c.Integration]
	title := textOr(in.Title, c.Integration)
	v := ownView{
		ID: c.ID, Tile: ui.ProviderTile(c.Provider, title), Title: title, known: known,
		Status: strings.ToLower(string(c.Status)),
	}
	if c.Disabled && c.Status == tokenstore.StatusActive {
		v.Status = "paused"
	}
	v.Class = statusClass[v.Status]
	var details []string
	for _, d := range []string{account, c.Name} {
		if d != "" && !slices.Contains(details, d) {
			details = append(details, d)
		}
	}
	if !c.ConnectedAt.IsZero() && c.Status == tokenstore.StatusActive {
		details = append(details, l.Say("own.since", "date", l.Date(c.ConnectedAt)))
	}
	v.Detail = strings.Join(details, " · ")
	return v
}

// userConnections returns the user's connections, newest first, and whether
// there are more than a page shows.
func (h *Handler) userConnections(ctx context.Context, userID string) (own []tokenstore.Connection, more bool, err error) {
	cursor := ""
	for {
		page, next, err := h.cfg.Store.ListConnections(ctx, tokenstore.Filter{UserID: userID}, cursor, maxMine)
		if err != nil {
			return nil, false, err
		}
		own = append(own, page...)
		if next == "" || len(own) >= maxMine {
			own = slices.DeleteFunc(own, func(c tokenstore.Connection) bool { return c.Damaged || c.UserID != userID })
			slices.Reverse(own)
			return own, next != "", nil
		}
		cursor = next
	}
}

// serveMine serves what is under minePath: the list, a connection's page, from
// which it is disconnected, and the address that connects it again. All of
// them take the signed query of the link.
func (h *Handler) serveMine(w http.ResponseWriter, r *http.Request, path, rawQuery string) {
	id, again := strings.CutSuffix(strings.TrimPrefix(strings.TrimPrefix(path, minePath), "/"), "/connect")
	posts := r.Method == http.MethodPost && id != "" && !again
	switch {
	case prefetched(r) || r.Method == http.MethodHead:
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method != http.MethodGet && !posts:
		w.Header().Set("Allow", "GET")
		h.refuse(w, r, failure{code: codeMethod})
		return
	}
	if wait := h.limits.requests.Take(guard.Network(h.from(r))); wait > 0 {
		h.tooMany(w, r, &tokenstore.Flow{}, wait)
		return
	}
	p, err := h.cfg.Signer.verifyMine(rawQuery, wallNow())
	switch {
	case errors.Is(err, ErrLinkExpired):
		h.refused(r, &tokenstore.Flow{}, codeLinkExpired)
		h.refuse(w, r, failure{codeLinkExpired, err})
		return
	case err != nil:
		h.guess(w, r, failure{codeLinkInvalid, err})
		return
	case path == minePath:
		h.mine(w, r, p, rawQuery)
		return
	}
	c, err := h.cfg.Store.Connection(r.Context(), id)
	switch {
	case errors.Is(err, tokenstore.ErrNotFound), err == nil && c.UserID != p.UserID:
		h.refuse(w, r, failure{codeConnectionUnknown, errors.New("connection is not one of the link's user")})
	case err != nil:
		h.refuse(w, r, failure{codeProvisioning, err})
	case again:
		link, _ := h.cfg.Signer.Link(c, h.returnOf(&c), "", nil, false)
		seeOther(w, link)
	case posts:
		h.disconnect(w, r, &c, rawQuery)
	default:
		h.disconnectPage(w, r, &c, rawQuery)
	}
}

// returnOf returns where connecting c again ends: where it ended before, or the
// first registered address.
func (h *Handler) returnOf(c *tokenstore.Connection) string {
	if len(h.cfg.RedirectURLs) == 0 || h.registered(c.RedirectURL) {
		return c.RedirectURL
	}
	return h.cfg.RedirectURLs[0]
}

type mineView struct {
	frame
	Own  []ownView
	More bool
	Back string
}

// mine shows the user's connections.
func (h *Handler) mine(w http.ResponseWriter, r *http.Request, p Params, rawQuery string) {
	own, more, err := h.userConnections(r.Context(), p.UserID)
	if err != nil {
		h.refuse(w, r, failure{codeProvisioning, err})
		return
	}
	view := mineView{frame: h.frame(r, "", "mine.title"), More: more}
	if h.registered(p.RedirectURL) {
		view.Back = p.RedirectURL
	}
	for i := range own {
		v, at := h.ownView(view.Lang, &own[i], accountName(own[i].Account)), h.base+minePath+"/"+own[i].ID
		if v.known && own[i].Status != tokenstore.StatusActive {
			v.Connect = at + "/connect?" + rawQuery
		}
		if h.canDisconnect(&own[i]) {
			v.Disconnect = at + "?" + rawQuery
		}
		view.Own = append(view.Own, v)
	}
	h.render(w, http.StatusOK, "mine", view, ui.Policy{})
}

// canDisconnect reports whether c has a credential that could be ended.
func (h *Handler) canDisconnect(c *tokenstore.Connection) bool {
	return h.cfg.Disconnect != nil && (c.Status == tokenstore.StatusActive || c.Status == tokenstore.StatusExpired)
}

type disconnectView struct {
	frame
	Tile                 ui.Tile
	Detail, Action, Keep string
	Token                string
	Asked                bool // the credential came by OAuth, so the provider can be asked to end it
}

// disconnectPage says what disconnecting does, or that it is done.
func (h *Handler) disconnectPage(w http.ResponseWriter, r *http.Request, c *tokenstore.Connection, rawQuery string) {
	list := h.base + minePath + "?" + rawQuery
	v := h.ownView(words.For(r), c, accountName(c.Account))
	if !h.canDisconnect(c) {
		back := pageLink{words.For(r).Say("disconnected.back"), list}
		h.outcome(w, r, &tokenstore.Flow{Integration: c.Integration}, http.StatusOK, "disconnected", outcomeView{Mark: "info", Back: back})
		return
	}
	view := disconnectView{
		frame: h.frame(r, v.Title, "disconnect.title"), Tile: v.Tile, Detail: v.Detail,
		Action: h.base + minePath + "/" + c.ID + "?" + rawQuery, Keep: list,
		Token: h.formToken(h.cfg.Signer.keys[0], h.mineCookie(w, r), c.ID, rawQuery),
		Asked: c.AuthScheme == tokenstore.AuthOAuth2 || c.AuthScheme == tokenstore.AuthClientCredentials || c.AuthScheme == "",
	}
	h.render(w, http.StatusOK, "disconnect", view, ui.Policy{FormAction: h.formAction(minePath + "/" + c.ID)})
}

// disconnect serves the form of disconnectPage, and shows what became of it by
// way of a redirect, so that reloading changes nothing.
func (h *Handler) disconnect(w http.ResponseWriter, r *http.Request, c *tokenstore.Connection, rawQuery string) {
	form, err := readForm(w, r)
	if err != nil || !h.ownForm(r, form.Get("token"), c.ID, rawQuery) {
		h.refused(r, &tokenstore.Flow{Integration: c.Integration, ConnectionID: c.ID, UserID: c.UserID}, codeForm)
		h.refuse(w, r, failure{codeForm, errors.New("form without the token of a page of ours in this browser")})
		return
	}
	if h.canDisconnect(c) {
		if err := h.cfg.Disconnect(context.WithoutCancel(r.Context()), c.ID, h.browser(r)); err != nil {
			h.page(w, r, &tokenstore.Flow{Integration: c.Integration, ConnectionID: c.ID, UserID: c.UserID}, failure{codeDisconnect, err})
			return
		}
		h.log.Info("account disconnected by its user", zap.String("connection_id", c.ID),
			zap.String("integration", c.Integration), zap.String("user_id", c.UserID))
	}
	seeOther(w, h.base+minePath+"/"+c.ID+"?"+rawQuery)
}

// The form's token is bound to a cookie of the browser that was shown the page
// and to what the form does, so that no other site can send it.

func (h *Handler) mineCookieName() string { return h.cookiePrefix() + "forms" }

// mineCookie returns the browser's cookie for forms, and gives it one if it has
// none.
func (h *Handler) mineCookie(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie(h.mineCookieName()); err == nil && c.Value != "" {
		return c.Value
	}
	value := random()
	h.setCookie(w, h.mineCookieName(), value, int(maxLinkLife.Seconds()))
	return value
}

func (h *Handler) formToken(key secret.String, cookie, id, rawQuery string) string {
	return base64.RawURLEncoding.EncodeToString(key.MAC("lanyard form v1\n" + cookie + "\n" + id + "\n" + rawQuery))
}

// ownForm reports whether a form was sent by a page of ours in this browser.
func (h *Handler) ownForm(r *http.Request, token, id, rawQuery string) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	c, err := r.Cookie(h.mineCookieName())
	if err != nil || c.Value == "" || site != "" && site != "same-origin" {
		return false
	}
	// With any of the keys: it may be of before they were put in another order.
	return slices.ContainsFunc(h.cfg.Signer.keys, func(k secret.String) bool {
		return secret.New(h.formToken(k, c.Value, id, rawQuery)).Equal(secret.New(token))
	})
}
