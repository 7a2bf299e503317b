package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// The exit codes of the commands.
const (
	exitFailed    = 1
	exitUsage     = 2
	exitAttention = 4
)

// errAttention ends a command that has found connections that need somebody. It
// has said so already.
var errAttention = errors.New("connections need attention")

// usageError is a mistake in the command line.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// advised is an error and what to do about it.
type advised struct {
	error
	next string
}

func (e advised) Unwrap() error { return e.error }

func advise(err error, next string) error { return advised{err, next} }

// nextSteps are what to do about the API's refusals.
var nextSteps = map[string]string{
	"key_required":              "set LANYARD_API_KEY to an API key, or say with --data where the data directory is",
	"rate_limited":              "too many wrong keys came from here: wait a minute, and give the right one",
	"connection_not_found":      "caddy lanyard list",
	"connection_not_active":     "caddy lanyard show ID",
	"reconnect_required":        "send the user a link: caddy lanyard connect --connection ID",
	"not_refreshable":           "it lasts until its token ends: caddy lanyard show ID",
	"redirect_uri_mismatch":     "give one of the configured redirect_urls, or add it to the Caddyfile",
	"invalid_scope":             "caddy lanyard providers NAME shows the scopes",
	"invalid_parameter":         "caddy lanyard integrations shows the parameters; give them with --param name=value",
	"credentials_invalid":       "caddy lanyard integrations shows what the credentials consist of",
	"credentials_refused":       "the provider was asked and does not take them: make new ones there",
	"api_unknown":               "give where the API is with --param name=value, if you know it: caddy lanyard providers NAME has the names",
	"store_readonly":            "the store is being moved: try again when that has ended",
	"store_moved":               "run the Lanyard that has the store now; caddy lanyard migrate --undo takes this one back",
	"backup_unsupported":        "back the database up with its own tools, such as pg_dump, and keep a copy of the keyset elsewhere",
	"device_unsupported":        "connect in a browser: the same command without --device",
	"account_mismatch":          "make a connection of its own for that account: leave out --connection",
	"integration_misconfigured": "compare client_id and client_secret with the provider's settings: caddy lanyard doctor",
	"source_unavailable":        "the provider does not answer: try again in a minute",
	"refresh_unavailable":       "the provider does not answer: Lanyard goes on trying; see caddy lanyard events --connection ID",
	"host_invalid":              "call it as localhost, or add the name to `names` of lanyard_api",
	"store_full":                "make room on the store's disk",
	"store_unavailable":         "Lanyard's log says why",
	"store_corrupt":             "restore a backup, or delete this connection: caddy lanyard revoke --delete ID",
	"not_ready":                 "Lanyard's log says why",
	"internal_error":            "Lanyard's log says why",
}

// nextStep returns what to do about err.
func nextStep(cmd *cobra.Command, err error) string {
	if a, ok := errors.AsType[advised](err); ok {
		return a.next
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return cmd.CommandPath() + " --help"
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		if next := nextSteps[r.Code]; next != "" {
			return next
		}
		return cmd.CommandPath() + " --help"
	}
	return cmd.CommandPath() + " --help, or Lanyard's log"
}

// exitCode returns what err means to a shell.
func exitCode(err error) int {
	if errors.Is(err, errAttention) {
		return exitAttention
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// finish makes of a command what all of them have in common: it ends at an
// interrupt, tells its errors with the next step, and exits with their code.
func finish(cmd *cobra.Command) {
	run, args := cmd.RunE, cmd.Args
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return tell(cmd, usageError{err})
		}
		return nil
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return tell(cmd, usageError{err}) })
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		defer context.AfterFunc(ctx, stop)() // a second interrupt ends what does not heed the first
		cmd.SetContext(ctx)
		cmd.SetIn(interruptible{ctx, cmd.InOrStdin()})
		err := run(cmd, given)
		if err == nil {
			return nil
		}
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			err = advise(errors.New("interrupted"), "run it again: what is done stays done")
		}
		return tell(cmd, err)
	}
	for _, sub := range cmd.Commands() {
		finish(sub)
	}
}

// interruptible is a reader whose reads end with a context: nothing else wakes
// one that waits for a terminal or a pipe.
type interruptible struct {
	ctx context.Context //nolint:containedctx // of one command
	in  io.Reader
}

// Read implements io.Reader. A read that was interrupted goes on and is lost.
func (r interruptible) Read(b []byte) (int, error) {
	type result struct {
		b   []byte
		err error
	}
	got := make(chan result, 1)
	go func() {
		own := make([]byte, len(b)) // b is the caller's again after an interrupt
		n, err := r.in.Read(own)
		got <- result{own[:n], err}
	}()
	select {
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	case g := <-got:
		return copy(b, g.b), g.err
	}
}

// tell prints err, and returns what Caddy makes the exit code of.
func tell(cmd *cobra.Command, err error) error {
	cmd.SilenceErrors = true
	if !errors.Is(err, errAttention) && !errors.Is(err, errProblems) {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "Error: %s\n  next: %s\n", cleanLines(err.Error()), clean(nextStep(cmd, err)))
	}
	code := exitCode(err)
	if code == exitFailed { // as for any error
		return err
	}
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}
