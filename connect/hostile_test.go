package connect_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var hostile = map[string]string{
	"script":          `<script>alert(1)</script>`,
	"svg":             `<svg onload=alert(1)>`,
	"image":           `<img src=x onerror=alert(1)>`,
	"out of the attr": `"' onmouseover=alert(1) x="`,
	"out of the tag":  `"'></a></p></title></style></textarea>--><h1>x`,
	"comment":         `<!--`,
	"CDATA":           `<![CDATA[<b>]]>`,
	"entity":          `&lt;b&gt;&#60;script&#62;&quot;&NewLine;`,
	"link":            `javascript:alert(1)`,
	"templates":       `{{7*7}}${7*7}<%= 7*7 %>#{7*7}`,
	"our own":         `{provider}{app}{{.App}}{{define "x"}}`,
	"placeholders":    `{env.SECRET}{file./etc/passwd}{http.request.host}{$SECRET}`,
	"half a tag":      `<`,
	"full width":      `＜script＞`,
	"right to left":   "\u202eevil\u2066\u200f",
	"wide":            strings.Repeat("\u0e49", 200),
	"line break":      "\r\nSet-Cookie: evil=1\r\n\r\n<script>",
	"ANSI":            "\x1b[31mred\x1b[2J\x07",
	"NUL":             "a\x00b",
	"separators":      "\u2028\u2029\u0085",
	"10 KB":           strings.Repeat("<b>x</b>", 1280),
}

// saying are the strings of others that may reach a page or a header.
type saying struct{ App, Title, Other, Scope, User, Name, Label, State, Errc string }

func say(more string) saying {
	in := func(s string) string { return s + more + "end" }
	s := saying{in("Appname"), in("Titlename"), in("Othername"), in("Scopetext"), "Username", "Connectionname", "Labelname", "Statename", in("Errorname")}
	if len(more) < 250 && !strings.ContainsFunc(more, unicode.IsControl) { // else it is no link's
		s.User, s.Name, s.Label = in(s.User), in(s.Name), in(s.Label)
	}
	if len(more) < 450 {
		s.State = in(s.State)
	}
	return s
}

func newHostileBench(t *testing.T, s saying) *bench {
	t.Helper()
	b := newBench(t)
	b.cfg.Brand.Name = s.App
	b.integration(func(in *connect.Integration) { in.Title = s.Title })(b)
	b.cfg.Integrations["other"] = connect.Integration{Title: s.Other, Provider: b.p}
	b.p.texts = map[string]string{"read": s.Scope}
	b.p.scopes = []string{"read", "<svg/onload=alert(2)>"}
	b.remake()
	return b
}

func (b *bench) linkOf(s saying, change ...func(*connect.Params)) string {
	return b.link(append([]func(*connect.Params){func(p *connect.Params) {
		p.UserID, p.ConnectionName, p.State = s.User, s.Name, s.State
		p.Labels, p.Scopes = map[string]string{"k": s.Label}, []string{"read", "<svg/onload=alert(2)>"}
	}}, change...)...)
}

// everyPage returns every page there is, with these strings wherever they can
// be put; app says that there is an app to go back to.
func everyPage(t *testing.T, s saying, app bool) map[string]*httptest.ResponseRecorder {
	t.Helper()
	all := map[string]*httptest.ResponseRecorder{}
	// page adds one, from a bench of its own.
	page := func(name string, get func(b *bench, br *browser) *httptest.ResponseRecorder) {
		b := newHostileBench(t, s)
		if !app {
			b.cfg.RedirectURLs = nil
			b.remake()
		}
		all[name] = get(b, b.browser())
	}
	words := []string{"error_description", s.Errc, "error_uri", "javascript:alert(1)//" + s.Errc}
	failed := func(name string, change func(*bench), more ...string) {
		page(name, func(b *bench, br *browser) *httptest.ResponseRecorder {
			state := br.open(b.linkOf(s))
			if change != nil {
				change(b)
			}
			return br.callback(state, append(more, words...)...)
		})
	}
	page("choose", func(b *bench, br *browser) *httptest.ResponseRecorder {
		return br.get(b.linkOf(s, func(p *connect.Params) { p.Integration = "" }))
	})
	page("review", func(b *bench, br *browser) *httptest.ResponseRecorder {
		b.integration(func(in *connect.Integration) { in.Review = true })(b)
		b.remake()
		return br.get(b.linkOf(s))
	})
	page("not_found", func(_ *bench, br *browser) *httptest.ResponseRecorder {
		return br.get(public + "/connect/" + url.PathEscape(s.Errc))
	})
	page("host_invalid", func(b *bench, br *browser) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, b.linkOf(s), nil)
		r.Host = s.Errc
		return br.do(r)
	})
	page("method_not_allowed", func(b *bench, br *browser) *httptest.ResponseRecorder {
		return br.do(httptest.NewRequest(http.MethodPost, b.linkOf(s), strings.NewReader(s.Errc)))
	})
	page("link_invalid", func(b *bench, br *browser) *httptest.ResponseRecorder {
		return br.get(b.linkOf(s) + url.QueryEscape(s.Errc))
	})
	page("link_expired", func(b *bench, br *browser) *httptest.ResponseRecorder {
		return br.get(b.signer.Sign(connect.Params{UserID: s.User, State: s.State}, time.Now().Add(-time.Hour)))
	})
	page("redirect_uri_mismatch", func(b *bench, br *browser) *httptest.ResponseRecorder {
		return br.get(b.linkOf(s, func(p *connect.Params) { p.RedirectURL = "https://evil.example/" + s.Label }))
	})
	page("connection_not_found", func(b *bench, br *browser) *httptest.ResponseRecorder {
		return br.get(b.linkOf(s, func(p *connect.Params) { p.ConnectionID = s.Label }))
	})
	page("invalid_parameter", func(b *bench, br *browser) *httptest.ResponseRecorder {
		return br.get(b.linkOf(s, func(p *connect.Params) { p.Params = map[string]string{"shop": s.Label} }))
	})
	page("rate_limited", func(b *bench, br *browser) *httptest.ResponseRecorder {
		for range 20 {
			br.get(b.linkOf(s))
		}
		return br.get(b.linkOf(s))
	})
	page("unavailable", func(b *bench, br *browser) *httptest.ResponseRecorder {
		state := br.open(b.linkOf(s))
		_ = b.h.Close(t.Context())
		return br.callback(state)
	})
	page("browser_mismatch", func(b *bench, br *browser) *httptest.ResponseRecorder {
		return b.browser().callback(br.open(b.linkOf(s)), append(words, "error", s.Errc)...)
	})
	page("issuer_mismatch", func(b *bench, br *browser) *httptest.ResponseRecorder {
		b.p.issuer = "https://idp.example"
		return br.callback(br.open(b.linkOf(s)), append(words, "error", s.Errc, "iss", s.Errc)...)
	})
	page("state_invalid", func(_ *bench, br *browser) *httptest.ResponseRecorder {
		return br.callback(s.State, append(words, "error", s.Errc)...)
	})
	for name, more := range map[string][]string{
		"connected": nil, "denied": {"error", "access_denied"}, "error": {"error", s.Errc}, "scope": {"error", "invalid_scope"},
	} {
		page("state_used "+name, func(b *bench, br *browser) *httptest.ResponseRecorder {
			state := br.open(b.linkOf(s))
			br.callback(state, more...)
			return br.callback(state, append(words, "error", s.Errc)...)
		})
	}
	failed("user_denied", nil, "error", "access_denied")
	failed("source_error", nil, "error", s.Errc)
	failed("source_error, the server's words", func(b *bench) { b.p.parseErr = errors.New(s.Errc) }, "code", codeText)
	failed("invalid_scope", nil, "error", "invalid_scope")
	failed("provisioning_failed", failStore("CreateConnection"), "code", codeText)
	failed("success", nil, "code", codeText)
	failed("timeout", func(b *bench) {
		for _, f := range b.flows() {
			_, err := b.mem.UpdateFlow(t.Context(), f, func(f *tokenstore.Flow) error { f.ExpiresAt = time.Now(); return nil })
			if err != nil {
				t.Fatal(err)
			}
		}
	}, "code", codeText)
	return all
}

// flows returns the IDs of the flows that the bench's links have begun.
func (b *bench) flows() []string {
	var ids []string
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	for _, state := range b.p.states {
		ids = append(ids, secretHash(state))
	}
	return ids
}

// chance is what is random on a page: a reference, a connection's ID.
var chance = regexp.MustCompile(`^([a-z2-7]{10}|conn_[A-Z2-7]{26})$`)

// read returns the elements of a page with their attributes' names, its text
// without what is random, and where its attributes lead.
func read(t *testing.T, body string) (shape []string, text string, targets []string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for n := range root.Descendants() {
		switch n.Type {
		case html.ElementNode:
			line := n.Data
			for _, a := range n.Attr {
				line += " " + a.Key
				switch a.Key {
				case "href", "src", "action":
					targets = append(targets, a.Val)
				}
			}
			shape = append(shape, line)
		case html.TextNode:
			if !chance.MatchString(n.Data) {
				all.WriteString(n.Data + "\n")
			}
		default:
			shape = append(shape, fmt.Sprintf("node of type %d", n.Type))
		}
	}
	return shape, all.String(), targets
}

// TestHostileStrings: A053, A054, A057. Whatever others say stands on a page as
// text, letter by letter, or not at all. A page with it has the elements and
// attributes of one without.
func TestHostileStrings(t *testing.T) {
	t.Setenv("SECRET", "expanded-canary")
	tame := say("")
	for _, app := range []bool{true, false} {
		plain := everyPage(t, tame, app)
		for name, more := range hostile {
			if app && !slices.Contains([]string{"script", "out of the attr", "line break", "our own", "10 KB"}, name) {
				continue // it is the same pages, but for the failures that the app is told
			}
			t.Run(fmt.Sprintf("A053 A054 A057 %s app=%v", name, app), func(t *testing.T) {
				s := say(more)
				for page, w := range everyPage(t, s, app) {
					assertSafe(t, page, w, more)
					if w.Code != plain[page].Code {
						t.Errorf("%s = %d, without hostile strings %d", page, w.Code, plain[page].Code)
					}
					if w.Body.Len() == 0 {
						continue
					}
					shape, text, _ := read(t, w.Body.String())
					wantShape, wantText, _ := read(t, plain[page].Body.String())
					if d := cmp.Diff(wantShape, shape); d != "" {
						t.Errorf("elements of %s (-want +got):\n%s", page, d)
					}
					want := strings.NewReplacer(tame.App, s.App, tame.Title, s.Title, tame.Other, s.Other, tame.Scope, s.Scope, tame.User, s.User).Replace(wantText)
					// HTML knows no CR and no NUL.
					want = strings.NewReplacer("\r\n", "\n", "\x00", "\ufffd").Replace(want)
					if d := cmp.Diff(want, strings.ReplaceAll(text, "\x00", "\ufffd")); d != "" {
						t.Errorf("text of %s (-want +got):\n%s", page, d)
					}
				}
			})
		}
	}
}

// assertSafe checks what must hold of every answer.
func assertSafe(t *testing.T, page string, w *httptest.ResponseRecorder, more string) {
	t.Helper()
	t.Helper()
	for key, values := range w.Header() {
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00\x1b<>") || strings.Contains(v, "expanded-canary") ||
				strings.Contains(v, more) && len(more) > 1 || key == "Set-Cookie" && strings.Contains(v, "evil=") {
				t.Errorf("%s: header %s = %q", page, key, v)
			}
		}
	}
	if loc := w.Header().Get("Location"); loc != "" {
		q := mustURL(loc).Query()
		if !strings.HasPrefix(loc, appURL+"?") || strings.Contains(q.Get("error")+q.Get("error_description"), "Errorname") || q.Has("error_uri") {
			t.Errorf("%s leads to %q", page, loc)
		}
	}
	body := w.Body.String()
	if strings.Contains(body, "expanded-canary") || strings.Contains(body, "Errorname") || strings.Contains(body, "evil.example") {
		t.Errorf("%s says what it must not:\n%s", page, body)
	}
	_, _, targets := read(t, body)
	for _, target := range targets {
		ok := target == "#main" || strings.HasPrefix(target, "/connect/") || strings.HasPrefix(target, public+"/connect?") ||
			strings.HasPrefix(target, "https://idp.example/authorize?") || strings.HasPrefix(target, appURL+"?error=user_denied&")
		if !ok {
			t.Errorf("%s leads to %q", page, target)
		}
	}
}

// TestEveryPage: everyPage shows a page for every code there is.
func TestEveryPage(t *testing.T) {
	pages := everyPage(t, say(""), false)
	for _, code := range connect.Codes() {
		shown := slices.ContainsFunc(slices.Collect(maps.Values(pages)), func(w *httptest.ResponseRecorder) bool {
			return strings.Contains(w.Body.String(), `<dd class="mono">`+code+`</dd>`)
		})
		// Pages of their own tests, which no callback leads to.
		elsewhere := []string{"user_denied", "account_mismatch", "disconnect_failed", "form_invalid"}
		if !shown && !slices.Contains(elsewhere, code) {
			t.Errorf("no page shows %s", code)
		}
	}
	if !strings.Contains(pages["user_denied"].Body.String(), "You did not connect") {
		t.Error("no page shows user_denied")
	}
}

// TestHostileLinks: a link can't say what is no text, or too much of it.
func TestHostileLinks(t *testing.T) {
	for _, name := range []string{"line break", "ANSI", "NUL", "10 KB"} {
		for field, change := range map[string]func(*connect.Params, string){
			"user_id":         func(p *connect.Params, s string) { p.UserID = s },
			"connection_name": func(p *connect.Params, s string) { p.ConnectionName = s },
			"a label":         func(p *connect.Params, s string) { p.Labels = map[string]string{"k": s} },
			"params":          func(p *connect.Params, s string) { p.Params = map[string]string{"shop": s} },
			"a label's name":  func(p *connect.Params, s string) { p.Labels = map[string]string{s: "v"} },
			"integration":     func(p *connect.Params, s string) { p.Integration = s },
			"redirect_url":    func(p *connect.Params, s string) { p.RedirectURL = appURL + s },
			"scopes":          func(p *connect.Params, s string) { p.Scopes = []string{s} },
			"connection_id":   func(p *connect.Params, s string) { p.ConnectionID = s },
		} {
			t.Run("A057 "+name+" in "+field, func(t *testing.T) {
				b := newBench(t)
				w := b.browser().get(b.link(func(p *connect.Params) { change(p, hostile[name]) }))
				told := w.Code == http.StatusSeeOther && strings.HasPrefix(w.Header().Get("Location"), appURL+"?error=invalid_scope&")
				if w.Code != 400 && w.Code != 404 && !told || len(b.p.asked) != 0 {
					t.Errorf("got %d %v", w.Code, w.Header())
				}
			})
		}
	}
}
