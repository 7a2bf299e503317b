package provider

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxRetryAfter is the longest wait that a provider can ask for.
const maxRetryAfter = 900 * time.Second

// Codes of refusals that have no readable `error` of their own.
const (
	codeRedirect     = "redirect"
	codeTooMany      = "too_many_requests"
	codeUnstructured = "unstructured_refusal"
	codeUnrecognized = "unrecognized_error"
)

// sendError says what an error of the transport means for the token that was
// in the request. Once something was sent, the transport's own text is left
// out: it may quote what the server wrote.
func sendError(err error, withheld bool) error {
	var timeout net.Error
	if withheld {
		if !quotable(err) {
			err = errors.New("the connection could not be used")
		}
		return fmt.Errorf("%w: %w", tokenstore.ErrNotSent, err)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %w", tokenstore.ErrOutcomeUnknown, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", tokenstore.ErrOutcomeUnknown, context.DeadlineExceeded)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w: the connection was reset", tokenstore.ErrOutcomeUnknown)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the connection ended before the answer did", tokenstore.ErrOutcomeUnknown)
	}
	return fmt.Errorf("%w: the answer could not be read", tokenstore.ErrOutcomeUnknown)
}

// quotable reports whether err is of the network or of TLS, whose texts hold
// nothing that was sent over HTTP and tell an operator what is wrong.
func quotable(err error) bool {
	var network net.Error
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	return errors.As(err, &network) || errors.As(err, &cert) || errors.As(err, &record) || errors.As(err, &alert) ||
		errors.Is(err, ErrAddressBlocked) || errors.Is(err, context.Canceled) || errors.Is(err, io.EOF)
}

// unreadable is the error of an answer that tells nothing.
func unreadable(a *tokenstore.Answer, why string) error {
	return &tokenstore.UnreadableError{Status: a.Status, Why: why, RetryAfter: retryAfter(a)}
}

// laterCodes say nothing against the client or the grant, under whatever status:
// those of RFC 6749 section 4.1.2.1, and of RFC 8628 section 3.5, whose last two
// end the device code alone.
var laterCodes = []string{"temporarily_unavailable", "slow_down", "authorization_pending", "expired_token", "access_denied"}

// refusal returns the refusal that a is, with its `error` if it has a readable
// one. The grant is dead only by a structured code (RFC 6749 section 5.2).
func (p *Provider) refusal(a *tokenstore.Answer, prev *tokenstore.Token, code string) *tokenstore.RefusalError {
	e := &tokenstore.RefusalError{
		Kind: tokenstore.RefusedForNow, Status: a.Status, RetryAfter: retryAfter(a), Code: p.safeCode(code, prev),
	}
	code = strings.ToLower(code) // HubSpot's are in upper case
	switch {
	case a.Status < http.StatusBadRequest && a.Status >= http.StatusMultipleChoices:
		e.Code = codeRedirect
	case a.Status == http.StatusTooManyRequests:
		if code == "" {
			e.Code = codeTooMany
		}
	case code == "":
		e.Code = codeUnstructured
	case slices.Contains(grantCodes, code) || slices.Contains(p.entry.Errors.Dead, code):
		e.Kind = tokenstore.RefusedGrant
	case slices.Contains(clientCodes, code) || slices.Contains(p.entry.Errors.Client, code):
		e.Kind = tokenstore.RefusedClient
	case code == "invalid_scope":
		e.Kind = tokenstore.RefusedScope
	case slices.Contains(laterCodes, code):
	case a.Status == http.StatusUnauthorized:
		e.Kind = tokenstore.RefusedClient
	}
	return e
}

// codeOf returns the code of an answer's error: what stands where the entry says
// that errors do, or in `error`. Of two the one that means something here: X tells
// a dead refresh token by its error_description alone. Empty if there is none.
func (p *Provider) codeOf(fields map[string]any) string {
	var codes []string
	for _, v := range []any{p.field(fields, "error"), fields["error"]} {
		if text, ok := v.(string); ok && text != "" {
			codes = append(codes, text)
		} else if n, ok := v.(json.Number); ok && isError(n) {
			codes = append(codes, n.String())
		}
	}
	switch i := slices.IndexFunc(codes, p.means); {
	case len(codes) == 0:
		return ""
	case i >= 0:
		return codes[i]
	}
	return codes[0]
}

// grantCodes and clientCodes say that a grant is dead, and that our client is
// refused (RFC 6749 section 5.2).
var (
	grantCodes  = []string{"invalid_grant"}
	clientCodes = []string{"invalid_client", "unauthorized_client"}
)

// means reports whether a code says what is to be done.
func (p *Provider) means(code string) bool {
	code = strings.ToLower(code)
	return code == "invalid_scope" || slices.Contains(slices.Concat(grantCodes, clientCodes, laterCodes, p.entry.Errors.Dead, p.entry.Errors.Client), code)
}

// failed reports whether a token endpoint's answer says that it is an error,
// under whatever status.
func (p *Provider) failed(fields map[string]any) bool {
	if isError(fields["error"]) {
		return true
	}
	if len(p.entry.Answer.Success) == 0 {
		return isError(p.field(fields, "error"))
	}
	for path, want := range p.entry.Answer.Success {
		if text, _ := plainText(lookup(fields, path)); text != want {
			return true
		}
	}
	return false
}

// denies reports whether an answer of another endpoint says that it is an error,
// in the words of the token endpoint. Not all of them say when it is none.
func (p *Provider) denies(fields map[string]any) bool {
	for path, want := range p.entry.Answer.Success {
		if text, ok := plainText(lookup(fields, path)); ok && text != want {
			return true
		}
	}
	return false
}

// isError reports whether v, the `error` of an answer, says that there is one.
func isError(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case json.Number:
		return v != "0"
	}
	return true
}

// safeCode returns code if it may stand in a log: it has the form of a code,
// and is not an echo of something secret.
func (p *Provider) safeCode(code string, prev *tokenstore.Token) string {
	code = strings.ToLower(code)
	if !errorCode.MatchString(code) {
		return codeUnrecognized
	}
	for _, s := range []string{p.clientSecret.Reveal(), prev.AccessToken.Reveal(), prev.RefreshToken.Reveal()} {
		if s != "" && strings.Contains(code, strings.ToLower(s)) {
			return codeUnrecognized
		}
	}
	return code
}

// retryAfter reads the header Retry-After (RFC 9110 section 10.2.3): seconds,
// or a date, at most maxRetryAfter. Anything else is zero.
func retryAfter(a *tokenstore.Answer) time.Duration {
	text := strings.TrimSpace(a.RetryAfter)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(min(max(n, 0), int64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	d := at.Sub(a.ReceivedAt).Seconds()
	return time.Duration(min(max(math.Ceil(d), 0), maxRetryAfter.Seconds())) * time.Second
}
