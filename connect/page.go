package connect

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

//go:embed page
var pageFiles embed.FS

var (
	pages = template.Must(template.New("").Option("missingkey=error").ParseFS(pageFiles, "page/*.html"))
	words = must(ui.ReadWords(pageFiles, "page/words"))

	chooseScript = ui.NewAsset("choose", "js", must(pageFiles.ReadFile("page/choose.js")))
	postScript   = ui.NewAsset("post", "js", must(pageFiles.ReadFile("page/post.js")))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // a file of this program is broken
	}
	return v
}

// assetsOf returns what is served beside the pages, by the name behind
// {public_url}/connect/.
func assetsOf(b ui.Brand) map[string]http.Handler {
	all := map[string]http.Handler{buttonName: http.HandlerFunc(serveButton)}
	for _, a := range []*ui.Asset{&ui.Style, &ui.Favicon, &chooseScript, &postScript, b.Style, b.Logo} {
		if a != nil {
			all[a.Name] = a
		}
	}
	return all
}

// asset serves path if it is a file's that pages refer to.
func (h *Handler) asset(w http.ResponseWriter, r *http.Request, path string) bool {
	name, ok := strings.CutPrefix(path, "/connect/")
	a := h.assets[name]
	if !ok || a == nil {
		return false
	}
	a.ServeHTTP(w, r)
	return true
}

type pageLink struct{ Title, URL string }

// frame is what every page shows around its own, and says it in one language.
type frame struct {
	Lang    *ui.Lang
	names   []string // name, value …: what stands for {name} in the texts
	Title   string
	Problem bool // something has to be entered again

	App, Initial, Home, Logo string
	Styles                   []string
	Favicon, Script          string
	Foot                     []pageLink
}

// T returns a text of the page. Sentences that begin with our own words for a
// name that we don't know begin with a capital.
func (f frame) T(key string, pairs ...string) string {
	text := f.Lang.Say(key, append(pairs, f.names...)...)
	if strings.HasPrefix(text, f.Lang.Say("an_account")) || strings.HasPrefix(text, f.Lang.Say("an_app")) {
		first, size := utf8.DecodeRuneInString(text)
		return string(unicode.ToUpper(first)) + text[size:]
	}
	return text
}

// frame returns what is around a page about an account at a provider.
func (h *Handler) frame(r *http.Request, provider, title string) frame {
	l, b, dir := words.For(r), h.cfg.Brand, h.base+"/connect/"
	f := frame{
		Lang: l, App: b.Name, Initial: ui.Initial(b.Name), Home: b.Home,
		Styles: []string{dir + ui.Style.Name}, Favicon: dir + ui.Favicon.Name,
	}
	if b.Style != nil {
		f.Styles = append(f.Styles, dir+b.Style.Name)
	}
	if b.Logo != nil {
		f.Logo = dir + b.Logo.Name
	}
	f.names = names(l, b.Name, provider)
	for _, link := range []pageLink{{"foot.help", b.Help}, {"foot.privacy", b.Privacy}, {"foot.terms", b.Terms}} {
		if link.URL != "" {
			f.Foot = append(f.Foot, pageLink{f.T(link.Title), link.URL})
		}
	}
	f.Title = f.T(title)
	return f
}

// names returns what stands for names in texts. An empty one is not known.
func names(l *ui.Lang, app, provider string) []string {
	kind := ""
	if app == "" {
		app, kind = l.Say("an_app"), ".an_app"
	}
	return []string{
		"app", app, "provider", textOr(provider, l.Say("an_account")),
		"back", l.Say("back"+kind, "app", app), "people", l.Say("people"+kind, "app", app),
	}
}

func (h *Handler) render(w http.ResponseWriter, status int, name string, view any, may ui.Policy) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, view); err != nil { // a mistake in this program
		h.log.Error("page not rendered", zap.String("page", name), zap.Error(err))
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	ui.SetHeaders(w.Header(), may)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

type choice struct {
	Tile        ui.Tile
	Title, Link string
}

// searchFrom is how many integrations need a search.
const searchFrom = 12

type chooseView struct {
	frame
	Own     []ownView
	Choices []choice
	Search  bool
}

// choose lets the user pick an integration, below the connections that the user
// has. The links repeat what the app signed, with its end, since a browser
// can't sign.
func (h *Handler) choose(w http.ResponseWriter, r *http.Request, p Params) {
	view := chooseView{frame: h.frame(r, "", "choose.title")}
	for _, name := range slices.Sorted(maps.Keys(h.cfg.Integrations)) {
		in, _ := h.integration(name)
		if in.accepts(p.Params) != nil { // the link's parameters are for others
			continue
		}
		chosen := p
		chosen.Integration = name
		view.Choices = append(view.Choices, choice{
			ui.ProviderTile(in.ProviderName, in.Title), in.Title, h.cfg.Signer.Sign(chosen, p.Expires),
		})
	}
	if len(view.Choices) == 0 {
		h.refuse(w, r, failure{codeInvalidParameter, errors.New("link's parameters are no integration's")})
		return
	}
	view.Own = h.ownConnections(r.Context(), view.Lang, p)
	var may ui.Policy
	if view.Search = len(view.Choices) >= searchFrom; view.Search {
		view.Script, may.Script = h.base+"/connect/"+chooseScript.Name, true
	}
	h.render(w, http.StatusOK, "choose", view, may)
}

// ownConnections returns the user's connections that work, and those that have
// to be connected again, with a link for that. Where they can't be read, the
// page shows none.
func (h *Handler) ownConnections(ctx context.Context, l *ui.Lang, p Params) []ownView {
	own, _, err := h.userConnections(ctx, p.UserID)
	if err != nil {
		h.log.Warn("own connections not listed", zap.Error(err))
		return nil
	}
	var views []ownView
	for i := range own {
		v := h.ownView(l, &own[i], maskedName(own[i].Account))
		if v.Status != "active" && v.Status != "paused" && v.Status != "expired" {
			continue
		}
		if v.Status == "expired" && v.known {
			again := p
			again.Integration, again.ConnectionID = own[i].Integration, own[i].ID
			again.Scopes, again.Params, again.ConnectionName, again.Labels = nil, nil, "", nil
			v.Connect = h.cfg.Signer.Sign(again, p.Expires)
		}
		views = append(views, v)
	}
	return views
}

type scopeView struct {
	Text string // in plain words, or empty
	Name string
}

type reviewView struct {
	frame
	Tile                 ui.Tile
	Host, User, Continue string
	Cancel               exit
	Scopes               []scopeView
	Named                []string // the scopes whose names Text hides
}

// review shows what will be shared. The flow is stored already: Continue is a
// plain link to the provider.
func (h *Handler) review(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow, in Integration, authURL string) {
	view := reviewView{
		frame: h.frame(r, in.Title, "review.title"), Tile: ui.ProviderTile(in.ProviderName, in.Title),
		Host: hostOf(authURL), User: f.UserID, Continue: authURL, Cancel: h.exit(f, codeUserDenied),
	}
	view.Cancel.Text = view.T("cancel")
	for _, s := range f.Scopes {
		text := scopeText(view.Lang, in, s)
		view.Scopes = append(view.Scopes, scopeView{Text: text, Name: s})
		if text != "" {
			view.Named = append(view.Named, s)
		}
	}
	h.render(w, http.StatusOK, "review", view, ui.Policy{FormAction: view.Cancel.formAction()})
}

// scopeText returns what a scope allows in plain words, empty if unknown.
func scopeText(l *ui.Lang, in Integration, scope string) string {
	return ui.ScopeText(l, in.ProviderName, scope, in.Provider.ScopeText(scope))
}

// outcomeView is a page that says how something ended. Code, ErrorID, Again and
// Rows may be empty.
type outcomeView struct {
	frame
	Mark          string // ok, info, warn or bad
	Text, Next    string // keys of texts; empty: the page's own
	Why           string // the key of a title that Text quotes
	Code, ErrorID string
	Again         string // where the same begins anew
	AgainText     string
	Back          pageLink
	Rows          [][2]string
}

// outcome says how f ended, in the texts under key.
func (h *Handler) outcome(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow, status int, key string, view outcomeView) {
	provider := ""
	if in, ok := h.integration(f.Integration); ok && f.Integration != "" {
		provider = in.Title
	}
	view.frame = h.frame(r, provider, "")
	if !h.named { // the name is our own host's, where there is nothing to go back to
		view.names = names(view.Lang, "", provider)
	}
	view.Title, view.AgainText = view.T(key+".title"), view.T("start_again")
	if view.Lang.Has(key + ".again") {
		view.AgainText = view.T(key + ".again")
	}
	view.Text, view.Next = textOr(view.Text, key+".text"), textOr(view.Next, key+".next")
	if view.Why != "" {
		view.Why = view.T(view.Why)
	}
	view.Text, view.Next = view.T(view.Text, "title", view.Why), view.T(view.Next)
	if view.Back.URL == "" && view.Home != "" {
		view.Back = pageLink{view.T("back.button"), view.Home}
	}
	h.render(w, status, "outcome", view, ui.Policy{})
}

func textOr(key, other string) string {
	if key != "" {
		return key
	}
	return other
}

// again returns a link by which a flow that failed begins anew, in the browser
// in which it began; empty where that would be of no use or for somebody else.
func (h *Handler) again(r *http.Request, f *tokenstore.Flow, code string) string {
	switch code {
	case codeUserDenied, codeSourceError, codeProvisioning, codeTimeout:
	default:
		return ""
	}
	_, ok := h.integration(f.Integration)
	back := h.registered(f.RedirectURL) || f.RedirectURL == "" && len(h.cfg.RedirectURLs) == 0
	if f.ID == "" || f.Integration == "" || !ok || !back || !h.bound(r, f) {
		return ""
	}
	return h.anew(f)
}

// anew returns a connect link by which f begins anew: good for no longer than
// the user could have taken at the provider.
func (h *Handler) anew(f *tokenstore.Flow) string {
	p := Params{
		Integration: f.Integration, UserID: f.UserID, Scopes: f.Scopes, RedirectURL: f.RedirectURL, State: f.AppState,
		ConnectionName: f.ConnectionName, Labels: f.Labels, Params: f.Params, FormPost: f.FormPost,
	}
	if f.Reconnect {
		p.ConnectionID = f.ConnectionID
	}
	return h.cfg.Signer.Sign(p, wallNow().Add(tokenstore.FlowLife))
}

// success ends a flow that no app waits for.
func (h *Handler) success(w http.ResponseWriter, r *http.Request, in Integration, c *tokenstore.Connection) {
	l := words.For(r)
	view := outcomeView{Mark: "ok", Rows: [][2]string{{l.Say("user_of", "app", h.cfg.Brand.Name), c.UserID}}}
	if name := accountName(c.Account); name != "" {
		view.Rows = append(view.Rows, [2]string{l.Say("success.account"), name})
	}
	if len(c.Token.Scopes) > 0 {
		view.Rows = append(view.Rows, [2]string{l.Say("success.allowed"), scopeList(l, in, c.Token.Scopes)})
	}
	if missing := c.MissingScopes(); len(missing) > 0 {
		view.Rows = append(view.Rows, [2]string{l.Say("success.missing"), scopeList(l, in, missing)})
	}
	view.Rows = append(view.Rows, [2]string{l.Say("success.connection"), c.ID})
	h.outcome(w, r, &tokenstore.Flow{Integration: in.Name}, http.StatusOK, "success", view)
}

// scopeList returns scopes in plain words where there are some, else verbatim.
func scopeList(l *ui.Lang, in Integration, scopes []string) string {
	var texts []string
	for _, s := range scopes {
		texts = append(texts, textOr(scopeText(l, in, s), s))
	}
	return strings.Join(texts, ", ")
}

// maskedName returns enough of an account's name for its owner to know it by:
// who sees it has a link, which may have been forwarded.
func maskedName(a tokenstore.Account) string {
	if name, host, ok := strings.Cut(a.Email, "@"); ok {
		return firstOf(name) + "…@" + host
	}
	if name := accountName(a); name != "" {
		return firstOf(name) + "…"
	}
	return ""
}

func firstOf(s string) string {
	for _, r := range s {
		return string(r)
	}
	return ""
}

// accountName returns an account's name for people, empty if it is not known.
func accountName(a tokenstore.Account) string {
	switch {
	case a.Name != "" && a.Email != "" && a.Name != a.Email:
		return a.Name + " (" + a.Email + ")"
	case a.Name != "":
		return a.Name
	case a.Email != "":
		return a.Email
	}
	return a.ID
}
