package dialect

import (
	"maps"
	"slices"
)

// byHand has what was written from providers' documentation, by name.
var byHand = map[string]func() *Dialect{
	"slack": slack, "slack-user": slackUser, "notion": notion, "salesforce": salesforce, "shopify": shopify,
	"quickbooks": quickbooks, "microsoft": microsoft, "github": github, "github-app": githubApp, "atlassian": atlassian,
	"zoom-s2s": zoomS2S, "hubspot": hubspot, "linear": linear, "airtable": airtable, "reddit": reddit, "tiktok": tiktok,
	"stripe-apps": stripeApps, "zoho": zoho, "mailchimp": mailchimp, "docusign": docusign, "okta": okta, "square": square,
	"facebook": facebook, "instagram": instagram, "withings": withings, "wechat": wechat,
	"strava": strava, "tiktok-business": tiktokBusiness, "stackexchange": stackexchange, "x-twitter": xTwitter, "figma": figma,
	"bitbucket": bitbucket, "exact-online": exactOnline, "greenhouse": greenhouse,
}

// ByHand returns the dialect that was written by hand for a provider, nil if
// there is none.
func ByHand(name string) *Dialect {
	write := byHand[name]
	if write == nil {
		return nil
	}
	d := write()
	d.Name, d.ByHand = name, true
	return d
}

// Names returns the providers whose dialects were written by hand, sorted.
func Names() []string { return slices.Sorted(maps.Keys(byHand)) }

// m is a map of texts.
type m = map[string]string

// with returns a with what b has on top.
func with(a, b m) m {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// What most of them have in common, by the names of RFC 6749.
var (
	page       = m{"response_type": "code", "client_id": "$client", "redirect_uri": "$redirect", "state": "$state"}
	pageScopes = with(page, m{"scope": "$scopes"})
	pkce       = m{"code_challenge": "$challenge", "code_challenge_method": "S256"}
	redeem     = m{"grant_type": "authorization_code", "code": "$code", "redirect_uri": "$redirect"}
	renew      = m{"grant_type": "refresh_token", "refresh_token": "$refresh"}
	post       = m{"client_id": "$client", "client_secret": "$secret"}
	basic      = m{"Authorization": "Basic $client:$secret"}
	bearer     = m{"Authorization": "Bearer $access"}
	backWith   = "code=$code&state=$state"

	grantIsOver = Fault{400, `{"error":"invalid_grant","error_description":"it has expired or was revoked"}`}
	noClient    = Fault{401, `{"error":"invalid_client"}`}
)

// Slack: two tokens in one answer, the bot's at the top and the user's under
// authed_user; everything is HTTP 200, and `ok` says which it is.
func slack() *Dialect {
	const issued = `"access_token":"$access","token_type":"bot","scope":"$scopes","bot_user_id":"U0KRQLJ9H","app_id":"A0KRD7HC3",` +
		`"expires_in":$life,"refresh_token":"$refresh","team":{"name":"Slack Softball Team","id":"T9TK3CUKW"},"enterprise":null,"is_enterprise_install":false`
	d := slackCommon("scope")
	d.Told = m{"team_id": "T9TK3CUKW", "bot_user_id": "U0KRQLJ9H", "app_id": "A0KRD7HC3"}
	d.Code.Answer = `{"ok":true,` + issued + `,"authed_user":{"id":"U1234"}}`
	d.Refresh.Answer = `{"ok":true,` + issued + `}`
	d.Account.Answer = `{"ok":true,"url":"https://softball.slack.com/","team":"$name","user":"bot","team_id":"$account","user_id":"W12345678"}`
	return d
}

// slackUser is the same app's other token. An installation of the user alone
// has none at the top.
func slackUser() *Dialect {
	const issued = `{"ok":true,"app_id":"A0KRD7HC3","team":{"id":"T9TK3CUKW"},"enterprise":null,"is_enterprise_install":false,` +
		`"authed_user":{"id":"U1234","scope":"$scopes","access_token":"$access","token_type":"user","expires_in":$life,"refresh_token":"$refresh"}}`
	d := slackCommon("user_scope")
	d.Authorize.Params["scope"] = ""
	d.Told = m{"team_id": "T9TK3CUKW"}
	d.Code.Answer = issued
	// A user's token is refreshed by the same method, whose answer has it at the
	// top: oauth.v2.access, "Refreshing access tokens".
	d.Refresh.Answer = `{"ok":true,"access_token":"$access","expires_in":$life,"refresh_token":"$refresh","token_type":"user","scope":"$scopes","team":{"id":"T9TK3CUKW"}}`
	d.Account.Answer = `{"ok":true,"url":"https://softball.slack.com/","team":"Softball","user":"$name","team_id":"T9TK3CUKW","user_id":"$account"}`
	return d
}

func slackCommon(scopes string) *Dialect {
	const url = "https://slack.com/api/oauth.v2.access"
	params := m{"client_id": "$client", "redirect_uri": "$redirect", "state": "$state", scopes: "$scopes"}
	return &Dialect{
		ScopeSeparator: ",",
		Authorize:      Request{URL: "https://slack.com/oauth/v2/authorize", Params: params, Answer: backWith},
		Code:           Request{URL: url, Params: with(post, m{"code": "$code", "redirect_uri": "$redirect"})},
		Refresh:        Request{URL: url, Params: with(post, renew)},
		Revoke:         Request{URL: "https://slack.com/api/auth.revoke", Headers: bearer, Answer: `{"ok":true,"revoked":true}`},
		Account:        Request{URL: "https://slack.com/api/auth.test", Headers: bearer},
		Call:           Request{URL: "https://slack.com/api", Headers: bearer},
		Dead:           Fault{200, `{"ok":false,"error":"invalid_refresh_token"}`},
		Client:         Fault{200, `{"ok":false,"error":"invalid_client_id"}`},
		Rotates:        true,
	}
}

// Notion: JSON and Basic, no scopes, and a version that each request names.
func notion() *Dialect {
	const url, version = "https://api.notion.com/v1/oauth/token", "$any"
	const issued = `{"access_token":"$access","token_type":"bearer","refresh_token":"$refresh","bot_id":"b3414d659d1744b6b6b92fa8c02a5d38","workspace_icon":null,` +
		`"workspace_name":"Acme","workspace_id":"9c2e7a1e58c14b0b8f1a0c1f2d3e4f50","owner":{"type":"user","user":{"object":"user","id":"u"}},"duplicated_template_id":null,"request_id":"r"}`
	call := with(bearer, m{"Notion-Version": version})
	return &Dialect{
		Told:      m{"bot_id": "b3414d659d1744b6b6b92fa8c02a5d38", "workspace_id": "9c2e7a1e58c14b0b8f1a0c1f2d3e4f50"},
		Authorize: Request{URL: "https://api.notion.com/v1/oauth/authorize", Params: with(page, m{"owner": "user"}), Answer: backWith},
		Code:      Request{URL: url, Body: bodyJSON, Params: redeem, Headers: basic, Answer: issued},
		Refresh:   Request{URL: url, Body: bodyJSON, Params: renew, Headers: basic, Answer: issued},
		Revoke:    Request{URL: "https://api.notion.com/v1/oauth/revoke", Body: bodyJSON, Params: m{"token": "$access"}, Headers: basic, Answer: `{"request_id":"r"}`},
		Account: Request{
			Method: "GET", URL: "https://api.notion.com/v1/users/me", Headers: call,
			Answer: `{"object":"user","id":"$account","name":"the integration","type":"bot","bot":{"owner":{"type":"user","user":{"object":"user","id":"u","person":{"email":"$email"}}},"workspace_name":"$name"}}`,
		},
		Call: Request{URL: "https://api.notion.com", Headers: call},
		Dead: grantIsOver, Client: noClient, Rotates: true,
	}
}

// Salesforce: the answer says where the API is, and nothing of the token's end.
func salesforce() *Dialect {
	const host = "https://login.salesforce.com/services/oauth2"
	const issued = `{"access_token":"$access","signature":"c2ln","scope":"$scopes","instance_url":"https://acme.my.salesforce.com",` +
		`"id":"https://login.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9P","token_type":"Bearer","issued_at":"1278448384422"`
	return &Dialect{
		Params:    m{"login_host": "login.salesforce.com"},
		Told:      m{"instance": "acme.my.salesforce.com"},
		Authorize: Request{URL: host + "/authorize", Params: pageScopes, Answer: backWith},
		Code:      Request{URL: host + "/token", Params: with(post, redeem), Answer: issued + `,"refresh_token":"$refresh"}`},
		Refresh:   Request{URL: host + "/token", Params: with(post, renew), Answer: issued + `}`},
		Revoke:    Request{URL: host + "/revoke", Params: m{"token": "$token"}},
		Account: Request{
			Method: "GET", URL: "https://acme.my.salesforce.com/services/oauth2/userinfo", Headers: bearer,
			Answer: `{"sub":"https://login.salesforce.com/id/00D/005","user_id":"$account","organization_id":"00D","name":"$name","email":"$email","email_verified":true}`,
		},
		Call:   Request{URL: "https://acme.my.salesforce.com", Headers: bearer},
		Dead:   Fault{400, `{"error":"invalid_grant","error_description":"expired access/refresh token"}`},
		Client: Fault{400, `{"error":"invalid_client","error_description":"invalid client credentials"}`},
	}
}

// Shopify: the shop is in every host, the token in a header of its own, and the
// authorization response is signed.
func shopify() *Dialect {
	const admin = "https://acme.myshopify.com/admin"
	const issued = `{"access_token":"$access","scope":"$scopes","expires_in":$life,"refresh_token":"$refresh","refresh_token_expires_in":7776000}`
	own := m{"X-Shopify-Access-Token": "$access"}
	return &Dialect{
		Params: m{"shop": "acme"}, ScopeSeparator: ",", HMAC: "hmac",
		Authorize: Request{
			URL: admin + "/oauth/authorize", Params: m{"client_id": "$client", "scope": "$scopes", "redirect_uri": "$redirect", "state": "$state"},
			Answer: "code=$code&host=YWRtaW4uc2hvcGlmeS5jb20&shop=acme.myshopify.com&state=$state&timestamp=1337178173",
		},
		Code:    Request{URL: admin + "/oauth/access_token", Params: with(post, m{"code": "$code", "expiring": "1"}), Answer: issued},
		Refresh: Request{URL: admin + "/oauth/access_token", Params: with(post, renew), Answer: issued},
		Revoke:  Request{Method: "DELETE", URL: admin + "/api_permissions/current.json", Body: bodyNone, Headers: own},
		Account: Request{URL: admin + "/api/$any/graphql.json", Headers: own, Answer: `{"data":{"shop":{"id":"$account","name":"$name","email":"$email"}},"extensions":{}}`},
		Call:    Request{URL: "https://acme.myshopify.com", Headers: own},
		Dead:    grantIsOver, Client: Fault{400, `{"error":"invalid_client","error_description":"client credentials are not right"}`},
		Rotates: true, Reusable: true,
	}
}

// QuickBooks: the company is told by the authorization response alone.
func quickbooks() *Dialect {
	const url = "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer"
	const issued = `{"token_type":"bearer","expires_in":$life,"refresh_token":"$refresh","x_refresh_token_expires_in":8726400,"access_token":"$access"}`
	return &Dialect{
		Params: m{"api_host": "quickbooks.api.intuit.com"}, Told: m{"realm_id": "$account"}, AccountForm: "[0-9]{9}",
		Authorize: Request{URL: "https://appcenter.intuit.com/connect/oauth2", Params: pageScopes, Answer: backWith + "&realmId=$account"},
		Code:      Request{URL: url, Params: redeem, Headers: basic, Answer: issued},
		Refresh:   Request{URL: url, Params: renew, Headers: basic, Answer: issued},
		Revoke:    Request{URL: "https://developer.api.intuit.com/v2/oauth2/tokens/revoke", Body: bodyJSON, Params: m{"token": "$token"}, Headers: basic},
		Account: Request{
			Method: "GET", URL: "https://quickbooks.api.intuit.com/v3/company/$any/companyinfo/$any", Headers: bearer,
			Answer: `{"CompanyInfo":{"CompanyName":"$name","domain":"QBO","Id":"1","Email":{"Address":"$email"}},"time":"2026-01-01T00:00:00Z"}`,
		},
		Call: Request{URL: "https://quickbooks.api.intuit.com", Headers: bearer},
		Dead: Fault{400, `{"error_description":"Incorrect or invalid refresh token","error":"invalid_grant"}`}, Client: noClient, Rotates: true,
	}
}

// Microsoft: a refresh has to say which resource it is for, and brings no
// refresh token unless it asks for offline_access, which no answer lists.
func microsoft() *Dialect {
	const host = "https://login.microsoftonline.com/common/oauth2/v2.0"
	const issued = `{"token_type":"Bearer","scope":"$granted","expires_in":$life,"ext_expires_in":$life,"access_token":"$access","refresh_token":"$refresh"}`
	return &Dialect{
		Params:    m{"tenant": "common"},
		Authorize: Request{URL: host + "/authorize", Params: with(pageScopes, pkce), Answer: backWith + "&session_state=s"},
		Code:      Request{URL: host + "/token", Params: with(with(post, redeem), m{"code_verifier": "$verifier"}), Answer: issued},
		Refresh:   Request{URL: host + "/token", Params: with(with(post, renew), m{"scope": "$offline_scopes"}), Answer: issued},
		Account: Request{
			Method: "GET", URL: "https://graph.microsoft.com/v1.0/me", Headers: bearer,
			Answer: `{"@odata.context":"c","displayName":"$name","mail":"$email","id":"$account","userPrincipalName":"$email"}`,
		},
		Call:    Request{URL: "https://graph.microsoft.com", Headers: bearer},
		Dead:    Fault{400, `{"error":"invalid_grant","error_description":"AADSTS700082: The refresh token has expired due to inactivity.","error_codes":[700082]}`},
		Client:  Fault{401, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.","error_codes":[7000215]}`},
		Rotates: true, Reusable: true,
	}
}

// GitHub, an OAuth App: errors come with status 200, granted scopes with commas.
func github() *Dialect {
	return &Dialect{
		Authorize: Request{URL: "https://github.com/login/oauth/authorize", Params: m{"client_id": "$client", "redirect_uri": "$redirect", "scope": "$scopes", "state": "$state"}, Answer: backWith},
		Code: Request{
			URL: "https://github.com/login/oauth/access_token", Params: with(post, m{"code": "$code", "redirect_uri": "$redirect"}),
			Headers: m{"Accept": "application/json"}, Answer: `{"access_token":"$access","scope":"$comma_scopes","token_type":"bearer"}`,
		},
		Revoke:  Request{Method: "DELETE", URL: "https://api.github.com/applications/$client/token", Body: bodyJSON, Params: m{"access_token": "$access"}, Headers: basic, Status: 204},
		Account: Request{Method: "GET", URL: "https://api.github.com/user", Headers: bearer, Answer: `{"login":"$name","id":"$account","email":"$email"}`},
		Call:    Request{URL: "https://api.github.com", Headers: bearer},
		Dead:    Fault{200, `{"error":"bad_verification_code","error_description":"The code passed is incorrect or expired."}`},
		Client:  Fault{200, `{"error":"incorrect_client_credentials"}`},
	}
}

// GitHub App: what is asked for a token is an installation, by the app's own
// signature.
func githubApp() *Dialect {
	return &Dialect{
		Params: m{"installation_id": "12345678"},
		Mint: Request{
			URL: "https://api.github.com/app/installations/12345678/access_tokens", Headers: m{"Authorization": "Bearer $assertion"}, Status: 201,
			Answer: `{"token":"$access","expires_at":"$expires_at","permissions":{"issues":"write"},"repository_selection":"all"}`,
		},
		Revoke: Request{Method: "DELETE", URL: "https://api.github.com/installation/token", Body: bodyNone, Headers: bearer, Status: 204},
		Call:   Request{URL: "https://api.github.com", Headers: bearer},
		Dead:   Fault{404, `{"message":"Not Found"}`}, Client: Fault{401, `{"message":"A JSON web token could not be decoded"}`},
	}
}

// Atlassian: a wrong secret is access_denied, a dead refresh token comes with 403.
func atlassian() *Dialect {
	const url = "https://auth.atlassian.com/oauth/token"
	const issued = `{"access_token":"$access","expires_in":$life,"token_type":"Bearer","refresh_token":"$refresh","scope":"$scopes"}`
	return &Dialect{
		Authorize: Request{URL: "https://auth.atlassian.com/authorize", Params: with(pageScopes, m{"audience": "api.atlassian.com", "prompt": "consent"}), Answer: backWith},
		Code:      Request{URL: url, Body: bodyJSON, Params: with(post, redeem), Answer: issued},
		Refresh:   Request{URL: url, Body: bodyJSON, Params: with(post, renew), Answer: issued},
		Account: Request{
			Method: "GET", URL: "https://api.atlassian.com/oauth/token/accessible-resources", Headers: bearer,
			Answer: `[{"id":"$account","name":"$name","url":"https://acme.atlassian.net","scopes":["read:jira-work"],"avatarUrl":"https://acme.atlassian.net/a.png"}]`,
		},
		Call:    Request{URL: "https://api.atlassian.com", Headers: bearer},
		Dead:    Fault{403, `{"error":"unauthorized_client","error_description":"refresh_token is invalid"}`},
		Client:  Fault{401, `{"error":"access_denied","error_description":"Unauthorized"}`},
		Rotates: true,
	}
}

// Zoom's server-to-server apps: a grant type of their own, and an account.
func zoomS2S() *Dialect {
	return &Dialect{
		Params: m{"account_id": "abcdefghijklmnopqrstuv"},
		Mint: Request{
			URL: "https://zoom.us/oauth/token", Params: m{"grant_type": "account_credentials", "account_id": "abcdefghijklmnopqrstuv"}, Headers: basic,
			Answer: `{"access_token":"$access","token_type":"bearer","expires_in":$life,"scope":"user:read:admin","api_url":"https://api.zoom.us"}`,
		},
		Call: Request{URL: "https://api.zoom.us/v2", Headers: bearer},
		Dead: Fault{400, `{"reason":"Bad Request","error":"invalid_request"}`}, Client: Fault{400, `{"reason":"Invalid client_id or client_secret","error":"invalid_client"}`},
	}
}

// HubSpot: the endpoint has a date, and errors no `error`.
func hubspot() *Dialect {
	const url = "https://api.hubapi.com/oauth/2026-03/token"
	const issued = `{"token_type":"bearer","refresh_token":"$refresh","access_token":"$access","hub_id":1234567,"scopes":"$scopes","expires_in":$life}`
	return &Dialect{
		Told:      m{"hub_id": "1234567"},
		Account:   Request{Method: "GET", URL: "https://api.hubapi.com/account-info/2026-03/details", Headers: bearer, Answer: `{"portalId":"$account","accountType":"STANDARD","timeZone":"US/Eastern"}`},
		Revoke:    Request{URL: url + "/revoke", Params: with(post, m{"token": "$token"})},
		Authorize: Request{URL: "https://app.hubspot.com/oauth/authorize", Params: m{"client_id": "$client", "scope": "$scopes", "redirect_uri": "$redirect", "state": "$state"}, Answer: backWith},
		Code:      Request{URL: url, Params: with(post, redeem), Answer: issued},
		Refresh:   Request{URL: url, Params: with(post, renew), Answer: issued},
		Call:      Request{URL: "https://api.hubapi.com", Headers: bearer},
		Dead:      Fault{400, `{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token","correlationId":"a-b-c"}`},
		Client:    Fault{400, `{"status":"BAD_CLIENT_ID","message":"missing or invalid client id","correlationId":"a-b-c"}`},
	}
}
