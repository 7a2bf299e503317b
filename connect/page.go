package connect

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the stylesheet and the icon
	"encoding/hex"
	"errors"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

//go:embed page/ui.css
var style []byte

//go:embed page/favicon.svg
var favicon []byte

//go:embed page/pages.html
var pageSource string

var (
	pages     = template.Must(template.New("").Option("missingkey=error").Parse(pageSource))
	styleName = nameByContent("ui", style, "css")
)

// nameByContent makes a name that changes with the content, so that browsers
// may keep it for good.
func nameByContent(stem string, content []byte, ext string) string {
	sum := sha256.Sum256(content)
	return stem + "-" + hex.EncodeToString(sum[:6]) + "." + ext
}

// setHeaders puts on every answer what keeps pages out of caches, frames and
// the hands of other sites. Nothing runs a script, and no form goes anywhere:
// browsers apply form-action to all the redirects that follow a form.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

func serveAsset(w http.ResponseWriter, r *http.Request, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "public, max-age=86400")
	if contentType != "image/svg+xml" {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// frame is what every page shows around its own.
type frame struct {
	Title, App, AppInitial, Assets, Style string
}

func (h *Handler) frame(title string) frame {
	return frame{
		Title: title, App: h.cfg.AppName, AppInitial: initial(h.cfg.AppName),
		Assets: h.base + "/connect/", Style: styleName,
	}
}

// initial returns the letter that stands for a name that has no picture.
func initial(name string) string {
	for _, r := range name {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return string(unicode.ToUpper(r))
		}
	}
	return "·"
}

func (h *Handler) render(w http.ResponseWriter, status int, name string, view any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, view); err != nil { // a mistake in this program
		h.log.Error("page not rendered", zap.String("page", name), zap.Error(err))
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

type choice struct{ Title, Initial, Link string }

type chooseView struct {
	frame
	Choices []choice
}

// choose lets the user pick an integration. The links repeat what the app
// signed, with its end, since a browser can't sign.
func (h *Handler) choose(w http.ResponseWriter, p Params) {
	view := chooseView{frame: h.frame("Connect an account")}
	for _, name := range slices.Sorted(maps.Keys(h.cfg.Integrations)) {
		in, _ := h.integration(name)
		if in.bind(p.Params) != nil { // the link's parameters are for others
			continue
		}
		p.Integration = name
		view.Choices = append(view.Choices, choice{in.Title, initial(in.Title), h.cfg.Signer.Sign(p, p.Expires)})
	}
	if len(view.Choices) == 0 {
		h.refuse(w, failure{codeInvalidParameter, errors.New("link's parameters are no integration's")})
		return
	}
	h.render(w, http.StatusOK, "choose", view)
}

type scopeView struct {
	Text string // in plain words, or empty
	Name string
}

type reviewView struct {
	frame
	Provider, Initial, Host, User, Continue, Cancel string
	Scopes                                          []scopeView
	Named                                           []string // the scopes whose names Text hides
}

// review shows what will be shared. The flow is stored already: Continue is a
// plain link to the provider.
func (h *Handler) review(w http.ResponseWriter, f *tokenstore.Flow, in Integration, authURL string) {
	view := reviewView{
		frame:    h.frame("Connect " + in.Title),
		Provider: in.Title, Initial: initial(in.Title), Host: hostOf(authURL), User: f.UserID, Continue: authURL,
	}
	for _, s := range f.Scopes {
		text := in.Provider.ScopeText(s)
		view.Scopes = append(view.Scopes, scopeView{Text: text, Name: s})
		if text != "" {
			view.Named = append(view.Named, s)
		}
	}
	if f.RedirectURL != "" {
		view.Cancel = returnURL(f.RedirectURL, "error", codeUserDenied,
			"error_description", replies[codeUserDenied].told, "state", f.AppState)
	}
	h.render(w, http.StatusOK, "review", view)
}

// outcomeView is a page that says how something ended. Next, Code, ErrorID and
// Rows may be empty.
type outcomeView struct {
	frame
	Mark              string // ok, info, warn or bad
	Title, Text, Next string
	Code, ErrorID     string
	Rows              [][2]string
}

// outcome fills the names into view's texts and shows it.
func (h *Handler) outcome(w http.ResponseWriter, f *tokenstore.Flow, status int, view outcomeView) {
	provider := "your account"
	if in, ok := h.integration(f.Integration); ok && f.Integration != "" {
		provider = in.Title
	}
	names := strings.NewReplacer("{provider}", provider, "{app}", h.origin)
	for _, text := range []*string{&view.Title, &view.Text, &view.Next} {
		*text = upperFirst(names.Replace(*text))
	}
	view.frame = h.frame(view.Title)
	h.render(w, status, "outcome", view)
}

// upperFirst makes a sentence of one that begins with our own words for a name.
func upperFirst(s string) string {
	if strings.HasPrefix(s, "your account") || strings.HasPrefix(s, "the app") {
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return s
}

// success ends a flow that no app waits for.
func (h *Handler) success(w http.ResponseWriter, in Integration, c *tokenstore.Connection) {
	view := outcomeView{
		Mark: "ok", Title: "{provider} is connected",
		Text: "{app} can now use your {provider} account.", Next: "You can close this page.",
		Rows: [][2]string{{h.cfg.AppName + " user", c.UserID}},
	}
	if len(c.Token.Scopes) > 0 {
		view.Rows = append(view.Rows, [2]string{"Allowed", words(in, c.Token.Scopes)})
	}
	if missing := c.MissingScopes(); len(missing) > 0 {
		view.Rows = append(view.Rows, [2]string{"Not allowed", words(in, missing)})
	}
	view.Rows = append(view.Rows, [2]string{"Connection", c.ID})
	h.outcome(w, &tokenstore.Flow{Integration: in.Name}, http.StatusOK, view)
}

// words returns scopes in plain words where there are some, else verbatim.
func words(in Integration, scopes []string) string {
	var texts []string
	for _, s := range scopes {
		if text := in.Provider.ScopeText(s); text != "" {
			s = text
		}
		texts = append(texts, s)
	}
	return strings.Join(texts, ", ")
}
