package seal

// The members of the structs in wire.go and event.go, in their order, with the
// names that stand there.

func (w *connectionWire) members(c *coder) {
	required(c, "id", &w.ID)
	required(c, "integration", &w.Integration)
	text(c, "provider", &w.Provider)
	text(c, "user_id", &w.UserID)
	text(c, "name", &w.Name)
	c.texts("labels", &w.Labels)
	c.texts("params", &w.Params)
	text(c, "metadata", &w.Metadata)
	c.part("account", &w.Account)
	required(c, "status", &w.Status)
	text(c, "status_reason", &w.StatusReason)
	c.flag("disabled", &w.Disabled)
	text(c, "auth_scheme", &w.AuthScheme)
	c.list("requested_scopes", &w.RequestedScopes)
	text(c, "redirect_url", &w.RedirectURL)
	c.time("created_at", &w.CreatedAt)
	c.time("updated_at", &w.UpdatedAt)
	c.time("connected_at", &w.ConnectedAt)
	c.time("last_used_at", &w.LastUsedAt)
	c.time("last_refreshed_at", &w.LastRefreshedAt)
	c.time("initiated_until", &w.InitiatedUntil)
	c.part("token", &w.Token)
	pointed(c, "intent", &w.Intent)
	pointed(c, "staged", &w.Staged)
	text(c, "last_flow", &w.LastFlow)
	c.part("last_completion", &w.LastCompletion)
	if c.member("revision", true) {
		numberValue(c, &w.Revision)
	}
}

func (w *accountWire) members(c *coder) {
	text(c, "id", &w.ID)
	text(c, "name", &w.Name)
	text(c, "email", &w.Email)
}

func (w *tokenWire) members(c *coder) {
	c.bytes("access_token", &w.AccessToken)
	c.bytes("refresh_token", &w.RefreshToken)
	text(c, "token_type", &w.TokenType)
	c.time("issued_at", &w.IssuedAt)
	c.time("expires_at", &w.ExpiresAt)
	c.flag("expiry_unknown", &w.ExpiryUnknown)
	c.time("refresh_expires_at", &w.RefreshExpiresAt)
	c.list("scopes", &w.Scopes)
	c.texts("metadata", &w.Metadata)
	number(c, "generation", &w.Generation)
	c.flag("unproven", &w.Unproven)
	number(c, "margin", &w.Margin)
	c.flag("provisional", &w.Provisional)
}

func (w *intentWire) members(c *coder) {
	text(c, "refresh_token_hash", &w.RefreshTokenHash)
	number(c, "generation", &w.Generation)
	c.time("started_at", &w.StartedAt)
	c.time("deadline", &w.Deadline)
	number(c, "unknown", &w.Unknown)
	pointed(c, "answer", &w.Answer)
}

func (w *answerWire) members(c *coder) {
	c.time("sent_at", &w.SentAt)
	c.time("received_at", &w.ReceivedAt)
	number(c, "status", &w.Status)
	c.bytes("content_type", &w.ContentType)
	c.bytes("retry_after", &w.RetryAfter)
	c.bytes("body", &w.Body)
	c.texts("callback", &w.Callback)
}

func (w *stagedWire) members(c *coder) {
	c.part("token", &w.Token)
	c.part("account", &w.Account)
	text(c, "auth_scheme", &w.AuthScheme)
	c.list("requested_scopes", &w.RequestedScopes)
	text(c, "flow_id", &w.FlowID)
	text(c, "code_hash", &w.CodeHash)
	c.time("until", &w.Until)
	number(c, "wrong_codes", &w.WrongCodes)
}

func (w *completionWire) members(c *coder) {
	text(c, "code_hash", &w.CodeHash)
	c.time("until", &w.Until)
}

func (w *eventWire) members(c *coder) {
	if c.member("seq", true) {
		numberValue(c, &w.Seq)
	}
	c.time("at", &w.At)
	required(c, "type", &w.Type)
	text(c, "connection_id", &w.ConnectionID)
	text(c, "integration", &w.Integration)
	text(c, "user_id", &w.UserID)
	c.part("actor", &w.Actor)
	c.flag("denied", &w.Denied)
	text(c, "reason", &w.Reason)
	number(c, "count", &w.Count)
}

func (w *actorWire) members(c *coder) {
	text(c, "kind", &w.Kind)
	text(c, "name", &w.Name)
	text(c, "from", &w.From)
}
