package connect

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

// What the pages with a form show. The flow behind them is stored and open; its
// cookie is set by whoever shows the page.

// What can be wrong with what somebody entered: in a fieldView's Problem about
// that value, in a keyView's about all of them.
const (
	problemMissing = "missing" // nothing was entered
	problemForm    = "form"    // it is not of the field's form
	problemRefused = "refused" // the provider was tried, and does not take it
	problemLater   = "later"   // the provider could not be asked
)

// keyView is the form for what a link does not say: a credential, or
// connection parameters.
type keyView struct {
	// Flow says for whom and where Cancel leads.
	Flow *tokenstore.Flow
	// In is the flow's integration.
	In Integration
	// Params: the fields are connection parameters, not a credential.
	Params bool
	// Action is the path under {public_url} to which the form is posted, such as
	// `/connect/key`; State goes with it in the hidden field `state`.
	Action, State string
	// Fields are what is asked for. None: a page with a Connect button alone.
	Fields []fieldView
	// Problem is what is wrong with all of them together, empty if nothing is.
	Problem string
}

// fieldView is one field of the form, which comes back under the name
// `field_` + Name.
type fieldView struct {
	tokenstore.Field
	// Value was entered before; it is never shown for a secret one.
	Value string
	// Ending is the end of a secret value that was entered before and not taken,
	// at most 4 characters of at least 12. Empty: not said.
	Ending string
	// Problem is what is wrong with the value, empty if nothing is.
	Problem string
}

// exit is how a page leads back to the app, telling it an error. The zero
// value: there is no app to go back to.
type exit struct {
	URL    string
	Fields [][2]string // not nil: posted to URL as a form
	Text   string      // what the link or the button says
}

// exit returns the way back to f's app that tells it the code.
func (h *Handler) exit(f *tokenstore.Flow, code string) exit {
	if f.RedirectURL == "" || !h.registered(f.RedirectURL) {
		return exit{}
	}
	pairs := []string{"error", code, "error_description", replies[code].told, "state", f.AppState}
	if f.FormPost {
		return exit{URL: f.RedirectURL, Fields: formFields(pairs)}
	}
	return exit{URL: returnURL(f.RedirectURL, pairs...)}
}

func formFields(pairs []string) [][2]string {
	fields := [][2]string{}
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			fields = append(fields, [2]string{pair[0], pair[1]})
		}
	}
	return fields
}

// formAction returns the CSP source to which the exit's form goes, empty if it
// has none: the app's origin, since browsers hold what the app answers with
// against it, too.
func (e exit) formAction() string {
	if e.Fields == nil {
		return ""
	}
	u, err := url.Parse(e.URL)
	if err != nil {
		return "" // never: it is a registered redirect URL
	}
	return u.Scheme + "://" + u.Host
}

type fieldPage struct {
	ID, Name, Label, Type, Value, Help, Ending, Error, Optional string
	Described                                                   string // the IDs of what is said about it
	Long                                                        bool   // a text of several lines
}

type keyHTML struct {
	frame
	Tile                        ui.Tile
	Lead, Action, State, Submit string
	User                        string
	Fields                      []fieldPage
	Errors                      []pageLink // the summary; URL is empty for what is wrong with all
	Cancel                      exit
}

// keyPage shows a keyView. The status is 200 for an empty form, else 422.
func (h *Handler) keyPage(w http.ResponseWriter, r *http.Request, status int, v keyView) {
	title, lead, submit := "key.title", "key.lead", "key.do"
	switch {
	case v.Params:
		title, lead, submit = "params.title", "params.lead", "params.do"
	case len(v.Fields) == 0:
		lead = "key.lead.client"
	case words.For(r).Has(title + "." + v.Fields[0].Name):
		title += "." + v.Fields[0].Name
	}
	page := keyHTML{
		frame: h.frame(r, v.In.Title, title), Tile: ui.ProviderTile(v.In.ProviderName, v.In.Title),
		Action: h.base + v.Action, State: v.State, User: v.Flow.UserID, Cancel: h.exit(v.Flow, codeUserDenied),
	}
	page.Lead, page.Submit, page.Cancel.Text = page.T(lead), page.T(submit), page.T("cancel")
	switch v.Problem {
	case "":
	case problemRefused:
		page.Errors = append(page.Errors, pageLink{page.T("problem.refused.all"), ""})
	case problemForm:
		page.Errors = append(page.Errors, pageLink{page.T("problem.form.all"), ""})
	default:
		page.Errors = append(page.Errors, pageLink{page.T("problem." + v.Problem), ""})
	}
	for i := range v.Fields {
		field := page.field(&v.Fields[i])
		if field.Error != "" {
			page.Errors = append(page.Errors, pageLink{field.Error, "#" + field.ID})
		}
		page.Fields = append(page.Fields, field)
	}
	page.Problem = len(page.Errors) > 0
	may := ui.Policy{FormAction: strings.TrimSpace(h.formAction(v.Action) + " " + page.Cancel.formAction())}
	h.render(w, status, "key", page, may)
}

// formAction is the CSP source of a form of our own, exact to the path.
func (h *Handler) formAction(path string) string {
	return h.cfg.PublicURL.Scheme + "://" + h.cfg.PublicURL.Host + h.base + path
}

func (p *keyHTML) field(v *fieldView) fieldPage {
	label := textOr(v.Title, v.Name)
	if v.Title == "" && p.Lang.Has("field."+v.Name) {
		label = p.T("field." + v.Name)
	}
	f := fieldPage{
		ID: "f-" + v.Name, Name: fieldPrefix + v.Name, Label: label, Type: "text",
		Help: v.HelpURL, Long: v.Name == "key",
	}
	switch {
	case v.Name == "password":
		f.Type = "password"
	case !v.Secret:
		f.Value = v.Value
	}
	if v.Ending != "" {
		f.Ending = p.T("field.ending", "ending", v.Ending)
	}
	switch {
	case v.Default != "":
		f.Optional = p.T("field.optional.default", "default", v.Default)
	case v.Optional:
		f.Optional = p.T("field.optional")
	}
	if f.Help != "" || f.Ending != "" || f.Optional != "" {
		f.Described = f.ID + "-hint"
	}
	if v.Problem != "" {
		f.Error = p.T("problem."+v.Problem, "field", label)
		f.Described = strings.TrimSpace(f.Described + " " + f.ID + "-error")
	}
	return f
}

// mismatchView says that a reconnect came back with another account.
type mismatchView struct {
	Flow *tokenstore.Flow
	In   Integration
	// Had is the connection's account, Got the one that was chosen.
	Had, Got tokenstore.Account
	// Again is a connect link by which the same flow begins anew.
	Again string
}

type mismatchHTML struct {
	frame
	Text, Again string
	Back        exit
}

// mismatchPage shows a mismatchView, with a way back to the app that tells it
// account_mismatch.
func (h *Handler) mismatchPage(w http.ResponseWriter, r *http.Request, v mismatchView) {
	page := mismatchHTML{frame: h.frame(r, v.In.Title, "mismatch.title"), Again: v.Again, Back: h.exit(v.Flow, codeAccountMismatch)}
	page.Text, page.Back.Text = page.T("mismatch.unknown"), page.T("back.button")
	if had, got := maskedName(v.Had), accountName(v.Got); had != "" && got != "" {
		page.Text = page.T("mismatch.known", "had", had, "got", got)
	}
	h.render(w, replies[codeAccountMismatch].status, "mismatch", page, ui.Policy{FormAction: page.Back.formAction()})
}

type postHTML struct {
	frame
	To exit
}

// postPage lets the browser post name, value, name, value … to the app's
// registered redirect URL: at once by a script, or by a button. Empty values
// are left out.
func (h *Handler) postPage(w http.ResponseWriter, r *http.Request, redirectURL string, pairs ...string) {
	page := postHTML{h.frame(r, "", "post.title"), exit{URL: redirectURL, Fields: formFields(pairs)}}
	page.Script = h.base + "/connect/" + postScript.Name
	h.render(w, http.StatusOK, "post", page, ui.Policy{Script: true, FormAction: page.To.formAction()})
}

// onwardPage leads from a form of our own to the app at target, at once by a
// script, or by a link.
func (h *Handler) onwardPage(w http.ResponseWriter, r *http.Request, _ *tokenstore.Flow, target string) {
	page := postHTML{h.frame(r, "", "post.title"), exit{URL: target}}
	page.Script = h.base + "/connect/" + postScript.Name
	h.render(w, http.StatusOK, "post", page, ui.Policy{Script: true})
}
