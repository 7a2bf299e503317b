package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// axeDir is an npm package of its own, with nothing but axe-core in it.
const axeDir = "axe"

// axeSource returns the script of axe-core.
var axeSource = sync.OnceValues(func() (string, error) {
	body, err := os.ReadFile(filepath.Join(axeDir, "node_modules", "axe-core", "axe.min.js"))
	return string(body), err
})

// audited is a page that has to be fit for everybody.
type audited struct {
	name string
	// open leads a tab to the page, by links and forms as users have them.
	open func(w *world, b *tab) page
	says string // what stands on it
	// act is what the link or button that is pressed with Enter at last begins
	// with, the letter of its tile included; empty: there is none.
	act string
	// scripted are the buttons that are there with JavaScript only.
	scripted int
}

// audit opens each page with and without JavaScript and checks it. Console and
// CSP messages fail any test that uses a tab.
func (w *world) audit(pages []audited) {
	installNPM(w.t, axeDir)
	for _, p := range pages {
		w.t.Run(p.name, func(t *testing.T) {
			w := w.of(t)
			b := w.browser()
			if opened := p.open(w, b); !strings.Contains(opened.Text, p.says) {
				t.Fatalf("the page does not say %q: HTTP %d %s", p.says, opened.Status, opened.Text)
			}
			b.shoot("axe-" + p.name)
			b.axe(look{1200, "light"}, look{320, "dark"})
			b.narrow()
			controls := b.controls()
			b.tabThrough()
			if p.act != "" {
				b.enter(p.act)
			}

			still := w.browser()
			still.withoutScripts()
			if opened := p.open(w, still); !strings.Contains(opened.Text, p.says) {
				t.Fatalf("without JavaScript the page does not say %q: %s", p.says, opened.Text)
			}
			if got := still.controls(); got != controls-p.scripted {
				t.Errorf("without JavaScript the page has %d links and fields; want the %d it has with it, but for %d", got, controls, p.scripted)
			}
			if p.act != "" {
				still.press(p.act)
			}
			w.forgetCallbacks()
		})
	}
}

// auditNarrow opens each page once, as somebody has it on a telephone who reads
// this language.
func (w *world) auditNarrow(language string, pages []audited) {
	installNPM(w.t, axeDir)
	for _, p := range pages {
		w.t.Run(p.name, func(t *testing.T) {
			w := w.of(t)
			b := w.browser()
			b.asksFor(language)
			if opened := p.open(w, b); !strings.Contains(opened.Text, p.says) {
				t.Fatalf("the page does not say %q: HTTP %d %s", p.says, opened.Status, opened.Text)
			}
			if got := eval[string](b, `document.documentElement.lang`); got != language {
				t.Errorf("the page says that it is in %q", got)
			}
			b.shoot("axe-" + p.name)
			b.axe(look{320, "dark"})
			b.narrow()
		})
	}
}

// asksFor sets the language that the tab asks for.
func (b *tab) asksFor(language string) {
	b.w.t.Helper()
	_, err := chromedp.Call(b.ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{
		Headers: network.Headers{"Accept-Language": language},
	})
	if err != nil {
		b.w.t.Fatalf("setting the language: %v", err)
	}
}

// forgetCallbacks makes room for what the app is told by the next page.
func (w *world) forgetCallbacks() {
	for {
		select {
		case <-w.app.callbacks:
		default:
			return
		}
	}
}

// of returns the same world for a subtest. Its mutex and its child stay with the
// first: only t is another.
func (w *world) of(t *testing.T) *world {
	t.Helper()
	return &world{
		t: t, site: w.site, fake: w.fake, app: w.app, apiKey: w.apiKey, clientKey: w.clientKey, secret: w.secret, bin: w.bin, environ: w.environ,
	}
}

// axeTags are the rules of WCAG 2.2 AA.
const axeTags = `["wcag2a","wcag2aa","wcag21a","wcag21aa","wcag22aa"]`

// violation is what axe has found.
type violation struct {
	ID    string `json:"id"`
	Help  string `json:"help"`
	Nodes []struct {
		HTML    string `json:"html"`
		Summary string `json:"failureSummary"`
	} `json:"nodes"`
}

// look is a screen that a page is looked at on.
type look struct {
	width  int64 // in pixels
	scheme string
}

// axe runs axe-core in the page, once for each look.
func (b *tab) axe(looks ...look) {
	b.w.t.Helper()
	source, err := axeSource()
	if err != nil {
		b.w.t.Fatalf("axe-core is not installed: %v", err)
	}
	eval[bool](b, "(() => {"+source+"; return true})()")
	for _, look := range looks {
		b.do(chromedp.EmulateViewport(look.width, 800))
		b.scheme(look.scheme)
		b.settle()
		found := awaited[string](b, `axe.run(document, {runOnly: `+axeTags+`, resultTypes: ["violations"]})
			.then((r) => JSON.stringify(r.violations))`)
		var violations []violation
		if err := json.Unmarshal([]byte(found), &violations); err != nil {
			b.w.t.Fatal(err)
		}
		for _, v := range violations {
			for _, n := range v.Nodes[:min(len(v.Nodes), 3)] {
				b.w.t.Errorf("%s, %d pixels: %s: %s\n%s\n%s", look.scheme, look.width, v.ID, v.Help, n.HTML, n.Summary)
			}
		}
	}
	b.scheme("light")
	b.do(chromedp.EmulateViewport(1200, 900))
}

// settle ends what moves: colours that fade into others would be judged half way.
func (b *tab) settle() {
	b.w.t.Helper()
	awaited[bool](b, `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
		for (const a of document.getAnimations()) { a.finish(); }
		done(true);
	})))`)
}

// outside are the elements that have more in them than is seen, but for those
// that can be scrolled by themselves and those that are for screen readers alone.
const outside = `[...document.querySelectorAll("body *")].filter((e) => e.clientWidth > 1 && e.checkVisibility()
	&& e.scrollWidth > e.clientWidth + 1 && !["auto", "scroll"].includes(getComputedStyle(e).overflowX) && !e.closest(".skip,.vh,svg,input,select"))`

// narrow checks that the page needs no scrolling to the side at 320 pixels, and
// that nothing of it is cut off (WCAG 1.4.10).
func (b *tab) narrow() {
	b.w.t.Helper()
	b.do(chromedp.EmulateViewport(320, 640))
	if over := eval[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		b.w.t.Errorf("the page is %d pixels too wide for a screen of 320", over)
	}
	if cut := eval[string](b, outside+`.slice(0, 5).map((e) => (e.scrollWidth - e.clientWidth) + " pixels: " + e.outerHTML.slice(0, 200)).join("\n")`); cut != "" {
		b.w.t.Errorf("at 320 pixels this is too wide for its place:\n%s", cut)
	}
	b.do(chromedp.EmulateViewport(1200, 900))
}

// focusable are the elements that the keyboard has to reach, those inside custom
// elements too.
const focusable = `((all) => all(document))((function all(root) {
	return [...root.querySelectorAll("*")].flatMap((e) => e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]);
})).filter((e) => e.matches('a[href],button,input:not([type=hidden]),select,textarea,summary,[tabindex="0"]')
	&& !e.disabled && e.checkVisibility({visibilityProperty: true}))`

// focused is the element that has the focus.
const focused = `((e) => { while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement; return e })(document.activeElement)`

// controls returns how many there are.
func (b *tab) controls() int {
	b.w.t.Helper()
	return eval[int](b, focusable+`.length`)
}

// tabThrough presses Tab as often as there are controls, and checks that each is
// reached and shows that it is.
func (b *tab) tabThrough() {
	b.w.t.Helper()
	n := b.controls()
	eval[bool](b, `(() => { document.activeElement.blur(); window.scrollTo(0, 0); window.__reached = new Set(); return true })()`)
	for range n {
		b.do(chromedp.KeyEvent(kb.Tab))
		if fault := eval[string](b, `(() => {
			const e = `+focused+`;
			if (!e || e === document.body) return "";
			window.__reached.add(e);
			const shown = (x) => x && parseFloat(getComputedStyle(x).outlineWidth) > 0 && getComputedStyle(x).outlineStyle !== "none";
			if (!shown(e) && !shown(e.closest(":focus-within:not(body,html,main)")) && !shown(e.parentElement)) return "focus is not visible on " + e.outerHTML.slice(0, 200);
			const box = e.getBoundingClientRect();
			if (box.bottom < 0 || box.top > innerHeight) return "focus is off the screen on " + e.outerHTML.slice(0, 200);
			return "";
		})()`); fault != "" {
			b.w.t.Error(fault)
		}
	}
	missed := eval[string](b, focusable+`.filter((e) => !window.__reached.has(e)).map((e) => e.outerHTML.slice(0, 200)).join("\n")`)
	if missed != "" {
		b.w.t.Errorf("%d presses of Tab do not reach\n%s", n, missed)
	}
}

// enter goes to the link or button with this text by Tab, and presses Enter.
func (b *tab) enter(text string) page {
	b.w.t.Helper()
	eval[bool](b, `(() => { document.activeElement.blur(); return true })()`)
	for range b.controls() + 1 {
		b.do(chromedp.KeyEvent(kb.Tab))
		if strings.HasPrefix(strings.TrimSpace(eval[string](b, focused+`.textContent.replace(/\s+/g, " ")`)), text) {
			return b.load("pressing Enter on "+text, chromedp.KeyEvent(kb.Enter))
		}
	}
	b.w.t.Fatalf("Tab does not reach %q", text)
	return page{}
}

// withoutScripts turns the tab's JavaScript off.
func (b *tab) withoutScripts() {
	b.w.t.Helper()
	b.scripts(false)
}

func (b *tab) scripts(on bool) {
	b.w.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
	if err != nil {
		b.w.t.Fatalf("turning JavaScript on or off: %v", err)
	}
}

// awaited returns what a promise in the page brings.
func awaited[T any](b *tab, expression string) T {
	b.w.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.w.t.Fatal(fmt.Errorf("%.60s: %w", expression, err))
	}
	return v
}

// has reports whether the page has a link or button with this text.
func (b *tab) has(text string) bool {
	b.w.t.Helper()
	return eval[bool](b, fmt.Sprintf(`[...document.querySelectorAll("a,button")].some((e) => e.textContent.trim().startsWith(%q))`, text))
}

// waitFor waits until a condition is true in the page.
func (b *tab) waitFor(condition string) {
	b.w.t.Helper()
	b.w.eventually(condition, func() error {
		if eval[bool](b, condition) {
			return nil
		}
		return errors.New("it is not so yet")
	})
}
