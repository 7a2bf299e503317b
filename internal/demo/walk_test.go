package demo_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/demo"
	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

func TestRunYes(t *testing.T) {
	s := newSetup(t)
	var out bytes.Buffer
	if err := demo.Run(t.Context(), s.cfg, demo.Options{Out: &out, Yes: true, Life: time.Second}); err != nil {
		t.Fatalf("Run = %v after\n%s", err, out.String())
	}
	rest := out.String()
	for _, word := range []string{"connected", "called", "expired", "refreshed", "200", "revoked", "reconnected"} {
		_, after, ok := strings.Cut(rest, "✓ "+word)
		if !ok {
			t.Fatalf("no line %q, in order, in\n%s", word, out.String())
		}
		rest = after
	}
	for _, secret := range append(s.cfg.Provider.Secrets(), apiKey) {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the walk shows %s", secret)
		}
	}
}

func TestRunInteractive(t *testing.T) {
	s := newSetup(t)
	// What a person does at the keyboard: approve, four times Enter, approve.
	in := strings.NewReader("a\n\n\n\na\n")
	var out bytes.Buffer
	if err := demo.Run(t.Context(), s.cfg, demo.Options{Out: &out, In: in, Life: time.Second}); err != nil {
		t.Fatalf("Run = %v after\n%s", err, out.String())
	}
	wantIn(t, out.String(), s.cfg.AppURL+"/connect", "curl -H 'Lanyard-Key: "+clientKey, s.cfg.AppURL+"/reconnect", "That is all.")

	err := demo.Run(t.Context(), s.cfg, demo.Options{Out: io.Discard, In: strings.NewReader("")})
	if err == nil || !strings.Contains(err.Error(), "the input ended") {
		t.Errorf("Run without input = %v", err)
	}
}

func TestRunNamesTheStepThatFails(t *testing.T) {
	for step, breakIt := range map[string]func(s *setup){
		"connect": func(s *setup) { s.cfg.Provider.Faults.Token(fakeprovider.Status(500).OnCode()) },
		"call":    func(s *setup) { s.cfg.Provider.Faults.API(fakeprovider.Status(500)) },
		"refresh": func(s *setup) { s.cfg.Provider.Faults.Token(fakeprovider.Status(500).OnRefresh().Times(9)) },
		"reconnect": func(s *setup) {
			s.cfg.Provider.Faults.Authorize(fakeprovider.Delay(0), fakeprovider.OAuthError(0, "server_error"))
		},
	} {
		t.Run(step, func(t *testing.T) {
			s := newSetup(t)
			breakIt(s)
			err := demo.Run(t.Context(), s.cfg, demo.Options{Out: io.Discard, Yes: true, Life: time.Second})
			if err == nil || !strings.Contains(err.Error(), "step "+step+":") {
				t.Errorf("Run = %v; want step %s", err, step)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		s := newSetup(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := demo.Run(ctx, s.cfg, demo.Options{Out: cancelAt{"called", cancel}, Yes: true, Life: time.Hour}); !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
	})
}

// cancelAt cancels when a word is written.
type cancelAt struct {
	word   string
	cancel context.CancelFunc
}

func (c cancelAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.word)) {
		c.cancel()
	}
	return len(p), nil
}

// TestExample holds the demo's configuration and Caddyfile.example together:
// without comments they are the same but for the place of the store.
func TestExample(t *testing.T) {
	example, err := os.ReadFile("../../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	lines := func(text string) []string {
		var out []string
		for line := range strings.Lines(text) {
			if l := strings.TrimRight(line, "\n"); strings.TrimSpace(l) != "" && !strings.HasPrefix(strings.TrimSpace(l), "#") {
				out = append(out, l)
			}
		}
		return out
	}
	got := strings.Replace(demo.Caddyfile(demo.ExamplePorts, `/data/a "dir"`), "\t\tstore badger \"/data/a \\\"dir\\\"\"\n", "", 1)
	if a, b := strings.Join(lines(got), "\n"), strings.Join(lines(string(example)), "\n"); a != b {
		t.Errorf("demo:\n%s\n\nexample:\n%s", a, b)
	}
	var cfg demo.Config
	demo.ExamplePorts.URLs(&cfg)
	for _, want := range []string{"public_url " + cfg.ConnectURL, "redirect_url " + cfg.AppURL + "/callback", "issuer " + cfg.ProviderURL} {
		if !strings.Contains(string(example), want+"\n") {
			t.Errorf("Caddyfile.example lacks %q", want)
		}
	}
}

var _ http.Handler = (*demo.App)(nil)
