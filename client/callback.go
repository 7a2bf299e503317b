package client

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// maxCallback bounds a callback that comes as a form, in bytes.
const maxCallback = 64 << 10

// Callback takes the browser back at the app's redirect URL, by query or by
// form, and completes the connection: it is ACTIVE then, and returned. state is
// what this browser's session was sent away with, and userID who is signed in
// by it: both come from the app's own session, never from the URL. A form is
// posted by another site, so that a session cookie with SameSite=Lax does not
// come with it.
//
// The error is ErrState, a *CallbackError where nothing was connected, or of
// Complete.
func (c *Client) Callback(r *http.Request, state, userID string) (*Connection, error) {
	if userID == "" {
		return nil, errors.New("lanyard: callback: the user ID is empty; it is that of the session")
	}
	form, err := callbackForm(r)
	if err != nil {
		return nil, err
	}
	given := form.Get("state")
	if state == "" || subtle.ConstantTimeCompare([]byte(given), []byte(state)) != 1 {
		return nil, ErrState
	}
	id, code := form.Get("connection_id"), form.Get("completion_code")
	switch {
	case form.Get("error") != "":
		return nil, &CallbackError{Code: form.Get("error"), Description: form.Get("error_description")}
	case id == "":
		return nil, errors.New("lanyard: callback: it has neither a connection nor an error")
	case code != "":
		return c.Complete(r.Context(), id, code, userID)
	}
	// `completion off`: whose it is, is only known from the connection.
	got, err := c.Get(r.Context(), id)
	if err == nil && got.UserID != userID {
		return nil, fmt.Errorf("lanyard: callback: connection %s is another user's", id)
	}
	return got, err
}

// callbackForm reads what the browser brings, each name once.
func callbackForm(r *http.Request) (url.Values, error) {
	form := r.URL.Query()
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(nil, r.Body, maxCallback)
		if err := r.ParseForm(); err != nil {
			return nil, fmt.Errorf("lanyard: callback: reading the form: %w", err)
		}
		form = r.PostForm
	}
	for _, name := range [...]string{"connection_id", "completion_code", "state", "error", "error_description"} {
		if len(form[name]) > 1 {
			return nil, fmt.Errorf("lanyard: callback: %s stands twice", name)
		}
	}
	return form, nil
}
