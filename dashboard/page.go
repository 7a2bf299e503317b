package dashboard

import (
	"bytes"
	_ "embed" // the pages, their script and what they add to the stylesheet
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strconv"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

//go:embed page/pages.html
var pageSource string

//go:embed page/dashboard.css
var sheet []byte

//go:embed page/dashboard.js
var script []byte

var (
	pages  = template.Must(template.New("").Option("missingkey=error").Parse(pageSource))
	style  = ui.NewAsset("dashboard", "css", sheet)
	follow = ui.NewAsset("dashboard", "js", script)
)

// setHeaders puts on every answer what ui.SetHeaders does. A form's Referer tells
// this origin alone where it came from: without it browsers send no Origin.
func setHeaders(h http.Header) {
	ui.SetHeaders(h, ui.Policy{Script: true, Live: true, FormAction: "'self'"})
	h.Set("Referrer-Policy", "same-origin")
}

// asset serves one of the files that pages refer to.
func (h *Handler) asset(v *visit, name string) {
	assets := []*ui.Asset{&ui.Style, &ui.Favicon, &style, &follow, h.cfg.Brand.Style, h.cfg.Brand.Logo}
	for _, a := range assets {
		if a != nil && a.Name == name {
			a.ServeHTTP(v.w, v.r)
			return
		}
	}
	h.refuse(v, notFound)
}

// frame is what every page shows around its own.
type frame struct {
	Title   string
	App     string
	Initial string
	Root    string // the relative way to the dashboard's root
	Section string // the part of the navigation that is current
	User    string
	Styles  []string
	Icon    string
	Logo    string // empty: Initial
	Script  string
	Notice  pill // what became of a change
	Live    bool // the page follows what happens
}

func (h *Handler) frame(v *visit, title, section string) frame {
	f := frame{
		Title: title, App: h.cfg.Brand.Name, Root: v.root(), Section: section, User: v.user,
		Styles: []string{ui.Style.Name}, Icon: ui.Favicon.Name, Script: follow.Name,
		Notice: notices[v.r.URL.Query().Get("done")], Live: section != "",
	}
	if f.App == "" {
		f.App = "Lanyard"
	}
	f.Initial = ui.Initial(f.App)
	if s := h.cfg.Brand.Style; s != nil {
		f.Styles = append(f.Styles, s.Name)
	}
	f.Styles = append(f.Styles, style.Name)
	if l := h.cfg.Brand.Logo; l != nil {
		f.Logo = l.Name
	}
	return f
}

func (h *Handler) render(v *visit, status int, name string, view any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, view); err != nil { // a mistake in this program
		h.log.Error("page not rendered", zap.String("page", name), zap.Error(err))
		http.Error(v.w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	header := v.w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(b.Len()))
	v.w.WriteHeader(status)
	if v.r.Method != http.MethodHead {
		_, _ = v.w.Write(b.Bytes())
	}
}

// seeOther leads to a page by a relative address.
func (v *visit) seeOther(to string) {
	v.w.Header().Set("Location", to)
	v.w.WriteHeader(http.StatusSeeOther)
}

// refusal is a page that says why something was not done.
type refusal struct {
	Status            int
	Heading, Text     string
	Caddyfile         bool // with what to write into it
	allow, retryAfter string
}

// The refusals.
var (
	notFound = refusal{Status: http.StatusNotFound, Heading: "There is nothing here", Text: "The connection may have been deleted."}
	badQuery = refusal{
		Status: http.StatusBadRequest, Heading: "This address does not fit the list",
		Text: "A filter or the page in it is not one that this dashboard gives out. A label is written name=value.",
	}
	notOurForm = refusal{
		Status: http.StatusForbidden, Heading: "Nothing was changed",
		Text: "The form is too old, or did not come from this dashboard. Open the page again and repeat what you wanted to do. Cookies have to be allowed.",
	}
	tooEarly = refusal{
		Status: http.StatusTooEarly, Heading: "Nothing was changed",
		Text: "The request came before the connection was set up safely. Send the form again.",
	}
	noLink = refusal{
		Status: http.StatusConflict, Heading: "No link can be made for this connection",
		Text: "It is switched off, or its integration is not in the configuration.",
	}
	closedDoor = refusal{
		Status: http.StatusForbidden, Heading: "This dashboard needs to know who you are",
		Text:      "Nothing before it in the Caddyfile says who is asking. Without authentication it answers this machine alone, by a loopback name.",
		Caddyfile: true,
	}
)

func wrongMethod(_ *visit, allow string) refusal {
	return refusal{
		Status: http.StatusMethodNotAllowed, Heading: "This address takes another method", Text: "It takes " + allow + ".", allow: allow,
	}
}

type refusalView struct {
	frame
	refusal
}

func (h *Handler) refuse(v *visit, p refusal) {
	if p.allow != "" {
		v.w.Header().Set("Allow", p.allow)
	}
	if p.retryAfter != "" {
		v.w.Header().Set("Retry-After", p.retryAfter)
	}
	f := h.frame(v, p.Heading, "")
	if p.Caddyfile {
		f.App, f.Initial, f.Logo = "Lanyard", "L", "" // a stranger is told nothing
	}
	h.render(v, p.Status, "refusal", refusalView{frame: f, refusal: p})
}

// fail answers where the store could not do it.
func (h *Handler) fail(v *visit, err error) {
	p := refusal{
		Status: http.StatusServiceUnavailable, Heading: "The store does not answer", retryAfter: "5",
		Text: "Try again in a moment. Lanyard’s log says what is wrong.",
	}
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		p = notFound
	case isCorrupt(err):
		p = refusal{Status: http.StatusServiceUnavailable, Heading: "The record is damaged", Text: reasons["store_corrupt"]}
	case errors.Is(err, tokenstore.ErrFull):
		p = refusal{Status: http.StatusInsufficientStorage, Heading: "The store is full", Text: "Nothing was changed. Make room on its disk."}
	default:
		h.log.Warn("dashboard could not use the store", zap.Error(err))
	}
	h.refuse(v, p)
}

func isCorrupt(err error) bool { return errors.Is(err, tokenstore.ErrCorrupt) }

// upTo writes a count that went no further than most.
func upTo(n, most int) string {
	if n > most {
		return strconv.Itoa(most) + "+"
	}
	return strconv.Itoa(n)
}

// userLink returns the way from root to the list of one user's connections.
func userLink(root, userID string) string { return root + "?" + url.Values{"user": {userID}}.Encode() }
