package dialect

// Those here say in words of their own, or by other codes than RFC 6749's, that
// a refresh token is over or is not to be used now.

// Strava tells the granted scopes beside the code, and what is wrong in a list.
func strava() *Dialect {
	const url = "https://www.strava.com/oauth/token"
	const issued = `{"token_type":"Bearer","expires_at":1568775134,"expires_in":$life,"refresh_token":"$refresh","access_token":"$access"`
	return &Dialect{
		ScopeSeparator: ",",
		Authorize:      Request{URL: "https://www.strava.com/oauth/authorize", Params: pageScopes, Answer: backWith + "&scope=$scopes"},
		Code:           Request{URL: url, Params: with(post, m{"grant_type": "authorization_code", "code": "$code"}), Answer: issued + `,"athlete":{"id":1}}`},
		Refresh:        Request{URL: url, Params: with(post, renew), Answer: issued + `}`},
		Revoke:         Request{URL: "https://www.strava.com/oauth/deauthorize", Params: m{"access_token": "$access"}, Answer: `{"access_token":"gone"}`},
		Account:        Request{Method: "GET", URL: "https://www.strava.com/api/v3/athlete", Headers: bearer, Answer: `{"id":"$account","username":"$name","resource_state":3}`},
		Call:           Request{URL: "https://www.strava.com/api/v3", Headers: bearer},
		Dead:           Fault{400, `{"message":"Bad Request","errors":[{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}]}`},
		Client:         Fault{400, `{"message":"Bad Request","errors":[{"resource":"Application","field":"client_id","code":"invalid"}]}`},
		Rotates:        true,
	}
}

// X calls a dead refresh token an invalid request.
func xTwitter() *Dialect {
	const url = "https://api.x.com/2/oauth2/token"
	const issued = `{"token_type":"bearer","expires_in":$life,"access_token":"$access","scope":"$scopes","refresh_token":"$refresh"}`
	return &Dialect{
		Authorize: Request{URL: "https://x.com/i/oauth2/authorize", Params: with(pageScopes, pkce), Answer: backWith},
		Code:      Request{URL: url, Params: with(redeem, m{"code_verifier": "$verifier", "client_id": "$client"}), Headers: basic, Answer: issued},
		Refresh:   Request{URL: url, Params: with(renew, m{"client_id": "$client"}), Headers: basic, Answer: issued},
		Revoke:    Request{URL: "https://api.x.com/2/oauth2/revoke", Params: m{"token": "$token"}, Headers: basic, Answer: `{"revoked":true}`},
		Account:   Request{Method: "GET", URL: "https://api.x.com/2/users/me", Headers: bearer, Answer: `{"data":{"id":"$account","name":"n","username":"$name"}}`},
		Call:      Request{URL: "https://api.x.com", Headers: bearer},
		Dead:      Fault{400, `{"error":"invalid_request","error_description":"Value passed for the token was invalid."}`},
		Client:    Fault{401, `{"error":"unauthorized_client","error_description":"Missing valid authorization header"}`},
		Rotates:   true,
	}
}

// Bitbucket grants the scopes that the consumer is registered with, whatever is
// asked for, and lists them as `scopes`. That a refresh token is over its text
// alone says.
func bitbucket() *Dialect {
	const url = "https://bitbucket.org/site/oauth2/access_token"
	const issued = `{"access_token":"$access","scopes":"account email repository","token_type":"bearer","expires_in":$life,"state":"authorization_code","refresh_token":"$refresh"}`
	return &Dialect{
		Authorize: Request{URL: "https://bitbucket.org/site/oauth2/authorize", Params: page, Answer: backWith},
		Code:      Request{URL: url, Params: redeem, Headers: basic, Answer: issued},
		Refresh:   Request{URL: url, Params: renew, Headers: basic, Answer: issued},
		Account: Request{
			Method: "GET", URL: "https://api.bitbucket.org/2.0/user", Headers: bearer,
			Answer: `{"type":"user","uuid":"$account","display_name":"$name","nickname":"n","account_id":"557058:c0b72ad0-1cb5-4018-9cdc-0cde8492c443"}`,
		},
		Call:   Request{URL: "https://api.bitbucket.org/2.0", Headers: bearer},
		Dead:   Fault{403, `{"error":"unauthorized_client","error_description":"refresh_token is invalid"}`},
		Client: Fault{400, `{"error":"unauthorized_client","error_description":"Invalid OAuth client credentials"}`},
		Life:   7200, Rotates: true,
	}
}

// Exact Online refreshes in the last half minute of ten, and tells the life as a
// text. JSON is what an API request has to ask for.
func exactOnline() *Dialect {
	const host = "https://start.exactonline.nl/api"
	const issued = `{"access_token":"$access","token_type":"bearer","expires_in":"$life","refresh_token":"$refresh"}`
	call := with(bearer, m{"Accept": "application/json"})
	return &Dialect{
		Params: m{"host": "start.exactonline.nl"}, Told: m{"division": "1455286"},
		Authorize: Request{URL: host + "/oauth2/auth", Params: page, Answer: backWith},
		Code:      Request{URL: host + "/oauth2/token", Params: with(post, redeem), Answer: issued},
		Refresh:   Request{URL: host + "/oauth2/token", Params: with(post, renew), Answer: issued},
		Account: Request{
			Method: "GET", URL: host + "/v1/current/Me", Headers: call,
			Answer: `{"d":{"results":[{"CurrentDivision":1455286,"FullName":"$name","UserID":"$account","UserName":"u","Email":"$email"}]}}`,
		},
		Call:    Request{URL: host, Headers: call},
		Dead:    Fault{401, `{"error":"unauthorized_client","error_description":"Old refresh token used."}`},
		Client:  Fault{400, `{"error":"invalid_client","error_description":"Client authentication failed."}`},
		Early:   Fault{400, `{"error":"access_denied","error_description":"Rate limit exceeded: access_token not expired"}`},
		Life:    600,
		Rotates: true, Pause: true,
	}
}

// Greenhouse tells the end of an access token, and not its life.
func greenhouse() *Dialect {
	const url = "https://auth.greenhouse.io/token"
	const issued = `{"access_token":"$access","token_type":"Bearer","expires_at":"$expires_at","refresh_token":"$refresh","scope":"$scopes"}`
	return &Dialect{
		Authorize: Request{URL: "https://auth.greenhouse.io/authorize", Params: pageScopes, Answer: backWith},
		Code:      Request{URL: url, Params: redeem, Headers: basic, Answer: issued},
		Refresh:   Request{URL: url, Params: renew, Headers: basic, Answer: issued},
		Call:      Request{URL: "https://harvest.greenhouse.io", Headers: bearer},
		Dead:      grantIsOver, Client: noClient, Rotates: true,
	}
}
