package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// TestMain ends what the tests share: a browser, and a program with failpoints.
func TestMain(m *testing.M) {
	// Those that run beside others wait most of the time, for tokens to end.
	_ = flag.Set("test.parallel", "8")
	code := m.Run()
	removeFailpoints()
	if stopChromium != nil {
		stopChromium()
	}
	os.Exit(code)
}

// stopChromium ends the one browser of the package; nil if none was started.
var stopChromium func()

// chromium starts the browser at its first call. The context is not a test's:
// the browser would end with it.
var chromium = sync.OnceValues(func() (context.Context, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, err
	}
	flags := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		// Back loads the page anew: one taken out of the browser's memory loads
		// nothing, and chromedp can't press its buttons.
		chromedp.Flag("disable-features", "Translate,BackForwardCache"),
		// No name leads off this machine.
		chromedp.Flag("host-resolver-rules", "MAP * 127.0.0.1"),
	)
	alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), flags...)
	ctx, stop := chromedp.NewContext(alloc)
	stopChromium = func() {
		// In good order, so that it leaves no files behind.
		ending, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		_ = chromedp.Cancel(ending)
		stop()
		stopAlloc()
	}
	return ctx, chromedp.Do(ctx) // without a deadline: the browser would end with it
})

// tab is a tab of Chromium. Whatever a page says in its console, or its own
// policy keeps it from, fails the test.
type tab struct {
	w     *world
	ctx   context.Context //nolint:containedctx // chromedp's way to name a tab
	shots string          // directory for pictures; empty: none are taken

	mu         sync.Mutex // guards what follows
	complaints []string
}

// page is what a user sees after a step.
type page struct {
	Status int // of the document
	URL    string
	Title  string
	Text   string
}

// browser opens a browser with cookies of its own.
func (w *world) browser() *tab {
	w.t.Helper()
	root, err := chromium()
	if err != nil {
		if os.Getenv("CI") == "true" {
			w.t.Fatalf("no Chromium: %v", err)
		}
		w.t.Skipf("no Chromium: %v", err)
	}
	return w.newTab(root, chromedp.WithNewBrowserContext())
}

// beside opens another tab of the same browser.
func (b *tab) beside() *tab {
	b.w.t.Helper()
	return b.w.newTab(b.ctx)
}

func (w *world) newTab(parent context.Context, opts ...chromedp.ContextOption) *tab {
	w.t.Helper()
	b := &tab{w: w, shots: os.Getenv("LANYARD_SHOTS")}
	ctx, cancel := chromedp.NewContext(parent, append(opts, chromedp.WithListener(b.hear))...)
	b.ctx = ctx
	w.t.Cleanup(func() {
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, c := range b.complaints {
			w.t.Errorf("Chromium: %s", c)
		}
	})
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1200, 900)); err != nil {
		w.t.Fatalf("opening a tab: %v", err)
	}
	return b
}

// hear takes the events of a tab.
func (b *tab) hear(ev any) {
	switch ev := ev.(type) {
	case *log.EventEntryAdded:
		// What the network has to say comes as events of its own, below.
		if ev.Entry.Source != log.EntrySourceNetwork {
			b.complain("%s, %s: %s", ev.Entry.Source, ev.Entry.Level, ev.Entry.Text)
		}
	case *runtime.EventConsoleAPICalled:
		b.complain("console.%s", ev.Type)
	case *runtime.EventExceptionThrown:
		b.complain("exception: %s", ev.ExceptionDetails.Text)
	case *network.EventResponseReceived:
		if ev.Type != network.ResourceTypeDocument && ev.Response.Status >= 400 {
			b.complain("%d for the %s %s", ev.Response.Status, ev.Type, ev.Response.URL)
		}
	case *network.EventLoadingFailed:
		if !ev.Canceled {
			b.complain("a %s did not load: %s %s", ev.Type, ev.ErrorText, ev.BlockedReason)
		}
	case *network.EventRequestWillBeSent:
		if r := ev.RedirectResponse; r != nil && b.w.ours(r.URL) {
			b.w.note(fmt.Append(nil, r.Headers))
		}
	}
}

func (b *tab) complain(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, fmt.Sprintf(format, args...))
}

// ours reports whether Lanyard serves the page at an address.
func (w *world) ours(url string) bool {
	return strings.HasPrefix(url, w.site.Public+"/")
}

// open loads an address.
func (b *tab) open(url string) page {
	b.w.t.Helper()
	return b.load("opening a page", chromedp.Navigate(url))
}

// press clicks the link or button with this text and waits for what it leads to.
func (b *tab) press(text string) page {
	b.w.t.Helper()
	xpath := fmt.Sprintf(`//*[self::a or self::button][starts-with(normalize-space(), %q)]`, text)
	return b.load("pressing "+text, chromedp.Click(chromedp.Search(xpath)))
}

func (b *tab) reload() page {
	b.w.t.Helper()
	return b.load("reloading", chromedp.Reload())
}

func (b *tab) back() {
	b.w.t.Helper()
	b.load("going back", chromedp.NavigateBack())
}

// load does what makes a page load, and looks at that page.
func (b *tab) load(what string, step chromedp.Action[chromedp.Void]) page {
	b.w.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	res, err := chromedp.RunResponse(ctx, step)
	if err != nil {
		b.w.t.Fatalf("%s: %v", what, err)
	}
	p := page{
		Status: int(res.Status), URL: eval[string](b, `location.href`),
		Title: eval[string](b, `document.title`), Text: eval[string](b, `document.body.innerText`),
	}
	if b.w.ours(p.URL) {
		b.inspect(p)
	}
	return p
}

// inspect checks what holds for every page of ours: it fits a screen of 320
// pixels, and no secret stands in it (see sweep).
func (b *tab) inspect(p page) {
	b.w.t.Helper()
	b.w.note([]byte(eval[string](b, `document.documentElement.outerHTML`)))
	b.do(chromedp.EmulateViewport(320, 640))
	if over := eval[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		b.w.t.Errorf("%q is %d pixels too wide for a screen of 320", p.Title, over)
	}
	b.do(chromedp.EmulateViewport(1200, 900))
}

// shoot takes pictures of the page, light and dark, wide and narrow, if
// LANYARD_SHOTS says where to put them.
func (b *tab) shoot(name string) {
	b.w.t.Helper()
	if b.shots == "" {
		return
	}
	widths := map[string][2]int64{"wide": {1200, 800}, "narrow": {320, 640}}
	for _, width := range slices.Sorted(maps.Keys(widths)) {
		for _, scheme := range []string{"light", "dark"} {
			b.scheme(scheme)
			b.do(chromedp.EmulateViewport(widths[width][0], widths[width][1]))
			png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
			if err != nil {
				b.w.t.Fatalf("picture of %s: %v", name, err)
			}
			if err := os.WriteFile(filepath.Join(b.shots, name+"-"+scheme+"-"+width+".png"), png, 0o600); err != nil {
				b.w.t.Fatal(err)
			}
		}
	}
	b.scheme("light")
	b.do(chromedp.EmulateViewport(1200, 900))
}

// scheme says whether the user likes pages light or dark.
func (b *tab) scheme(scheme string) {
	b.w.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		b.w.t.Fatalf("setting the colour scheme: %v", err)
	}
}

func (b *tab) do(step chromedp.Action[chromedp.Void]) {
	b.w.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, step); err != nil {
		b.w.t.Fatal(err)
	}
}

// eval returns the value of an expression in the page.
func eval[T any](b *tab, expression string) T {
	b.w.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	for err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "target navigated") { // a page that leads on by itself
		v, err = chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	}
	if err != nil {
		b.w.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// wantPage checks a page of ours by its status and by what stands in it.
func (b *tab) wantPage(p page, status int, texts ...string) {
	b.w.t.Helper()
	if p.Status != status || !b.w.ours(p.URL) {
		b.w.t.Fatalf("the page is HTTP %d %q at %s; want one of ours with HTTP %d", p.Status, p.Title, hostOf(p.URL), status)
	}
	for _, text := range texts {
		if !strings.Contains(p.Text, text) {
			b.w.t.Errorf("the page does not say %q: %s", text, p.Text)
		}
	}
}

// hostOf returns an address without what may be secret in it.
func hostOf(url string) string {
	base, _, _ := strings.Cut(url, "?")
	return base
}
