package ui

// ScopeWords are the scopes' texts :: language → provider → scope → text.
func ScopeWords() map[string]map[string]map[string]string { return scopeWords }
