package dashboard

import "github.com/lanyard-proxy/lanyard/tokenstore"

// reasons are the codes of status_reason and of events, in words.
var reasons = map[string]string{
	tokenstore.ReasonTimeout:            "It was not finished in time.",
	tokenstore.ReasonInvalidGrant:       "The user or the provider ended the access. Trying again does not help; the user has to connect again.",
	tokenstore.ReasonRefreshInterrupted: "A refresh was cut off before its answer came, and the provider then took the token for used. The user has to connect again.",
	tokenstore.ReasonRestoredStale:      "It came from a backup, and its refresh token had been replaced since. The user has to connect again.",
	tokenstore.ReasonNoRefreshToken:     "The access token has ended, and the provider gave nothing to renew it with.",
	tokenstore.ReasonUserMismatch:       "It was completed for another user than the one the link was made for.",
	tokenstore.ReasonCompletionInvalid:  "Too many wrong completion codes were tried.",
	tokenstore.ReasonRevoked:            "It was disconnected here.",
	tokenstore.ReasonIntegrationMissing: "Its integration is not in the configuration.",
	tokenstore.ReasonInvalidParameter:   "Its parameters are not the ones its integration needs now.",
	"user_denied":                       "The user said no.",
	"source_error":                      "The provider failed.",
	"provisioning_failed":               "It could not be stored.",
	"invalid_scope":                     "It asked for a permission that the provider does not have.",
	"browser_mismatch":                  "The answer came to another browser than the one that asked.",
	"account_mismatch":                  "The user chose another account than before.",
	"store_corrupt":                     "Its record can’t be opened. It can be deleted here; docs/operations.md says what else can be done.",
}

// kind is how an event is told.
type kind struct {
	Text  string
	Class string // of the mark before it: none, n, w or e
}

// kinds are the events that have words of their own.
var kinds = map[tokenstore.EventType]kind{
	tokenstore.EventBegun:         {"Begun by the app", "n"},
	tokenstore.EventLinked:        {"Connect link made", "n"},
	tokenstore.EventAuthorized:    {"Authorised, waits for the app", "n"},
	tokenstore.EventActive:        {"Connected", ""},
	tokenstore.EventFailed:        {"Connecting failed", "w"},
	tokenstore.EventDropped:       {"Unclaimed credential erased", "w"},
	tokenstore.EventRefreshed:     {"Refreshed", ""},
	tokenstore.EventRefreshFailed: {"Refresh failed", "w"},
	tokenstore.EventExpired:       {"Access ended", "e"},
	tokenstore.EventScopes:        {"Permissions changed", "w"},
	tokenstore.EventRevoked:       {"Disconnected", "n"},
	tokenstore.EventDeleted:       {"Deleted", "n"},
	tokenstore.EventChanged:       {"Changed", "n"},
	tokenstore.EventUsed:          {"First use of a token", "n"},
	tokenstore.EventDamaged:       {"Record is damaged", "e"},
	tokenstore.EventFlowEnded:     {"Connecting ended without a result", "w"},
	tokenstore.EventCompletion:    {"Completion refused", "w"},
	tokenstore.EventCallRefused:   {"Call refused", "w"},
	tokenstore.EventKeyRefused:    {"Key refused", "w"},
	tokenstore.EventBackup:        {"Backup read", "n"},
	tokenstore.EventRekey:         {"Everything is sealed anew", "n"},
	tokenstore.EventWebhookLost:   {"Webhook given up", "e"},
	tokenstore.EventLost:          {"This line of the log is damaged", "e"},
}

// actors are the kinds of those who did something.
var actors = map[string]string{
	tokenstore.ActorAPIKey:   "the app",
	tokenstore.ActorClient:   "client",
	tokenstore.ActorBrowser:  "the browser",
	tokenstore.ActorLanyard:  "Lanyard itself",
	tokenstore.ActorOperator: "operator",
}

// notices say what became of a change. They are shown by their name in the
// query `done`, so that nobody can make a page say something else.
var notices = map[string]pill{
	"refreshed":     {"ok", "The token was refreshed."},
	"enabled":       {"ok", "The connection is on again."},
	"disabled":      {"ok", "The connection is switched off. Calls over it are refused until it is switched on."},
	"reconnect":     {"bad", "The provider does not take the refresh token any more. The user has to connect again."},
	"inactive":      {"warn", "There is nothing to refresh: the connection is not active."},
	"unrenewable":   {"warn", "Nothing can renew this token. The user has to connect again when it ends."},
	"unavailable":   {"warn", "The provider did not answer. The token stays as it is, and is refreshed when the provider is back."},
	"gone":          {"warn", "The connection is not there any more."},
	"revoked":       {"ok", "Disconnected. The provider has ended the access."},
	"pending":       {"warn", "Disconnected here. The provider did not answer; Lanyard goes on trying for a day."},
	"left":          {"ok", "Disconnected here. The provider was not asked, or has no way to end the access: the user can do it there."},
	"shared":        {"ok", "Disconnected here. The provider was not asked, since that would end another connection of the same account."},
	"nothing":       {"ok", "There was no credential to erase."},
	"deleted":       {"ok", "The connection is deleted."},
	"deleted_later": {"warn", "The connection is deleted. The provider did not answer; Lanyard goes on trying for a day to end the access there."},
}
