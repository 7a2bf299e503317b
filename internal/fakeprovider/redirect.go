package fakeprovider

import "net/http"

// Redirect answers 307 to another place, which would take the request's body
// along.
func Redirect(to string) Fault { return RedirectWith(http.StatusTemporaryRedirect, to) }

// RedirectWith answers with a status and a place to go on to.
func RedirectWith(status int, to string) Fault {
	f := Answer(status, "", "")
	f.name = "redirect"
	f.replace.header.Set("Location", to)
	return f
}
