package dashboard_test

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/lanyard-proxy/lanyard/dashboard"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

// TestWordsAgree: each text is there in each language, with the same values in
// it, and whatever has to be told has a text.
func TestWordsAgree(t *testing.T) {
	langs := dashboard.Words().Langs()
	if len(langs) < 2 || langs[0].Tag != "en" {
		t.Fatalf("languages: %v", langs)
	}
	english := langs[0]
	for _, l := range langs[1:] {
		for _, key := range slices.Concat(english.Keys(), l.Keys()) {
			want, got := placeholder.FindAllString(english.Say(key), -1), placeholder.FindAllString(l.Say(key), -1)
			slices.Sort(want)
			slices.Sort(got)
			if strings.HasSuffix(key, ".one") { // a language may say that there is one without its number
				want, got = nil, nil
			}
			if !l.Has(key) || !english.Has(key) || !slices.Equal(want, got) {
				t.Errorf("%s: %s has %v, in English %v", l.Tag, key, got, want)
			}
		}
	}
	for _, name := range dashboard.Notices() {
		if !english.Has("done." + name) {
			t.Errorf("nothing is said of %s", name)
		}
	}
	for _, name := range slices.Concat(dashboard.EventTypes(), eventTypes(t)) {
		if !english.Has("event." + name) {
			t.Errorf("the event %s has no text", name)
		}
	}
}

// eventTypes returns the types of events that the store knows.
func eventTypes(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile("../tokenstore/event.go")
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, m := range regexp.MustCompile(`EventType = "([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
		types = append(types, m[1])
	}
	if len(types) < 20 {
		t.Fatalf("found %v", types)
	}
	return types
}

// TestNoHardCodedText: what stands on a page comes from the table of words, from
// the configuration, from the store, or from a Caddyfile.
func TestNoHardCodedText(t *testing.T) {
	defer dashboard.UsePseudo()()
	d := newDesk(t)
	given := regexp.MustCompile(`^(Lanyard|[A-Z]|[0-9]+|!|/|·|ada|gone|.*given.*|user_1|fake|OAUTH2|read|write|Fake Provider.*|api\.fake\.example|` +
		`See what you have|https?://.*|\{.*\}|[a-z_]+|conn_.*|⟧|× 3)$`)
	full := d.connection(func(c *tokenstore.Connection) {
		c.Name, c.Labels, c.Params = "given", map[string]string{"given": "given"}, map[string]string{"given": "given"}
		c.Account = tokenstore.Account{ID: "given", Name: "given", Email: "given"}
		c.Metadata, c.RequestedScopes = `{"plan":"pro"}`, []string{"read", "write"}
		c.LastUsedAt, c.Token.RefreshExpiresAt = time.Now().Add(-50*time.Hour), time.Now().Add(50*time.Hour)
		c.Happened(tokenstore.Event{Type: tokenstore.EventRefreshed, Actor: tokenstore.Actor{Kind: tokenstore.ActorLanyard}})
		c.Happened(tokenstore.Event{Type: tokenstore.EventRefreshFailed, Reason: "given", Actor: tokenstore.Actor{Kind: tokenstore.ActorClient, Name: "given", From: "given"}})
	})
	dead := d.connection(func(c *tokenstore.Connection) { c.Expire(tokenstore.ReasonInvalidGrant) })
	off := d.connection(func(c *tokenstore.Connection) { c.Disabled, c.Integration = true, "gone" })
	d.parts.Record(t.Context(), tokenstore.Event{Type: tokenstore.EventKeyRefused, Actor: tokenstore.Actor{From: "given"}, Denied: true, Count: 3})
	at := "/admin/connections/"
	pages := map[string]answer{
		"link": d.post(at+dead.ID, at+dead.ID+"/link"), "no link": d.post(at+full.ID, at+off.ID+"/link"),
		"foreign form": d.do(http.MethodPost, at+full.ID+"/delete", nil, nil), "method": d.do(http.MethodPut, "/admin/", nil, nil),
		"early": d.do(http.MethodPost, at+full.ID+"/delete", nil, func(r *http.Request) { r.Header.Set("Early-Data", "1") }),
	}
	for _, path := range []string{
		"", "?status=FAILED", "?user=x", "?label=x", "events", "events?connection_id=" + full.ID, "connections/" + full.ID,
		"connections/" + dead.ID, "connections/" + off.ID, "connections/" + full.ID + "/disconnect", "connections/" + full.ID + "/delete",
	} {
		pages[path] = d.get("/admin/" + path)
	}
	for _, name := range dashboard.Notices() {
		pages[name] = d.get("/admin/?done=" + name)
	}
	d.who.Name = ""
	pages["closed"] = d.get("/admin/")
	d.who.Name = "ada"
	broken, err := dashboard.New(dashboard.Config{
		Store: damaged{d.store}, Refresher: d.parts, Links: d.parts, Revoker: d.parts, Audit: d.parts, Key: secret.New("key"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broken.Close)
	d.handler = broken
	pages["damaged list"], pages["damaged"] = d.get("/admin/"), d.get("/admin/connections/conn_damaged")

	for name, a := range pages {
		root, err := html.Parse(strings.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		for n := range root.Descendants() {
			if n.Type == html.ElementNode {
				for _, attr := range n.Attr {
					if slices.Contains([]string{"aria-label", "title", "placeholder", "alt", "data-copied"}, attr.Key) && attr.Val != "" && !strings.Contains(attr.Val, "⟦") {
						t.Errorf("%s says %s=%q, which is in no table", name, attr.Key, attr.Val)
					}
				}
				continue
			}
			text := strings.TrimSpace(n.Data)
			if n.Type != html.TextNode || text == "" || n.Parent.Data == "pre" || strings.Contains(text, "⟦") {
				continue
			}
			for part := range strings.SplitSeq(text, " · ") {
				if part = strings.Trim(part, " ·,–"); part != "" && !given.MatchString(part) {
					t.Errorf("%s says %q, which is in no table", name, part)
				}
			}
		}
	}
}

// TestLanguages: pages speak the language that the browser asks for, in their
// numbers, times and names too.
func TestLanguages(t *testing.T) {
	d := newDesk(t)
	c := d.connection(func(c *tokenstore.Connection) {
		c.Expire(tokenstore.ReasonInvalidGrant)
		c.CreatedAt = time.Date(2026, 3, 9, 14, 30, 5, 0, time.UTC)
		c.Happened(tokenstore.Event{Type: tokenstore.EventRefreshed, Actor: tokenstore.Actor{Kind: tokenstore.ActorLanyard}})
		c.LastUsedAt = time.Now().Add(-24*time.Hour - time.Minute)
	})
	for accept, texts := range map[string][]string{
		"": {`<html lang="en" dir="ltr">`, "Reconnect needed", "has to connect again", "by Lanyard itself", "1 day ago", "9 Mar 2026, 14:30:05 UTC"},
		"de-AT,de;q=0.9": {
			`<html lang="de" dir="ltr">`, "Neu zu verbinden", "muss neu verbinden", "durch Lanyard selbst", "vor 1 Tag", "9. März 2026, 14:30:05 UTC",
		},
	} {
		a := d.do(http.MethodGet, "/admin/connections/"+c.ID, nil, func(r *http.Request) { r.Header.Set("Accept-Language", accept) })
		d.want(a, http.StatusOK, texts...)
	}
}
