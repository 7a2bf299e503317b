package dialect

// Linear: whose a token is, GraphQL says.
func linear() *Dialect {
	const url = "https://api.linear.app/oauth/token"
	const issued = `{"access_token":"$access","token_type":"Bearer","expires_in":$life,"scope":"$scopes","refresh_token":"$refresh"}`
	return &Dialect{
		ScopeSeparator: ",",
		Authorize:      Request{URL: "https://linear.app/oauth/authorize", Params: pageScopes, Answer: backWith},
		Code:           Request{URL: url, Params: with(post, redeem), Answer: issued},
		Refresh:        Request{URL: url, Params: with(post, renew), Answer: issued},
		Revoke:         Request{URL: "https://api.linear.app/oauth/revoke", Body: bodyNone, Headers: bearer},
		Account:        Request{URL: "https://api.linear.app/graphql", Headers: bearer, Answer: `{"data":{"viewer":{"id":"$account","name":"$name","email":"$email"},"organization":{"urlKey":"acme"}}}`},
		Call:           Request{URL: "https://api.linear.app", Headers: bearer},
		Dead:           grantIsOver, Client: noClient, Rotates: true,
	}
}

// Airtable: PKCE has to be, and of two refreshes at the same time one is told to
// come again.
func airtable() *Dialect {
	const url = "https://airtable.com/oauth2/v1/token"
	const issued = `{"access_token":"$access","refresh_token":"$refresh","token_type":"Bearer","scope":"$scopes","expires_in":$life,"refresh_expires_in":5184000}`
	return &Dialect{
		Authorize: Request{URL: "https://airtable.com/oauth2/v1/authorize", Params: with(pageScopes, pkce), Answer: backWith},
		Code:      Request{URL: url, Params: with(redeem, m{"code_verifier": "$verifier"}), Headers: basic, Answer: issued},
		Refresh:   Request{URL: url, Params: renew, Headers: basic, Answer: issued},
		Account:   Request{Method: "GET", URL: "https://api.airtable.com/v0/meta/whoami", Headers: bearer, Answer: `{"id":"$account","email":"$email"}`},
		Call:      Request{URL: "https://api.airtable.com", Headers: bearer},
		Dead:      grantIsOver, Client: noClient, Busy: Fault{409, `{"error":"invalid_request","error_description":"another request is in progress"}`},
		Rotates: true,
	}
}

// Reddit: a User-Agent that names the app, everywhere, Basic and nothing else.
func reddit() *Dialect {
	const url, agent = "https://www.reddit.com/api/v1/access_token", "$any:$client:$any"
	const issued = `{"access_token":"$access","token_type":"bearer","expires_in":$life,"scope":"$scopes"`
	ask, call := with(basic, m{"User-Agent": agent}), with(bearer, m{"User-Agent": "$any"})
	return &Dialect{
		Authorize: Request{URL: "https://www.reddit.com/api/v1/authorize", Params: with(pageScopes, m{"duration": "permanent"}), Answer: backWith},
		Code:      Request{URL: url, Params: redeem, Headers: ask, Answer: issued + `,"refresh_token":"$refresh"}`},
		Refresh:   Request{URL: url, Params: renew, Headers: ask, Answer: issued + `}`},
		Revoke:    Request{URL: "https://www.reddit.com/api/v1/revoke_token", Params: m{"token": "$token"}, Headers: ask, Status: 204},
		Account:   Request{Method: "GET", URL: "https://oauth.reddit.com/api/v1/me", Headers: with(bearer, m{"User-Agent": agent}), Answer: `{"id":"$account","name":"$name"}`},
		Call:      Request{URL: "https://oauth.reddit.com", Headers: call},
		Dead:      Fault{400, `{"message":"Bad Request","error":400}`}, Client: Fault{401, `{"message":"Unauthorized","error":401}`},
	}
}

// TikTok calls the client's ID client_key, and its paths end in slashes.
func tiktok() *Dialect {
	const url = "https://open.tiktokapis.com/v2/oauth/token/"
	const issued = `{"access_token":"$access","expires_in":$life,"open_id":"afd97af1-b87b-48b9-ac98-410aghda5344","refresh_expires_in":31536000,` +
		`"refresh_token":"$refresh","scope":"$scopes","token_type":"Bearer"}`
	key := m{"client_key": "$client", "client_secret": "$secret"}
	return &Dialect{
		ScopeSeparator: ",", Told: m{"open_id": "afd97af1-b87b-48b9-ac98-410aghda5344"},
		Authorize: Request{
			URL: "https://www.tiktok.com/v2/auth/authorize/", Answer: backWith + "&scopes=$scopes",
			Params: m{"response_type": "code", "client_key": "$client", "scope": "$scopes", "redirect_uri": "$redirect", "state": "$state"},
		},
		Code:    Request{URL: url, Params: with(key, redeem), Answer: issued},
		Refresh: Request{URL: url, Params: with(key, renew), Answer: issued},
		Revoke:  Request{URL: "https://open.tiktokapis.com/v2/oauth/revoke/", Params: with(key, m{"token": "$access"})},
		Account: Request{
			Method: "GET", URL: "https://open.tiktokapis.com/v2/user/info/", Params: m{"fields": "$any"}, Headers: bearer,
			Answer: `{"data":{"user":{"open_id":"$account","display_name":"$name"}},"error":{"code":"ok","message":"","log_id":"l"}}`,
		},
		Call:    Request{URL: "https://open.tiktokapis.com", Headers: bearer},
		Dead:    Fault{400, `{"error":"invalid_grant","error_description":"Refresh token is invalid or expired.","log_id":"l"}`},
		Client:  Fault{400, `{"error":"invalid_client","error_description":"Client key or secret is incorrect.","log_id":"l"}`},
		Rotates: true,
	}
}

// Stripe Apps: the secret key is the user name, and no answer tells a life.
func stripeApps() *Dialect {
	const url = "https://api.stripe.com/v1/oauth/token"
	const issued = `{"access_token":"$access","livemode":true,"refresh_token":"$refresh","scope":"stripe_apps","stripe_publishable_key":"pk_live_1",` +
		`"stripe_user_id":"acct_1032D82eZvKYlo2C","token_type":"bearer"}`
	secretAlone := m{"Authorization": "Basic $secret:"}
	return &Dialect{
		Told:      m{"stripe_user_id": "acct_1032D82eZvKYlo2C"},
		Authorize: Request{URL: "https://marketplace.stripe.com/oauth/v2/authorize", Params: m{"client_id": "$client", "redirect_uri": "$redirect", "state": "$state"}, Answer: backWith + "&stripe_user_id=acct_1032D82eZvKYlo2C"},
		Code:      Request{URL: url, Params: m{"grant_type": "authorization_code", "code": "$code"}, Headers: secretAlone, Answer: issued},
		Refresh:   Request{URL: url, Params: renew, Headers: secretAlone, Answer: issued},
		Call:      Request{URL: "https://api.stripe.com", Headers: bearer},
		Dead:      grantIsOver, Client: noClient, Rotates: true,
	}
}

// Zoho: the data centre is told by the authorization response, the API's host
// by the token's answer; ten access tokens in ten minutes, and no more.
func zoho() *Dialect {
	const accounts = "https://accounts.zoho.eu/oauth"
	const issued = `{"access_token":"$access","scope":"$scopes","api_domain":"https://www.zohoapis.eu","token_type":"Bearer","expires_in":$life`
	own := m{"Authorization": "Zoho-oauthtoken $access"}
	return &Dialect{
		Params: m{"login_host": "accounts.zoho.com"}, ScopeSeparator: ",",
		Told: m{"accounts_server": "accounts.zoho.eu", "api_domain": "www.zohoapis.eu"},
		Authorize: Request{
			URL: "https://accounts.zoho.com/oauth/v2/auth", Params: with(pageScopes, m{"access_type": "offline", "prompt": "consent"}),
			Answer: backWith + "&location=eu&accounts-server=https%3A%2F%2Faccounts.zoho.eu",
		},
		Code:    Request{URL: accounts + "/v2/token", Params: with(post, redeem), Answer: issued + `,"refresh_token":"$refresh"}`},
		Refresh: Request{URL: accounts + "/v2/token", Params: with(post, renew), Answer: issued + `}`},
		Revoke:  Request{URL: accounts + "/v2/token/revoke", Body: bodyQuery, Params: m{"token": "$token"}, Answer: `{"status":"success"}`},
		Account: Request{Method: "GET", URL: accounts + "/user/info", Headers: own, Answer: `{"First_Name":"A","Email":"$email","Last_Name":"B","Display_Name":"$name","ZUID":"$account"}`},
		Call:    Request{URL: "https://www.zohoapis.eu", Headers: own},
		Dead:    Fault{200, `{"error":"invalid_code"}`}, Client: Fault{200, `{"error":"invalid_client"}`},
		Pause: true, Most: 10, Over: Fault{400, `{"error_description":"You have made too many requests continuously. Please try again after some time.","error":"Access Denied","status":"failure"}`},
	}
}

// Mailchimp: a second request says at which data centre the API is.
func mailchimp() *Dialect {
	return &Dialect{
		Told:      m{"dc": "us6"},
		Authorize: Request{URL: "https://login.mailchimp.com/oauth2/authorize", Params: page, Answer: backWith},
		Code:      Request{URL: "https://login.mailchimp.com/oauth2/token", Params: with(post, redeem), Answer: `{"access_token":"$access","expires_in":0,"scope":null}`},
		Account: Request{
			Method: "GET", URL: "https://login.mailchimp.com/oauth2/metadata", Headers: bearer,
			Answer: `{"dc":"us6","role":"owner","accountname":"$name","user_id":"$account","login":{"email":"$email","login_id":1},"login_url":"https://login.mailchimp.com","api_endpoint":"https://us6.api.mailchimp.com"}`,
		},
		Call: Request{URL: "https://us6.api.mailchimp.com", Headers: bearer},
		Dead: grantIsOver, Client: noClient,
	}
}

// DocuSign: each account has a host of its own, which the default one of a list
// tells.
func docusign() *Dialect {
	const host = "https://account.docusign.com/oauth"
	const issued = `{"access_token":"$access","token_type":"Bearer","refresh_token":"$refresh","expires_in":$life}`
	return &Dialect{
		Params:    m{"account_host": "account.docusign.com"},
		Told:      m{"base_uri": "na3.docusign.net", "account_id": "fe0b61a3-3b9b-cafe-b7be-4592af32aa9b"},
		Authorize: Request{URL: host + "/auth", Params: pageScopes, Answer: backWith},
		Code:      Request{URL: host + "/token", Params: m{"grant_type": "authorization_code", "code": "$code"}, Headers: basic, Answer: issued},
		Refresh:   Request{URL: host + "/token", Params: renew, Headers: basic, Answer: issued},
		Account: Request{
			Method: "GET", URL: host + "/userinfo", Headers: bearer,
			Answer: `{"sub":"$account","name":"$name","given_name":"A","family_name":"B","created":"2015-08-13T22:03:03.45","email":"$email","accounts":[` +
				`{"account_id":"b7a1","is_default":false,"account_name":"Other","base_uri":"https://na2.docusign.net"},` +
				`{"account_id":"fe0b61a3-3b9b-cafe-b7be-4592af32aa9b","is_default":true,"account_name":"World Wide Co","base_uri":"https://na3.docusign.net"}]}`,
		},
		Call:    Request{URL: "https://na3.docusign.net/restapi", Headers: bearer},
		Dead:    Fault{400, `{"error":"invalid_grant","error_description":"expired_client_token"}`},
		Client:  Fault{400, `{"error":"invalid_client"}`},
		Rotates: true,
	}
}

// Okta refuses a client that proves itself twice.
func okta() *Dialect {
	const host = "https://acme.okta.com/oauth2/v1"
	const issued = `{"token_type":"Bearer","expires_in":$life,"access_token":"$access","scope":"$scopes","refresh_token":"$refresh"}`
	return &Dialect{
		Params:    m{"domain": "acme.okta.com"},
		Authorize: Request{URL: host + "/authorize", Params: with(pageScopes, pkce), Answer: backWith},
		Code:      Request{URL: host + "/token", Params: with(redeem, m{"code_verifier": "$verifier", "client_secret": ""}), Headers: basic, Answer: issued},
		Refresh:   Request{URL: host + "/token", Params: with(renew, m{"client_secret": ""}), Headers: basic, Answer: issued},
		Revoke:    Request{URL: host + "/revoke", Params: m{"token": "$token", "client_secret": ""}, Headers: basic},
		Account:   Request{Method: "GET", URL: host + "/userinfo", Headers: bearer, Answer: `{"sub":"$account","name":"$name","email":"$email"}`},
		Call:      Request{URL: "https://acme.okta.com", Headers: bearer},
		Dead:      Fault{400, `{"error":"invalid_grant","error_description":"The refresh token is invalid or expired."}`},
		Client:    Fault{400, `{"error":"invalid_request","error_description":"Cannot supply multiple client credentials. Use one of the following: credentials in the Authorization header, credentials in the post body, or a client_assertion in the post body."}`},
		Rotates:   true, Reusable: true,
	}
}

// Square tells an end instead of a life, and has a word of its own in
// Authorization where a token is revoked.
func square() *Dialect {
	const host = "https://connect.squareup.com/oauth2"
	const issued = `{"access_token":"$access","token_type":"bearer","expires_at":"$expires_at","merchant_id":"MLQ14KHRZ8C5M","refresh_token":"$refresh","short_lived":false}`
	return &Dialect{
		Told:      m{"merchant_id": "MLQ14KHRZ8C5M"},
		Authorize: Request{URL: host + "/authorize", Params: m{"client_id": "$client", "scope": "$scopes", "session": "false", "state": "$state"}, Answer: backWith + "&response_type=code"},
		Code:      Request{URL: host + "/token", Body: bodyJSON, Params: with(post, m{"grant_type": "authorization_code", "code": "$code"}), Answer: issued},
		Refresh:   Request{URL: host + "/token", Body: bodyJSON, Params: with(post, renew), Answer: issued},
		Revoke:    Request{URL: host + "/revoke", Body: bodyJSON, Params: m{"client_id": "$client", "access_token": "$access"}, Headers: m{"Authorization": "Client $secret"}, Answer: `{"success":true}`},
		Account:   Request{Method: "GET", URL: "https://connect.squareup.com/v2/merchants/me", Headers: bearer, Answer: `{"merchant":{"id":"$account","business_name":"$name","country":"US"}}`},
		Call:      Request{URL: "https://connect.squareup.com", Headers: bearer},
	}
}

// graphError is an error of Facebook's Graph API: an object, no text.
const graphError = `{"error":{"message":"Error validating access token: The session has been invalidated.","type":"OAuthException","code":190,"error_subcode":460,"fbtrace_id":"f"}}`

// Facebook: there are no refresh tokens. A short token is exchanged for a long
// one, and that for the next.
func facebook() *Dialect {
	const url, issued = "https://graph.facebook.com/oauth/access_token", `{"access_token":"$access","token_type":"bearer","expires_in":$life}`
	swap := Request{Method: "GET", URL: url, Params: with(post, m{"grant_type": "fb_exchange_token", "fb_exchange_token": "$access"}), Answer: issued}
	return &Dialect{
		ScopeSeparator: ",",
		Authorize:      Request{URL: "https://www.facebook.com/dialog/oauth", Params: pageScopes, Answer: backWith + "&granted_scopes=$scopes&denied_scopes="},
		Code:           Request{URL: url, Params: with(post, m{"code": "$code", "redirect_uri": "$redirect"}), Answer: issued},
		Exchange:       swap, Refresh: swap,
		Revoke:  Request{Method: "DELETE", URL: "https://graph.facebook.com/me/permissions", Body: bodyNone, Headers: bearer, Answer: `{"success":true}`},
		Account: Request{Method: "GET", URL: "https://graph.facebook.com/me", Headers: bearer, Answer: `{"id":"$account","name":"$name","email":"$email"}`},
		Call:    Request{URL: "https://graph.facebook.com", Headers: bearer},
		Dead:    Fault{400, graphError},
		Client:  Fault{400, `{"error":{"message":"Error validating client secret.","type":"OAuthException","code":1,"fbtrace_id":"f"}}`},
	}
}

// Instagram: code, short token, long token, and each at another place.
func instagram() *Dialect {
	const graph, long = "https://graph.instagram.com", `{"access_token":"$access","token_type":"bearer","expires_in":$life}`
	return &Dialect{
		ScopeSeparator: ",", AccountForm: "[0-9]{17}", Told: m{"user_id": "$account"},
		Authorize: Request{URL: "https://www.instagram.com/oauth/authorize", Params: pageScopes, Answer: backWith},
		Code:      Request{URL: "https://api.instagram.com/oauth/access_token", Params: with(post, redeem), Answer: `{"access_token":"$access","user_id":17841405793187218,"permissions":["$list_scopes"]}`},
		Exchange:  Request{Method: "GET", URL: graph + "/access_token", Params: m{"grant_type": "ig_exchange_token", "client_secret": "$secret", "access_token": "$access"}, Answer: long},
		Refresh:   Request{Method: "GET", URL: graph + "/refresh_access_token", Params: m{"grant_type": "ig_refresh_token", "access_token": "$access", "client_secret": ""}, Answer: long},
		Account:   Request{Method: "GET", URL: graph + "/me", Params: m{"fields": "$any"}, Headers: bearer, Answer: `{"user_id":"$account","username":"$name"}`},
		Call:      Request{URL: graph, Headers: bearer},
		Dead:      Fault{400, graphError},
		Client:    Fault{400, `{"error_type":"OAuthException","code":400,"error_message":"Invalid platform app"}`},
	}
}

// Withings: an action in the body, answers nested, and a status in them that is
// not HTTP's.
func withings() *Dialect {
	const url = "https://wbsapi.withings.net/v2/oauth2"
	const issued = `{"status":0,"body":{"userid":"$account","access_token":"$access","refresh_token":"$refresh","expires_in":$life,"scope":"$scopes","csrf_token":"c","token_type":"Bearer"}}`
	action := with(post, m{"action": "requesttoken"})
	return &Dialect{
		ScopeSeparator: ",", Told: m{"user_id": "$account"}, AccountForm: "[0-9]{3}",
		Authorize: Request{URL: "https://account.withings.com/oauth2_user/authorize2", Params: pageScopes, Answer: backWith},
		Code:      Request{URL: url, Params: with(action, redeem), Answer: issued},
		Refresh:   Request{URL: url, Params: with(action, renew), Answer: issued},
		Call:      Request{URL: "https://wbsapi.withings.net", Headers: bearer},
		Dead:      Fault{200, `{"status":503,"body":{},"error":"Invalid Params: invalid refresh_token"}`},
		Client:    Fault{200, `{"status":503,"body":{},"error":"Invalid Params: invalid client_id/client_secret"}`},
		Rotates:   true, Reusable: true,
	}
}

// WeChat: GET, names of its own, a page that wants a fragment, and errors by
// number under status 200.
func wechat() *Dialect {
	const sns = "https://api.weixin.qq.com/sns"
	const issued = `{"access_token":"$access","expires_in":$life,"refresh_token":"$refresh","openid":"o6_bmjrPTlm6_2sgVt7hMZOPfL2M","scope":"$scopes","unionid":"o6_bmasdasdsad6_2sgVt7hMZOPfL"}`
	own := m{"access_token": "$access", "openid": "o6_bmjrPTlm6_2sgVt7hMZOPfL2M"}
	return &Dialect{
		ScopeSeparator: ",", Told: m{"openid": "o6_bmjrPTlm6_2sgVt7hMZOPfL2M", "unionid": "o6_bmasdasdsad6_2sgVt7hMZOPfL"},
		Authorize: Request{
			URL: "https://open.weixin.qq.com/connect/oauth2/authorize#wechat_redirect", Answer: backWith,
			Params: m{"appid": "$client", "redirect_uri": "$redirect", "response_type": "code", "scope": "$scopes", "state": "$state"},
		},
		Code:    Request{Method: "GET", URL: sns + "/oauth2/access_token", Params: m{"appid": "$client", "secret": "$secret", "code": "$code", "grant_type": "authorization_code"}, Answer: issued},
		Refresh: Request{Method: "GET", URL: sns + "/oauth2/refresh_token", Params: m{"appid": "$client", "grant_type": "refresh_token", "refresh_token": "$refresh", "secret": ""}, Answer: issued},
		Account: Request{Method: "GET", URL: sns + "/userinfo", Params: own, Answer: `{"openid":"$account","nickname":"$name","sex":1,"unionid":"o6_bmasdasdsad6_2sgVt7hMZOPfL"}`},
		Call:    Request{URL: "https://api.weixin.qq.com", Params: own},
		Dead:    Fault{200, `{"errcode":40030,"errmsg":"invalid refresh_token"}`}, Client: Fault{200, `{"errcode":40013,"errmsg":"invalid appid"}`},
		Rotates: true,
	}
}

// TikTok for Business: names of its own, no grant type, answers nested, errors
// by number under status 200, and the token in a header of its own.
func tiktokBusiness() *Dialect {
	const open = "https://business-api.tiktok.com/open_api/v1.3"
	app, own := m{"app_id": "$client", "secret": "$secret"}, m{"Access-Token": "$access"}
	return &Dialect{
		Told: m{"advertiser_id": "7000000000000000001"},
		Authorize: Request{
			URL: "https://business-api.tiktok.com/portal/auth", Params: m{"app_id": "$client", "redirect_uri": "$redirect", "state": "$state"},
			Answer: "auth_code=$code&code=$code&state=$state",
		},
		Code: Request{
			URL: open + "/oauth2/access_token/", Body: bodyJSON, Params: with(app, m{"auth_code": "$code"}),
			Answer: `{"code":0,"message":"OK","request_id":"r","data":{"access_token":"$access","scope":[4],"advertiser_ids":["7000000000000000001"]}}`,
		},
		Revoke: Request{URL: open + "/oauth2/revoke_token/", Body: bodyJSON, Params: with(app, m{"access_token": "$access"}), Answer: `{"code":0,"message":"OK","data":{}}`},
		Account: Request{
			Method: "GET", URL: open + "/user/info/", Headers: own,
			Answer: `{"code":0,"message":"OK","data":{"core_user_id":"$account","display_name":"$name","email":"$email","create_time":1}}`,
		},
		Call: Request{URL: open, Headers: own},
		Dead: Fault{200, `{"code":40110,"message":"Auth_code is used","data":{}}`}, Client: Fault{200, `{"code":40105,"message":"Access token is incorrect or has been revoked","data":{}}`},
	}
}

// Stack Exchange: the token and an app key in the query, and a life under a name
// of its own.
func stackexchange() *Dialect {
	own := m{"access_token": "$access", "key": "aaaaa"}
	return &Dialect{
		Params: m{"key": "aaaaa"}, ScopeSeparator: ",",
		Authorize: Request{URL: "https://stackoverflow.com/oauth", Params: m{"client_id": "$client", "redirect_uri": "$redirect", "state": "$state"}, Answer: backWith},
		Code:      Request{URL: "https://stackoverflow.com/oauth/access_token/json", Params: with(post, m{"code": "$code", "redirect_uri": "$redirect"}), Answer: `{"access_token":"$access","expires":$life}`},
		Revoke:    Request{Method: "GET", URL: "https://api.stackexchange.com/2.3/access-tokens/$access/invalidate", Body: bodyNone, Answer: `{"items":[],"has_more":false}`},
		Account:   Request{Method: "GET", URL: "https://api.stackexchange.com/2.3/me/associated", Params: own, Answer: `{"items":[{"account_id":"$account"}],"has_more":false}`},
		Call:      Request{URL: "https://api.stackexchange.com/2.3", Params: own},
	}
}

// Figma refreshes at another place, and its answer there has no refresh token.
func figma() *Dialect {
	const issued = `{"user_id_string":"987654321","access_token":"$access","token_type":"bearer","expires_in":$life`
	return &Dialect{
		Told:      m{"user_id": "987654321"},
		Authorize: Request{URL: "https://www.figma.com/oauth", Params: pageScopes, Answer: backWith},
		Code:      Request{URL: "https://api.figma.com/v1/oauth/token", Params: redeem, Headers: basic, Answer: issued + `,"refresh_token":"$refresh"}`},
		Refresh:   Request{URL: "https://api.figma.com/v1/oauth/refresh", Params: m{"refresh_token": "$refresh"}, Headers: basic, Answer: issued + `}`},
		Account:   Request{Method: "GET", URL: "https://api.figma.com/v1/me", Headers: bearer, Answer: `{"id":"$account","email":"$email","handle":"$name","img_url":"i"}`},
		Call:      Request{URL: "https://api.figma.com", Headers: bearer},
	}
}
