package caddymodule

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/lanyard-proxy/lanyard/internal/nearest"
)

// options are the words of a block, each with what reads its line. A parser
// finds its own word as the dispenser's current token.
type options map[string]func(d *caddyfile.Dispenser) error

// parseRest reads what follows the name, and the arguments that were read,
// of a directive or of the global option.
func parseRest(d *caddyfile.Dispenser, opts options) error {
	name := d.Val()
	if d.NextArg() {
		return d.Errf("unexpected %q after %s", d.Val(), name)
	}
	return parseBlock(d, opts)
}

// parseBlock reads the block that begins on the current line, if there is one.
func parseBlock(d *caddyfile.Dispenser, opts options) error {
	nesting := d.Nesting()
	if !d.NextBlock(nesting) {
		return nil
	}
	return parseWords(d, nesting, opts)
}

// parseWords reads a block from its first word.
func parseWords(d *caddyfile.Dispenser, nesting int, opts options) error {
	for more := true; more; more = d.NextBlock(nesting) {
		parse, ok := opts[d.Val()]
		if !ok {
			return unrecognized(d, "option", slices.Collect(maps.Keys(opts)))
		}
		if err := parseOption(d, parse); err != nil {
			return err
		}
	}
	return nil
}

// parseOption reads one option of a block, of which nothing may be left over.
func parseOption(d *caddyfile.Dispenser, parse func(*caddyfile.Dispenser) error) error {
	name := d.Val()
	if err := parse(d); err != nil {
		return err
	}
	if d.NextArg() {
		return d.Errf("unexpected %q after %s", d.Val(), name)
	}
	if nesting := d.Nesting(); d.NextBlock(nesting) {
		return d.Errf("unexpected block after %s, which takes none", name)
	}
	return nil
}

// unrecognized says that the current token is none of the known words.
func unrecognized(d *caddyfile.Dispenser, what string, known []string) error {
	return d.Errf("unrecognized %s %q: %s", what, d.Val(), hint(d.Val(), known))
}

// hint names the known words, and first the one that was probably meant.
func hint(wrong string, known []string) string {
	if len(known) == 0 {
		return "there is none"
	}
	slices.Sort(known)
	all := "known: " + strings.Join(slices.Compact(known), ", ")
	if near := nearest.Word(wrong, known); near != "" {
		return "did you mean " + near + "? " + all
	}
	return all
}

// arguments reads one argument for each name. None may be empty: an unquoted
// # begins a comment and leaves nothing.
func arguments(d *caddyfile.Dispenser, names ...string) ([]string, error) {
	option := d.Val()
	args := make([]string, 0, len(names))
	for range names {
		if !d.NextArg() || d.Val() == "" {
			return nil, d.Errf("%s needs %s", option, strings.Join(names[len(args):], " and "))
		}
		args = append(args, d.Val())
	}
	return args, nil
}

func twice(d *caddyfile.Dispenser) error { return d.Errf("%s is given twice", d.Val()) }

// once reads an option with one argument that may stand only once.
func once(target *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *target != "" {
			return twice(d)
		}
		args, err := arguments(d, "a value")
		if err != nil {
			return err
		}
		*target = args[0]
		return nil
	}
}

// oneOf reads an option that takes one of a few words.
func oneOf(target *string, words ...string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		option := d.Val()
		if err := once(target)(d); err != nil {
			return err
		}
		if !slices.Contains(words, *target) {
			return unrecognized(d, option, words)
		}
		return nil
	}
}

// flag reads an option without arguments.
func flag(target *bool) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *target {
			return twice(d)
		}
		*target = true
		return nil
	}
}

// repeated reads an option with one argument that may stand several times.
func repeated(target *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		args, err := arguments(d, "a value")
		if err != nil {
			return err
		}
		*target = append(*target, args[0])
		return nil
	}
}

// list reads an option with one or more arguments, each of which may hold
// several words. Each word has to pass the checks.
func list(target *[]string, checks ...func(string) error) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		option := d.Val()
		words := strings.Fields(strings.Join(d.RemainingArgs(), " "))
		if len(words) == 0 {
			return d.Errf("%s needs at least one value", option)
		}
		for _, word := range words {
			for _, check := range checks {
				if err := check(word); err != nil {
					return d.Errf("%s: %w", option, err)
				}
			}
		}
		*target = append(*target, words...)
		return nil
	}
}

// limit reads an option with one or more arguments, each as it is, which may
// stand only once.
func limit(target *[]string, check func(string) error) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *target != nil {
			return twice(d)
		}
		option := d.Val()
		for d.NextArg() {
			if err := check(d.Val()); err != nil {
				return d.Errf("%s: %w", option, err)
			}
			*target = append(*target, d.Val())
		}
		if *target == nil {
			return d.Errf("%s needs at least one value", option)
		}
		return nil
	}
}

// pairs reads an option with a name and a value, which may stand once for each
// name.
func pairs(target *map[string]string, name, value string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		option := d.Val()
		args, err := arguments(d, name, value)
		if err != nil {
			return err
		}
		if _, ok := (*target)[args[0]]; ok {
			return d.Errf("a second %s %q", option, args[0])
		}
		if *target == nil {
			*target = map[string]string{}
		}
		(*target)[args[0]] = args[1]
		return nil
	}
}

// number reads an option with a positive number, which may stand only once.
func number(target *int) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *target != 0 {
			return twice(d)
		}
		option := d.Val()
		args, err := arguments(d, "a number")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(args[0])
		if err != nil || n < 1 {
			return d.Errf("%s %q is not a number from 1", option, args[0])
		}
		*target = n
		return nil
	}
}

// block reads an option that is nothing but a block, which may stand only once.
func block(opts options) func(*caddyfile.Dispenser) error {
	seen := false
	return func(d *caddyfile.Dispenser) error {
		if seen {
			return twice(d)
		}
		seen = true
		name := d.Val()
		if d.NextArg() {
			return d.Errf("unexpected %q after %s, which has its words in a block", d.Val(), name)
		}
		nesting := d.Nesting()
		if !d.NextBlock(nesting) {
			return d.Errf("%s needs a block with its words", name)
		}
		return parseWords(d, nesting, opts)
	}
}

// parseInner reads the block of an option, if it has one.
func parseInner(d *caddyfile.Dispenser, name string, opts options) error {
	if d.NextArg() {
		return d.Errf("unexpected %q after %s", d.Val(), name)
	}
	return parseBlock(d, opts)
}

func checkNotEmpty(s string) error {
	if s == "" {
		return errors.New("one of them is empty")
	}
	return nil
}
