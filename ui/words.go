package ui

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

// English is the language of those who ask for none that there is.
const English = "en"

// Words are the texts of a set of pages, in every language. Each text has a
// key; {name} in it stands for a value. A text that is counted has a key for
// each form that its language has: key.one, key.other and so on (CLDR).
type Words struct {
	langs   []*Lang // English first
	matcher language.Matcher
}

// Lang is one language of a set of Words.
type Lang struct {
	Tag   string // BCP 47, as in the attribute `lang`
	Dir   string // ltr or rtl
	Name  string // of the language, in itself
	tag   language.Tag
	texts map[string]string
}

// ReadWords reads one JSON object of texts for each language that dir has: the
// file's name is its tag. The key `language` is the language's own name. The
// error says which file can't be read, or that English is missing.
func ReadWords(fsys fs.FS, dir string) (*Words, error) {
	files, err := fs.Glob(fsys, path.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	w := new(Words)
	for _, name := range files {
		body, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		l := new(Lang)
		if err := json.Unmarshal(body, &l.texts); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if l.tag, err = language.Parse(strings.TrimSuffix(path.Base(name), ".json")); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		l.Tag, l.Dir, l.Name = l.tag.String(), direction(l.tag), l.texts["language"]
		w.langs = append(w.langs, l)
	}
	english := slices.IndexFunc(w.langs, func(l *Lang) bool { return l.Tag == English })
	if english < 0 {
		return nil, fmt.Errorf("%s has no en.json", dir)
	}
	w.langs[0], w.langs[english] = w.langs[english], w.langs[0] // what matches nothing gets the first
	w.match()
	return w, nil
}

func (w *Words) match() {
	var tags []language.Tag
	for _, l := range w.langs {
		tags = append(tags, l.tag)
	}
	w.matcher = language.NewMatcher(tags)
}

// rightToLeft are the scripts that run from right to left.
var rightToLeft = []string{"Arab", "Hebr", "Thaa", "Syrc", "Nkoo", "Adlm"}

func direction(t language.Tag) string {
	if script, _ := t.Script(); slices.Contains(rightToLeft, script.String()) {
		return "rtl"
	}
	return "ltr"
}

// maxAccept bounds in bytes how much of Accept-Language is read.
const maxAccept = 256

// For returns the language that the request's Accept-Language asks for.
func (w *Words) For(r *http.Request) *Lang {
	accept := r.Header.Get("Accept-Language")
	if len(accept) > maxAccept { // the first ones count most
		accept = accept[:strings.LastIndexByte(accept[:maxAccept], ',')+1]
	}
	asked, _, err := language.ParseAcceptLanguage(accept)
	for err != nil && accept != "" { // up to what can't be read
		accept = accept[:max(strings.LastIndexByte(accept, ','), 0)]
		asked, _, err = language.ParseAcceptLanguage(accept)
	}
	if len(asked) == 0 {
		return w.langs[0]
	}
	_, i, sure := w.matcher.Match(asked...)
	if sure == language.No {
		return w.langs[0]
	}
	return w.langs[i]
}

// Langs returns all languages, English first.
func (w *Words) Langs() []*Lang { return slices.Clone(w.langs) }

// Has reports whether there is a text with this key.
func (l *Lang) Has(key string) bool {
	_, ok := l.texts[key]
	return ok
}

// Keys returns the keys of all texts, in order.
func (l *Lang) Keys() []string {
	var keys []string
	for key := range l.texts {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Say returns the text with this key, in which each {name} of name, value,
// name, value … is replaced. A key that is in no table is returned itself.
func (l *Lang) Say(key string, pairs ...string) string {
	text, ok := l.texts[key]
	if !ok {
		return key
	}
	return fill(text, pairs)
}

func fill(text string, pairs []string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	var old []string
	for pair := range slices.Chunk(pairs, 2) {
		old = append(old, "{"+pair[0]+"}", pair[1])
	}
	return strings.NewReplacer(old...).Replace(text)
}

// Count is Say for a text of which the form depends on n, which is {n} in it.
func (l *Lang) Count(key string, n int, pairs ...string) string {
	forms := map[plural.Form]string{
		plural.Zero: "zero", plural.One: "one", plural.Two: "two", plural.Few: "few", plural.Many: "many",
	}
	pairs = append([]string{"n", strconv.Itoa(n)}, pairs...)
	form := plural.Cardinal.MatchPlural(l.tag, n, 0, 0, 0, 0)
	if name, ok := forms[form]; ok && l.Has(key+"."+name) {
		return l.Say(key+"."+name, pairs...)
	}
	return l.Say(key+".other", pairs...)
}

// Date returns a day for people to read, in UTC: the text `date`, in which
// {day}, {month} and {year} stand, with the months as `month.1` to `month.12`.
func (l *Lang) Date(t time.Time) string {
	t = t.UTC()
	return l.Say("date", "day", strconv.Itoa(t.Day()),
		"month", l.Say("month."+strconv.Itoa(int(t.Month()))), "year", strconv.Itoa(t.Year()))
}

// Pseudo returns Words of one language that is made of the English one: each
// text stands in ⟦brackets⟧ and is longer. With it, tests find text that comes
// from no table, and pages that have no room.
func (w *Words) Pseudo() *Words {
	english := w.langs[0]
	made := &Lang{Tag: english.Tag, Dir: english.Dir, Name: english.Name, tag: english.tag, texts: map[string]string{}}
	for key, text := range english.texts {
		made.texts[key] = "⟦" + text + strings.Repeat("·", len(text)/3) + "⟧"
	}
	p := &Words{langs: []*Lang{made}}
	p.match()
	return p
}
