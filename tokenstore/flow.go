package tokenstore

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
)

// The lives of a flow.
const (
	// FlowLife is how long a user may take at the provider.
	FlowLife = 10 * time.Minute
	// flowMemory is how long used and expired states are remembered after that.
	flowMemory = 24 * time.Hour
)

// FlowStage says how far a flow has come. It only moves forward.
type FlowStage string

// The stages of a flow.
const (
	FlowOpen     FlowStage = "open"     // the browser is at the provider
	FlowTaken    FlowStage = "taken"    // the callback came; the code is being exchanged
	FlowFinished FlowStage = "finished" // it has an outcome; its secrets are erased
)

// ErrFlowUsed is returned by Flow.Take for a flow that was taken before.
var ErrFlowUsed = errors.New("flow was used already")

// Flow is one run of the connect flow, from the link to the callback. Taking
// it is at the same time the intent to exchange its code: a flow that is found
// taken without an answer is failed, never exchanged again.
type Flow struct {
	ID          string // secret.String.Hash of the state
	Integration string
	UserID      string
	// ConnectionID is set from the start. Reconnect says that the connection
	// existed when the flow began; else it is made when the flow ends well.
	ConnectionID   string
	Reconnect      bool
	ConnectionName string
	Labels         map[string]string
	Params         map[string]string // as Connection.Params
	Scopes         []string          // asked for at the provider

	CodeVerifier secret.String // RFC 7636 section 4.1
	BrowserHash  string        // secret.String.Hash of the binding cookie's value
	RedirectURL  string        // the app's, empty if there is none
	AppState     string        // the app's `state`, returned unchanged
	// FormPost says that the answer goes to RedirectURL as a form that is posted
	// (`response_mode=form_post`), not in its query.
	FormPost bool
	// Tries counts the credentials that were entered on the page and did not do.
	Tries int

	Stage     FlowStage
	CreatedAt time.Time
	ExpiresAt time.Time
	Answer    *Answer // the token endpoint's, while taken
	// Outcome is how a finished flow ended: "connected" or an error code.
	Outcome string
	// News are the events of a change, as Connection.News.
	News []Event
}

// KeepUntil returns when the store may forget the flow.
func (f *Flow) KeepUntil() time.Time { return f.ExpiresAt.Add(flowMemory) }

// Clone returns a copy that shares nothing with f.
func (f Flow) Clone() Flow {
	f.Labels, f.Params = maps.Clone(f.Labels), maps.Clone(f.Params)
	f.Scopes = slices.Clone(f.Scopes)
	f.News = slices.Clone(f.News)
	f.Answer = f.Answer.Clone()
	return f
}

// Take takes the flow for its one use, or returns ErrFlowUsed.
func (f *Flow) Take() error {
	if f.Stage != FlowOpen {
		return ErrFlowUsed
	}
	f.Stage = FlowTaken
	return nil
}

// Finish ends the flow with its outcome and erases what was secret in it.
func (f *Flow) Finish(outcome string) {
	f.Stage, f.Outcome = FlowFinished, outcome
	f.Answer, f.CodeVerifier = nil, secret.String{}
}
