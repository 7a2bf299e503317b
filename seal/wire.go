package seal

import (
	"maps"
	"slices"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// The structs below are the stored format: the JSON names are fixed, and a
// field is never reused for something else. Fields that are zero are left out.
// Credentials and bodies are bytes, since they need not be UTF-8.

type connectionWire struct {
	ID          string            `json:"id"`
	Integration string            `json:"integration"`
	Provider    string            `json:"provider,omitzero"`
	UserID      string            `json:"user_id,omitzero"`
	Name        string            `json:"name,omitzero"`
	Labels      map[string]string `json:"labels,omitzero"`
	Params      map[string]string `json:"params,omitzero"`
	Metadata    string            `json:"metadata,omitzero"`
	Account     accountWire       `json:"account,omitzero"`

	Status       tokenstore.Status `json:"status"`
	StatusReason string            `json:"status_reason,omitzero"`
	Disabled     bool              `json:"disabled,omitzero"`
	AuthScheme   string            `json:"auth_scheme,omitzero"`

	RequestedScopes []string `json:"requested_scopes,omitzero"`
	RedirectURL     string   `json:"redirect_url,omitzero"`

	CreatedAt       time.Time `json:"created_at,omitzero"`
	UpdatedAt       time.Time `json:"updated_at,omitzero"`
	ConnectedAt     time.Time `json:"connected_at,omitzero"`
	LastUsedAt      time.Time `json:"last_used_at,omitzero"`
	LastRefreshedAt time.Time `json:"last_refreshed_at,omitzero"`
	InitiatedUntil  time.Time `json:"initiated_until,omitzero"`

	Token  tokenWire   `json:"token,omitzero"`
	Intent *intentWire `json:"intent,omitzero"`
	Staged *stagedWire `json:"staged,omitzero"`

	LastFlow       string         `json:"last_flow,omitzero"`
	LastCompletion completionWire `json:"last_completion,omitzero"`

	Revision uint64 `json:"revision"`
}

type accountWire struct {
	ID    string `json:"id,omitzero"`
	Name  string `json:"name,omitzero"`
	Email string `json:"email,omitzero"`
}

type tokenWire struct {
	AccessToken      []byte            `json:"access_token,omitzero"`
	RefreshToken     []byte            `json:"refresh_token,omitzero"`
	TokenType        string            `json:"token_type,omitzero"`
	IssuedAt         time.Time         `json:"issued_at,omitzero"`
	ExpiresAt        time.Time         `json:"expires_at,omitzero"`
	ExpiryUnknown    bool              `json:"expiry_unknown,omitzero"`
	RefreshExpiresAt time.Time         `json:"refresh_expires_at,omitzero"`
	Scopes           []string          `json:"scopes,omitzero"`
	Metadata         map[string]string `json:"metadata,omitzero"`
	Generation       uint64            `json:"generation,omitzero"`
	Unproven         bool              `json:"unproven,omitzero"`
	Margin           time.Duration     `json:"margin,omitzero"` // nanoseconds
	Provisional      bool              `json:"provisional,omitzero"`
}

type intentWire struct {
	RefreshTokenHash string      `json:"refresh_token_hash,omitzero"`
	Generation       uint64      `json:"generation,omitzero"`
	StartedAt        time.Time   `json:"started_at,omitzero"`
	Deadline         time.Time   `json:"deadline,omitzero"`
	Unknown          int         `json:"unknown,omitzero"`
	Answer           *answerWire `json:"answer,omitzero"`
}

type answerWire struct {
	SentAt      time.Time `json:"sent_at,omitzero"`
	ReceivedAt  time.Time `json:"received_at,omitzero"`
	Status      int       `json:"status,omitzero"`
	ContentType []byte    `json:"content_type,omitzero"` // as a stranger sent it
	RetryAfter  []byte    `json:"retry_after,omitzero"`  // as a stranger sent it
	Body        []byte    `json:"body,omitzero"`

	Callback map[string]string `json:"callback,omitzero"`
}

type stagedWire struct {
	Token           tokenWire   `json:"token,omitzero"`
	Account         accountWire `json:"account,omitzero"`
	AuthScheme      string      `json:"auth_scheme,omitzero"`
	RequestedScopes []string    `json:"requested_scopes,omitzero"`
	FlowID          string      `json:"flow_id,omitzero"`
	CodeHash        string      `json:"code_hash,omitzero"`
	Until           time.Time   `json:"until,omitzero"`
	WrongCodes      int         `json:"wrong_codes,omitzero"`
}

type completionWire struct {
	CodeHash string    `json:"code_hash,omitzero"`
	Until    time.Time `json:"until,omitzero"`
}

type flowWire struct {
	ID             string            `json:"id"`
	Integration    string            `json:"integration"`
	UserID         string            `json:"user_id,omitzero"`
	ConnectionID   string            `json:"connection_id,omitzero"`
	Reconnect      bool              `json:"reconnect,omitzero"`
	ConnectionName string            `json:"connection_name,omitzero"`
	Labels         map[string]string `json:"labels,omitzero"`
	Params         map[string]string `json:"params,omitzero"`
	Scopes         []string          `json:"scopes,omitzero"`

	CodeVerifier []byte `json:"code_verifier,omitzero"`
	BrowserHash  string `json:"browser_hash,omitzero"`
	RedirectURL  string `json:"redirect_url,omitzero"`
	AppState     []byte `json:"app_state,omitzero"` // returned unchanged, whatever it is
	FormPost     bool   `json:"form_post,omitzero"`
	Tries        int    `json:"tries,omitzero"`

	Stage     tokenstore.FlowStage `json:"stage"`
	CreatedAt time.Time            `json:"created_at,omitzero"`
	ExpiresAt time.Time            `json:"expires_at,omitzero"`
	Answer    *answerWire          `json:"answer,omitzero"`
	Outcome   string               `json:"outcome,omitzero"`
}

// instant drops the zone and the reading of the monotonic clock, which mean
// nothing to the process that reads the record.
func instant(t time.Time) time.Time { return t.Round(0).UTC() }

func reveal(s secret.String) []byte {
	if s.IsZero() {
		return nil
	}
	return []byte(s.Reveal())
}

func conceal(b []byte) secret.String {
	if len(b) == 0 {
		return secret.String{}
	}
	return secret.New(string(b))
}

func newConnectionWire(c *tokenstore.Connection) *connectionWire {
	w := &connectionWire{
		ID: c.ID, Integration: c.Integration, Provider: c.Provider,
		UserID: c.UserID, Name: c.Name, Labels: c.Labels, Params: c.Params,
		Metadata: c.Metadata, Account: newAccountWire(c.Account),
		Status: c.Status, StatusReason: c.StatusReason, Disabled: c.Disabled, AuthScheme: c.AuthScheme,
		RequestedScopes: c.RequestedScopes, RedirectURL: c.RedirectURL,
		CreatedAt: instant(c.CreatedAt), UpdatedAt: instant(c.UpdatedAt), ConnectedAt: instant(c.ConnectedAt),
		LastUsedAt: instant(c.LastUsedAt), LastRefreshedAt: instant(c.LastRefreshedAt),
		InitiatedUntil: instant(c.InitiatedUntil),
		Token:          newTokenWire(c.Token),
		LastFlow:       c.LastFlow,
		LastCompletion: completionWire{c.LastCompletion.CodeHash, instant(c.LastCompletion.Until)},
		Revision:       c.Revision,
	}
	if in := c.Intent; in != nil {
		w.Intent = &intentWire{
			RefreshTokenHash: in.RefreshTokenHash, Generation: in.Generation,
			StartedAt: instant(in.StartedAt), Deadline: instant(in.Deadline),
			Unknown: in.Unknown, Answer: newAnswerWire(in.Answer),
		}
	}
	if st := c.Staged; st != nil {
		w.Staged = &stagedWire{
			Token: newTokenWire(st.Token), Account: newAccountWire(st.Account), RequestedScopes: st.RequestedScopes, FlowID: st.FlowID,
			CodeHash: st.CodeHash, Until: instant(st.Until), WrongCodes: st.WrongCodes, AuthScheme: st.AuthScheme,
		}
	}
	return w
}

func (w *connectionWire) connection() tokenstore.Connection {
	c := tokenstore.Connection{
		ID: w.ID, Integration: w.Integration, Provider: w.Provider,
		UserID: w.UserID, Name: w.Name, Labels: w.Labels, Params: w.Params,
		Metadata: w.Metadata, Account: tokenstore.Account(w.Account),
		Status: w.Status, StatusReason: w.StatusReason, Disabled: w.Disabled, AuthScheme: w.AuthScheme,
		RequestedScopes: w.RequestedScopes, RedirectURL: w.RedirectURL,
		CreatedAt: w.CreatedAt, UpdatedAt: w.UpdatedAt, ConnectedAt: w.ConnectedAt,
		LastUsedAt: w.LastUsedAt, LastRefreshedAt: w.LastRefreshedAt,
		InitiatedUntil: w.InitiatedUntil,
		Token:          w.Token.token(),
		LastFlow:       w.LastFlow,
		LastCompletion: tokenstore.Completion(w.LastCompletion),
		Revision:       w.Revision,
	}
	if in := w.Intent; in != nil {
		c.Intent = &tokenstore.Intent{
			RefreshTokenHash: in.RefreshTokenHash, Generation: in.Generation,
			StartedAt: in.StartedAt, Deadline: in.Deadline,
			Unknown: in.Unknown, Answer: in.Answer.answer(),
		}
	}
	if st := w.Staged; st != nil {
		c.Staged = &tokenstore.Staged{
			Token: st.Token.token(), Account: tokenstore.Account(st.Account), RequestedScopes: st.RequestedScopes, FlowID: st.FlowID,
			CodeHash: st.CodeHash, Until: st.Until, WrongCodes: st.WrongCodes, AuthScheme: st.AuthScheme,
		}
	}
	return c
}

// newAccountWire makes valid UTF-8 of what a provider wrote.
func newAccountWire(a tokenstore.Account) accountWire {
	return accountWire{ID: validText(a.ID), Name: validText(a.Name), Email: validText(a.Email)}
}

func newTokenWire(t tokenstore.Token) tokenWire {
	scopes, metadata := providerText(t)
	return tokenWire{
		AccessToken: reveal(t.AccessToken), RefreshToken: reveal(t.RefreshToken),
		TokenType: validText(t.TokenType),
		IssuedAt:  instant(t.IssuedAt), ExpiresAt: instant(t.ExpiresAt), ExpiryUnknown: t.ExpiryUnknown,
		RefreshExpiresAt: instant(t.RefreshExpiresAt),
		Scopes:           scopes, Metadata: metadata, Generation: t.Generation, Unproven: t.Unproven,
		Margin: t.Margin, Provisional: t.Provisional,
	}
}

// providerText returns what the provider wrote beside the tokens, as valid
// UTF-8: a provider that sends anything else there must not keep its tokens
// from being stored.
func providerText(t tokenstore.Token) (scopes []string, metadata map[string]string) {
	scopes = slices.Clone(t.Scopes)
	for i, s := range scopes {
		scopes[i] = validText(s)
	}
	return scopes, validTexts(t.Metadata)
}

// validTexts returns m as valid UTF-8.
func validTexts(m map[string]string) map[string]string {
	valid := maps.Clone(m)
	for k, v := range m {
		delete(valid, k)
		valid[validText(k)] = validText(v)
	}
	return valid
}

func (w *tokenWire) token() tokenstore.Token {
	return tokenstore.Token{
		AccessToken: conceal(w.AccessToken), RefreshToken: conceal(w.RefreshToken), TokenType: w.TokenType,
		IssuedAt: w.IssuedAt, ExpiresAt: w.ExpiresAt, ExpiryUnknown: w.ExpiryUnknown,
		RefreshExpiresAt: w.RefreshExpiresAt,
		Scopes:           w.Scopes, Metadata: w.Metadata, Generation: w.Generation, Unproven: w.Unproven,
		Margin: w.Margin, Provisional: w.Provisional,
	}
}

func newAnswerWire(a *tokenstore.Answer) *answerWire {
	if a == nil {
		return nil
	}
	return &answerWire{
		SentAt: instant(a.SentAt), ReceivedAt: instant(a.ReceivedAt), Status: a.Status,
		ContentType: []byte(a.ContentType), RetryAfter: []byte(a.RetryAfter), Body: reveal(a.Body),
		Callback: validTexts(a.Callback),
	}
}

func (w *answerWire) answer() *tokenstore.Answer {
	if w == nil {
		return nil
	}
	return &tokenstore.Answer{
		SentAt: w.SentAt, ReceivedAt: w.ReceivedAt, Status: w.Status,
		ContentType: string(w.ContentType), RetryAfter: string(w.RetryAfter), Body: conceal(w.Body),
		Callback: w.Callback,
	}
}

func newFlowWire(f *tokenstore.Flow) *flowWire {
	return &flowWire{
		ID: f.ID, Integration: f.Integration, UserID: f.UserID,
		ConnectionID: f.ConnectionID, Reconnect: f.Reconnect, ConnectionName: f.ConnectionName,
		Labels: f.Labels, Params: f.Params, Scopes: f.Scopes,
		CodeVerifier: reveal(f.CodeVerifier), BrowserHash: f.BrowserHash,
		RedirectURL: f.RedirectURL, AppState: []byte(f.AppState), FormPost: f.FormPost, Tries: f.Tries,
		Stage: f.Stage, CreatedAt: instant(f.CreatedAt), ExpiresAt: instant(f.ExpiresAt),
		Answer: newAnswerWire(f.Answer), Outcome: f.Outcome,
	}
}

func (w *flowWire) flow() tokenstore.Flow {
	return tokenstore.Flow{
		ID: w.ID, Integration: w.Integration, UserID: w.UserID,
		ConnectionID: w.ConnectionID, Reconnect: w.Reconnect, ConnectionName: w.ConnectionName,
		Labels: w.Labels, Params: w.Params, Scopes: w.Scopes,
		CodeVerifier: conceal(w.CodeVerifier), BrowserHash: w.BrowserHash,
		RedirectURL: w.RedirectURL, AppState: string(w.AppState), FormPost: w.FormPost, Tries: w.Tries,
		Stage: w.Stage, CreatedAt: w.CreatedAt, ExpiresAt: w.ExpiresAt,
		Answer: w.Answer.answer(), Outcome: w.Outcome,
	}
}

type noteWire struct {
	ID        string    `json:"id"`
	Text      []byte    `json:"text,omitzero"`
	KeepUntil time.Time `json:"keep_until,omitzero"`
	Revision  uint64    `json:"revision"`
}

func newNoteWire(n *tokenstore.Note) *noteWire {
	return &noteWire{ID: n.ID, Text: reveal(n.Text), KeepUntil: instant(n.KeepUntil), Revision: n.Revision}
}

func (w *noteWire) note() tokenstore.Note {
	return tokenstore.Note{ID: w.ID, Text: conceal(w.Text), KeepUntil: w.KeepUntil, Revision: w.Revision}
}
