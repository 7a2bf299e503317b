package metrics

import "time"

// CallOutcomes are what becomes of a proxied call: the class of the status that
// the upstream answered with, or the code of Lanyard's own answer.
var CallOutcomes = []string{
	CallSwitched, "2xx", "3xx", "4xx", "5xx", CallCanceled,
	"browser_request_blocked", "connection_ambiguous", "connection_not_active", "connection_not_found",
	"connection_required", "host_invalid", "host_not_allowed", "integration_misconfigured", "key_required",
	"method_not_allowed", "not_allowed", "not_found", "path_invalid", "rate_limited", "reconnect_required",
	"refresh_unavailable", "store_corrupt", "store_full", "store_readonly", "store_unavailable", "too_early", "upstream_timeout",
	"upstream_unreachable",
}

// Outcomes of a call without an answer.
const (
	CallSwitched = "switched" // to another protocol
	CallCanceled = "canceled" // whoever called has gone
)

// StatusClass returns the outcome of an upstream's answer.
func StatusClass(status int) string {
	switch status / 100 {
	case 1:
		return CallSwitched
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	case 5:
		return "5xx"
	}
	return Other
}

// What comes of a request for a new token.
const (
	RefreshOK       = "ok"             // a new token
	RefreshDead     = "dead"           // the provider refused the refresh token for good
	RefreshRefused  = "refused"        // the provider refused for now, or for another reason
	RefreshClient   = "client_refused" // the provider refused the integration's client
	RefreshNotSent  = "not_sent"       // the token endpoint could not be reached
	RefreshUnknown  = "unknown"        // the request left, and no answer that can be read came back
	RefreshUnstored = "store_failed"   // the store could not write what it takes
	RefreshMoved    = "moved"          // the connection was reconnected, revoked or deleted meanwhile
)

// RefreshResults are all of these.
var RefreshResults = []string{
	RefreshOK, RefreshDead, RefreshRefused, RefreshClient, RefreshNotSent, RefreshUnknown, RefreshUnstored, RefreshMoved,
}

// FlowConnected is the outcome of a flow that brought a credential. The others
// are the codes with which flows fail.
const FlowConnected = "connected"

// FlowOutcomes are what becomes of a connect flow that the user has begun.
var FlowOutcomes = []string{
	FlowConnected, "user_denied", "source_error", "provisioning_failed", "timeout", "invalid_scope",
	"redirect_uri_mismatch", "browser_mismatch", "issuer_mismatch", "account_mismatch", "invalid_parameter",
}

// What comes of a request to a webhook endpoint.
const (
	WebhookTaken   = "taken"
	WebhookFailed  = "failed"   // not taken; tried again
	WebhookGivenUp = "given_up" // an event that was not taken for too long
	WebhookGone    = "gone"     // the endpoint wants nothing any more (410)
)

// WebhookResults are all of these.
var WebhookResults = []string{WebhookTaken, WebhookFailed, WebhookGivenUp, WebhookGone}

var (
	addedBounds = []time.Duration{
		25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 10 * time.Millisecond, 50 * time.Millisecond, 250 * time.Millisecond,
		time.Second, 5 * time.Second, 20 * time.Second,
	}
	refreshBounds = []time.Duration{
		25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 20 * time.Second,
	}
)
