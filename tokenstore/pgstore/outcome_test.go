package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

// TestOutcome: what is known of a statement by the error that it ended with, and
// what its caller is told. Whoever takes what is in doubt for not done writes twice.
func TestOutcome(t *testing.T) {
	sqlState := func(code string) error { return fmt.Errorf("asking: %w", &pgconn.PgError{Code: code}) }
	for name, tt := range map[string]struct {
		err     error
		outcome string
		told    error
	}{
		"serialization failure":          {sqlState("40001"), "not done", tokenstore.ErrUnavailable},
		"deadlock":                       {sqlState("40P01"), "not done", tokenstore.ErrUnavailable},
		"completion unknown":             {sqlState("40003"), "in doubt", tokenstore.ErrUnavailable},
		"read-only transaction":          {sqlState("25006"), "not done", tokenstore.ErrUnavailable},
		"too many connections":           {sqlState("53300"), "not done", tokenstore.ErrUnavailable},
		"disk full":                      {sqlState("53100"), "refused", tokenstore.ErrFull},
		"shut down":                      {sqlState("57P01"), "in doubt", tokenstore.ErrUnavailable},
		"crashed":                        {sqlState("57P02"), "in doubt", tokenstore.ErrUnavailable},
		"starting up":                    {sqlState("57P03"), "not done", tokenstore.ErrUnavailable},
		"statement timeout":              {sqlState("57014"), "not done", tokenstore.ErrUnavailable},
		"a pooler that lost its server":  {sqlState("08P01"), "in doubt", tokenstore.ErrUnavailable},
		"wrong password":                 {sqlState("28P01"), "refused", tokenstore.ErrUnavailable},
		"no such database":               {sqlState("3D000"), "refused", tokenstore.ErrUnavailable},
		"no such table":                  {sqlState("42P01"), "refused", tokenstore.ErrUnavailable},
		"connection lost":                {fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), "in doubt", tokenstore.ErrUnavailable},
		"connection lost before it":      {pgstore.NotSent(io.ErrUnexpectedEOF), "not done", tokenstore.ErrUnavailable},
		"too many connections before it": {pgstore.NotSent(sqlState("53300")), "not done", tokenstore.ErrUnavailable},
		"wrong password before it":       {pgstore.NotSent(sqlState("28P01")), "refused", tokenstore.ErrUnavailable},
	} {
		outcome, told := pgstore.Outcome(t.Context(), tt.err)
		if outcome != tt.outcome || !errors.Is(told, tt.told) {
			t.Errorf("%s: %s, %v; want %s, %v", name, outcome, told, tt.outcome, tt.told)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, told := pgstore.Outcome(ended, io.ErrUnexpectedEOF); !errors.Is(told, context.Canceled) || errors.Is(told, tokenstore.ErrUnavailable) {
		t.Errorf("of a context that has ended the caller is told %v", told)
	}
}
