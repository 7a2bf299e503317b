package main

import (
	"net/http"

	"github.com/google/go-github/v84/github"
)

// repos calls the API, page by page, with GitHub's own SDK.
func (a *app) repos(w http.ResponseWriter, r *http.Request) {
	conn, err := a.lanyard.Get(r.Context(), r.FormValue("id"))
	if err != nil || conn.UserID != userID {
		http.NotFound(w, r)
		return
	}
	gh := github.NewClient(a.lanyard.HTTPClient(conn.ID))
	gh.BaseURL = a.api
	opts := &github.RepositoryListByAuthenticatedUserOptions{}
	var names []string
	for {
		page, res, err := gh.Repositories.ListByAuthenticatedUser(r.Context(), opts)
		if err != nil {
			fail(w, r, err)
			return
		}
		for _, repo := range page {
			names = append(names, repo.GetName())
		}
		if res.NextPage == 0 {
			break
		}
		opts.Page = res.NextPage
	}
	show(w, "repos", names)
}
