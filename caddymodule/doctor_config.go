package caddymodule

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// doctor looks at one configuration.
type doctor struct {
	file, adapter string
	offline       bool

	lines    []*line // of the Caddyfile, empty for JSON
	cfg      caddy.Config
	app      *App            // nil if the configuration can't be read
	settings *settings       // what could be resolved of it
	servers  []server        // those with handlers of Lanyard
	others   []server        // those without
	withheld map[string]bool // :: integration → its client is not known here
	answers  bool            // Lanyard runs and answers
	mute     bool            // Lanyard can not be asked from here
	findings []finding
}

// line is a line of a Caddyfile with those in its block.
type line struct {
	words  []string
	place  string // file:line
	nested []*line
}

// load reads the configuration. What is wrong with it is a finding; the error
// says that there is none.
func (d *doctor) load() error {
	d.file = cmp.Or(d.file, "Caddyfile")
	text, err := os.ReadFile(d.file)
	if err != nil {
		return advise(fmt.Errorf("reading the configuration: %w", err), "name its file: caddy lanyard doctor --config FILE")
	}
	if d.adapter == "" && !strings.HasSuffix(d.file, ".json") {
		d.adapter = "caddyfile"
	}
	if d.adapter != "" {
		if text = d.adapt(text); text == nil {
			return nil
		}
	}
	if err := json.Unmarshal(text, &d.cfg); err != nil {
		d.problem("config", "config_invalid", d.file, "it is not a configuration of Caddy: "+err.Error(), "see `caddy validate`")
		return nil //nolint:nilerr // it is a finding
	}
	raw, ok := d.cfg.AppsRaw["lanyard"]
	if !ok {
		d.problem("config", "config_no_lanyard", d.file, "there is no `lanyard` block in the global options", "add one; docs/configuration.md shows it")
		return nil
	}
	app := new(App)
	if err := caddy.StrictUnmarshalJSON(raw, app); err != nil {
		d.problem("config", "config_invalid", d.file, "lanyard: "+err.Error(), "correct it; docs/configuration.md has the options")
		return nil //nolint:nilerr // it is a finding
	}
	d.app = app
	return nil
}

// adapt returns the configuration as JSON, nil if it can't be had.
func (d *doctor) adapt(text []byte) []byte {
	adapter := caddyconfig.GetAdapter(d.adapter)
	if adapter == nil {
		d.problem("config", "config_invalid", d.file, fmt.Sprintf("there is no adapter %q", d.adapter), "leave --adapter out for a Caddyfile")
		return nil
	}
	if d.adapter == "caddyfile" {
		d.checkEnvSpans(text)
		// An error of the parser is the adapter's, too.
		if blocks, err := caddyfile.Parse(d.file, text); err == nil {
			d.lines = linesOf(blocks)
		}
	}
	adapted, warnings, err := adapter.Adapt(text, map[string]any{"filename": d.file})
	if err != nil {
		d.problem("config", "config_invalid", placeIn(err.Error(), d.file), mask(err.Error(), text), "correct it; nothing else was looked at")
		return nil
	}
	for _, w := range warnings {
		d.warning("config", "config_warning", fmt.Sprintf("%s:%d", w.File, w.Line), w.Message, "")
	}
	d.ok("config", "config_read", d.file+" can be read")
	return adapted
}

// quoted is a word that an error of the parser quotes, of a length that secrets
// have.
var quoted = regexp.MustCompile("[\"'`]([^\"'`\\s]{8,})[\"'`]")

// mask takes out of an error of the parser, which quotes the words that it can't
// use, what may be a secret that stands in the configuration itself: whatever is
// neither a directive's or option's name nor a URL nor a placeholder.
func mask(text string, config []byte) string {
	names := map[string]bool{}
	for row := range strings.Lines(string(config)) {
		if words := strings.Fields(row); len(words) > 0 {
			names[words[0]] = true
		}
	}
	return quoted.ReplaceAllStringFunc(text, func(word string) string {
		bare := word[1 : len(word)-1]
		if names[bare] || isPlaceholder(bare) || strings.HasPrefix(bare, "http") {
			return word
		}
		return word[:1] + "REDACTED" + word[len(word)-1:]
	})
}

// envSpan is what Caddy replaces while it reads a Caddyfile: {$NAME}. One with a
// default ({$NAME:default}) needs no value.
var envSpan = regexp.MustCompile(`\{\$([^:}]+)\}`)

func (d *doctor) checkEnvSpans(text []byte) {
	n := 0
	for row := range bytes.Lines(text) {
		n++
		code, _, _ := bytes.Cut(row, []byte("#")) // nearly always a comment's
		for _, m := range envSpan.FindAllSubmatch(code, -1) {
			if _, set := os.LookupEnv(string(m[1])); !set {
				d.envNotSet("config", string(m[1]), fmt.Sprintf("%s:%d", d.file, n))
			}
		}
	}
}

func (d *doctor) envNotSet(group, name, place string) {
	d.problem(group, "env_not_set", place, fmt.Sprintf("the environment variable %s is not set", name),
		fmt.Sprintf("set %s in Lanyard's environment, and here", name))
}

var filePlace = regexp.MustCompile(`[^\s,'"]+:[1-9][0-9]*`)

// placeIn returns the place in file that an error names, file itself if there
// is none.
func placeIn(text, file string) string {
	for _, found := range slices.Backward(filePlace.FindAllString(text, -1)) {
		if name := found[:strings.LastIndexByte(found, ':')]; strings.HasSuffix(file, name) || strings.HasSuffix(name, file) {
			return found
		}
	}
	return file
}

// linesOf returns a Caddyfile's lines: the global options without words, and
// each site with its addresses.
func linesOf(blocks []caddyfile.ServerBlock) []*line {
	var all []*line
	for _, b := range blocks {
		l := &line{}
		for _, key := range b.Keys {
			l.words = append(l.words, key.Text)
			l.place = cmp.Or(l.place, placeOf(key))
		}
		for _, s := range b.Segments {
			tokens := []caddyfile.Token(s)
			l.nested = append(l.nested, nest(&tokens)...)
		}
		all = append(all, l)
	}
	return all
}

func placeOf(t caddyfile.Token) string { return fmt.Sprintf("%s:%d", t.File, t.Line) }

// nest takes tokens up to the end of a block.
func nest(tokens *[]caddyfile.Token) []*line {
	var all []*line
	var last caddyfile.Token
	for len(*tokens) > 0 {
		t := (*tokens)[0]
		*tokens = (*tokens)[1:]
		switch {
		case t.Text == "}" && !t.Quoted():
			return all
		case t.Text == "{" && !t.Quoted() && len(all) > 0:
			all[len(all)-1].nested = nest(tokens)
			last = caddyfile.Token{}
			continue
		case len(all) > 0 && t.File == last.File && t.Line == last.Line+last.NumLineBreaks():
			all[len(all)-1].words = append(all[len(all)-1].words, t.Text)
		default:
			all = append(all, &line{words: []string{t.Text}, place: placeOf(t)})
		}
		last = t
	}
	return all
}

// begins reports whether the line begins with these words.
func (l *line) begins(words []string) bool {
	return len(l.words) >= len(words) && slices.Equal(l.words[:len(words)], words)
}

// find returns the lines below l, at any depth, that begin with these words.
func (l *line) find(words ...string) []*line {
	var found []*line
	for _, n := range l.nested {
		if n.begins(words) {
			found = append(found, n)
		}
		found = append(found, n.find(words...)...)
	}
	return found
}

// option is a step on the way to a line of the `lanyard` block: the words with
// which it begins, and which one it is of those that do.
type option struct {
	words string
	n     int
}

// at returns where an option of the `lanyard` block is. Where a step is not
// there, or empty, it is the last one that is.
func (d *doctor) at(steps ...string) string {
	var options []option
	for _, s := range steps {
		if s != "" {
			options = append(options, option{words: s})
		}
	}
	return d.place(options...)
}

func (d *doctor) place(steps ...option) string {
	place := ""
	below := d.globals().nested
	for _, step := range slices.Concat([]option{{words: "lanyard"}}, steps) {
		var found []*line
		for _, l := range below {
			if l.begins(strings.Fields(step.words)) {
				found = append(found, l)
			}
		}
		if step.n >= len(found) {
			break
		}
		place, below = found[step.n].place, found[step.n].nested
	}
	return place
}

// globals returns the global options.
func (d *doctor) globals() *line {
	for _, l := range d.lines {
		if len(l.words) == 0 {
			return l
		}
	}
	return &line{}
}
