package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// errNoAnswer is the cause of a context that this package has bounded.
var errNoAnswer = fmt.Errorf("%w: the database did not answer in time", tokenstore.ErrUnavailable)

// outcome is what is known of a statement that has failed.
type outcome int

const (
	refused  outcome = iota // it was not done, and will not be if it is sent again
	notDone                 // it was not done, and may be if it is sent again
	doubtful                // it was done or not
)

// notSentError is of a statement for which there was no connection. It holds the
// text of pgx's error alone: that itself has the whole configuration in it, the
// password too.
type notSentError struct{ text, code string }

func notSent(err error) error { return &notSentError{err.Error(), codeOf(err)} }

func (e *notSentError) Error() string { return e.text }

// commitError is of a transaction whose end was sent. What pgx says of it is then of
// the rollback that it tries on a connection which is closed.
type commitError struct{ err error }

func (e *commitError) Error() string { return e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }

// The SQLSTATEs that are told apart here.
const (
	codeUndefinedTable  = "42P01"
	codeUniqueViolation = "23505"
	codeDuplicateTable  = "42P07"
	codeDuplicateType   = "42710" // each table has a type of its name
	codeFrozen          = "23514" // check_violation: there is no other check than that of freeze.go
	codeReadOnly        = "25006"
	codeUncertain       = "40003" // statement completion unknown: CockroachDB's word for it
	codeDiskFull        = "53100"
	codeCanceled        = "57014"
	codeShutdown        = "57P01"
	codeCrash           = "57P02"
	codeNotYet          = "57P03" // the server starts or stops
	codeInternal        = "XX000" // two migrations at once, for one
)

// outcomeOf returns what is known of the statement that err is of.
func outcomeOf(err error) outcome {
	code := codeOf(err)
	_, unsent := errors.AsType[*notSentError](err)
	_, committing := errors.AsType[*commitError](err)
	switch {
	case committing && code == "":
		return doubtful
	case strings.HasPrefix(code, "28") || code == "3D000": // the login is refused, or there is no such database
		return refused
	case unsent || pgconn.SafeToRetry(err):
		return notDone
	case code == "":
		return doubtful
	case code == codeUncertain, code == codeShutdown, code == codeCrash, strings.HasPrefix(code, "08"), strings.HasPrefix(code, "58"):
		return doubtful // a synchronous commit may have been waited for
	case code == codeDiskFull:
		return refused
	case strings.HasPrefix(code, "40"), strings.HasPrefix(code, "53"), code == codeReadOnly, code == codeNotYet, code == codeCanceled:
		return notDone
	}
	return refused
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*notSentError](err); ok {
		return e.code
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// demoted reports whether the server takes no writes any more, so that no
// connection to it is of use.
func demoted(err error) bool {
	code := codeOf(err)
	return code == codeReadOnly || code == codeNotYet
}

// explain returns what callers are told of err, which a use of the database has
// returned. ctx is the caller's.
func explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, tokenstore.ErrUnavailable), errors.Is(err, tokenstore.ErrFull):
		return err
	case codeOf(err) == codeFrozen:
		return tokenstore.ErrReadOnly
	case codeOf(err) == codeDiskFull:
		return fmt.Errorf("%w: %w", tokenstore.ErrFull, err)
	}
	return fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
}
