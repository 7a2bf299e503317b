package fakeprovider

import (
	"context"
	"errors"
	"fmt"
	"html"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// formPage is an authorization response that the browser posts (OAuth 2.0 Form
// Post Response Mode), by itself where scripts run.
var formPage = template.Must(template.New("form").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Back to the app</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
<main>
<h1>Back to the app</h1>
<form id="answer" method="post" action="{{.Action}}">
{{- range $name, $values := .Params}}{{range $values}}
<input type="hidden" name="{{$name}}" value="{{.}}">
{{- end}}{{end}}
<div class="actions"><button class="main" type="submit">Continue</button></div>
</form>
</main>
<script src="submit.js"></script>
</html>
`))

// formParts finds the address and the fields of formPage.
var formParts = regexp.MustCompile(`action="([^"]*)"|type="hidden" name="([^"]*)" value="([^"]*)"`)

// formPost answers with the page that posts the parameters to the client.
func (s *Server) formPost(w http.ResponseWriter, action string, params url.Values) {
	var b strings.Builder
	if err := formPage.Execute(&b, struct {
		Action string
		Params url.Values
	}{action, params}); err != nil {
		http.Error(w, "page can't be shown", http.StatusInternalServerError)
		return
	}
	pageHeaders(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, b.String())
}

func serveSubmit(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, "document.getElementById('answer').submit();\n")
}

// ApproveForm says yes on the consent page at authorizeURL of a provider that
// answers with a form to post, and returns what a browser posts, and where to.
// With a userID another of the accounts that the page offers is chosen.
func ApproveForm(ctx context.Context, client *http.Client, authorizeURL, userID string) (action string, form url.Values, err error) {
	u, err := url.Parse(authorizeURL)
	if err != nil {
		return "", nil, fmt.Errorf("consent: reading the authorization URL: %w", err)
	}
	yes := url.Values{"decision": {"allow"}, "account": {userID}, "scope": strings.Fields(u.Query().Get("scope"))}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, authorizeURL, strings.NewReader(yes.Encode()))
	if err != nil {
		return "", nil, fmt.Errorf("consent: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	if err != nil {
		return "", nil, errors.New("consent: the provider could not be asked")
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxForm))
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("consent: the answer was %d, not a form", resp.StatusCode)
	}
	form = url.Values{}
	for _, found := range formParts.FindAllStringSubmatch(string(page), -1) {
		if found[1] != "" {
			action = html.UnescapeString(found[1])
		} else {
			form.Add(html.UnescapeString(found[2]), html.UnescapeString(found[3]))
		}
	}
	if action == "" {
		return "", nil, errors.New("consent: the page has no form")
	}
	return action, form, nil
}
