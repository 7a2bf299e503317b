package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// level says how bad a finding is.
type level string

const (
	levelOK      level = "ok"
	levelInfo    level = "info"
	levelWarning level = "warning"
	levelProblem level = "problem"
)

// signs are what people see of levels, each with a shape of its own.
var signs = map[level]string{levelOK: "✓", levelInfo: "·", levelWarning: "!", levelProblem: "✗"}

// finding is one thing that the doctor has looked at.
type finding struct {
	// Group is what the finding is about, such as `listener` or an integration.
	Group string `json:"group"`
	// Check names the rule, for programs.
	Check string `json:"check"`
	Level level  `json:"level"`
	Text  string `json:"text"`
	// Fix says what to do, empty where nothing is to be done.
	Fix string `json:"fix,omitempty"`
	// Place is the file and line that it is about, as far as they are known.
	Place string `json:"place,omitempty"`
}

// errProblems ends a doctor that has found problems. It has said so already.
var errProblems = errors.New("the doctor has found problems")

func doctorCommand() *cobra.Command {
	var d doctor
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor [--config FILE] [--adapter NAME] [--offline] [--json]",
		Short: "Looks for mistakes in a configuration and around it",
		Long: `
Reads a configuration without starting it, and looks at what it needs: the data
directory, the keys, the listeners, the providers. Each mistake comes with its fix
and, in a Caddyfile, with its line. Nothing is changed, no user is needed, and it
may be run beside the Lanyard that runs with this configuration.

Run it as the user and with the environment that Lanyard has: what is not set here
is reported. It asks each provider, each webhook's endpoint and Lanyard itself
whether they answer, which --offline leaves out.

The exit code is 1 if there is a problem. Warnings leave it 0.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := d.run(cmd.Context()); err != nil {
				return err
			}
			show := showFindings
			if asJSON {
				show = encodeFindings
			}
			if err := show(cmd.OutOrStdout(), d.findings); err != nil {
				return err
			}
			if count(d.findings, levelProblem) > 0 {
				return errProblems
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&d.file, "config", "c", "", "the configuration's file (default: Caddyfile in this directory)")
	cmd.Flags().StringVarP(&d.adapter, "adapter", "a", "", "the adapter that reads it (default: by its name)")
	cmd.Flags().BoolVar(&d.offline, "offline", false, "ask nobody by the network")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// run makes all checks. Its error says that there was nothing to check.
func (d *doctor) run(ctx context.Context) error {
	if err := d.load(); err != nil || d.app == nil {
		return err
	}
	d.settings, d.withheld = &settings{integrations: map[string]*integration{}}, map[string]bool{}
	defer d.settings.close()
	d.checkApp()
	d.checkSites()
	d.checkAdmin()
	d.checkAccessLogs()
	d.checkLoops()
	d.checkData()
	d.checkNetwork(ctx)
	d.checkLock()
	return nil
}

func (d *doctor) add(group, check string, l level, place, text, fix string) {
	d.findings = append(d.findings, finding{Group: group, Check: check, Level: l, Text: text, Fix: fix, Place: place})
}

func (d *doctor) ok(group, check, text string) { d.add(group, check, levelOK, "", text, "") }

func (d *doctor) warning(group, check, place, text, fix string) {
	d.add(group, check, levelWarning, place, text, fix)
}

func (d *doctor) problem(group, check, place, text, fix string) {
	d.add(group, check, levelProblem, place, text, fix)
}

func count(all []finding, l level) (n int) {
	for _, f := range all {
		if f.Level == l {
			n++
		}
	}
	return n
}

// grouped returns the findings with those of one group together, the groups in
// the order in which they came up.
func grouped(all []finding) []finding {
	first := map[string]int{}
	for i, f := range all {
		if _, ok := first[f.Group]; !ok {
			first[f.Group] = i
		}
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b finding) int { return first[a.Group] - first[b.Group] })
	return all
}

// showFindings prints for people.
func showFindings(w io.Writer, all []finding) error {
	width := 0
	for _, f := range all {
		width = max(width, utf8.RuneCountInString(f.Group))
	}
	var b strings.Builder
	for _, f := range grouped(all) {
		fmt.Fprintf(&b, "  %s %-*s  %s", signs[f.Level], width, clean(f.Group), clean(f.Text))
		if f.Place != "" && f.Fix == "" {
			fmt.Fprintf(&b, " (%s)", f.Place)
		}
		b.WriteByte('\n')
		if f.Fix != "" {
			fmt.Fprintf(&b, "    %*s  fix: %s", width, "", clean(f.Fix))
			if f.Place != "" {
				fmt.Fprintf(&b, ", at %s", f.Place)
			}
			b.WriteByte('\n')
		}
	}
	fmt.Fprintf(&b, "  %s, %s\n", several(count(all, levelProblem), "problem"), several(count(all, levelWarning), "warning"))
	_, err := io.WriteString(w, b.String())
	return err
}

func several(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// encodeFindings prints for programs.
func encodeFindings(w io.Writer, all []finding) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Problems int       `json:"problems"`
		Warnings int       `json:"warnings"`
		Findings []finding `json:"findings"`
	}{count(all, levelProblem), count(all, levelWarning), grouped(all)})
}
