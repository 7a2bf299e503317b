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

// frame is what every page shows around its own, and says it in one language.
type frame struct {
	*ui.Lang
	Heading string // the page's title
	App     string
	Initial string
	Root    string // the relative way to the dashboard's root
	Section string // the part of the navigation that is current
	User    string
	Styles  []string
	Icon    string
	Logo    string // empty: Initial
	Script  string
	Notice  notice
	Live    bool // the page follows what happens
}

func (h *Handler) frame(v *visit, title, section string) frame {
	f := frame{
		Lang: v.lang, Heading: title, App: h.cfg.Brand.Name, Root: v.root(), Section: section, User: v.user,
		Styles: []string{ui.Style.Name}, Icon: ui.Favicon.Name, Script: follow.Name,
		Notice: noticeOf(v.lang, v.r.URL.Query().Get("done")), Live: section != "",
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
	status            int
	key               string // of its texts, behind "refusal."
	allow, retryAfter string
}

// The refusals.
var (
	notFound   = refusal{status: http.StatusNotFound, key: "not_found"}
	badQuery   = refusal{status: http.StatusBadRequest, key: "bad_query"}
	notOurForm = refusal{status: http.StatusForbidden, key: "not_our_form"}
	tooEarly   = refusal{status: http.StatusTooEarly, key: "too_early"}
	noLink     = refusal{status: http.StatusConflict, key: "no_link"}
	closedDoor = refusal{status: http.StatusForbidden, key: "closed"}

	noStore   = refusal{status: http.StatusServiceUnavailable, key: "unavailable", retryAfter: "5"}
	corrupt   = refusal{status: http.StatusServiceUnavailable, key: "corrupt"}
	storeFull = refusal{status: http.StatusInsufficientStorage, key: "full"}
)

func wrongMethod(allow string) refusal {
	return refusal{status: http.StatusMethodNotAllowed, key: "wrong_method", allow: allow}
}

type refusalView struct {
	frame
	Text      string
	Caddyfile bool // with what to write into it
}

func (h *Handler) refuse(v *visit, p refusal) {
	if p.allow != "" {
		v.w.Header().Set("Allow", p.allow)
	}
	if p.retryAfter != "" {
		v.w.Header().Set("Retry-After", p.retryAfter)
	}
	key := "refusal." + p.key
	view := refusalView{
		frame: h.frame(v, v.lang.Say(key), ""), Text: v.lang.Say(key+".text", "allow", p.allow), Caddyfile: p == closedDoor,
	}
	if view.Caddyfile {
		view.App, view.Initial, view.Logo = "Lanyard", "L", "" // a stranger is told nothing
	}
	h.render(v, p.status, "refusal", view)
}

// fail answers where the store could not do it.
func (h *Handler) fail(v *visit, err error) {
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		h.refuse(v, notFound)
	case isCorrupt(err):
		h.refuse(v, corrupt)
	case errors.Is(err, tokenstore.ErrFull):
		h.refuse(v, storeFull)
	default:
		h.log.Warn("dashboard could not use the store", zap.Error(err))
		h.refuse(v, noStore)
	}
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
