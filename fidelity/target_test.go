package fidelity_test

import (
	"context"
	"strings"
)

// targets is a row on request targets that have to go out byte for byte.
func targets(name string, fails marks, targets ...string) row {
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		for _, target := range targets {
			x, err := w.exchange(ctx, asked{target: target}, ok)
			if err != nil {
				return err
			}
			if err := wantEqual("request line", x.request.start, "GET "+x.target+" HTTP/1.1"); err != nil {
				return err
			}
		}
		return nil
	}}
}

// methods is a row on methods that have to go out as they are.
func methods(name string, fails marks, methods ...string) row {
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		for _, method := range methods {
			answer := ok
			if method == "HEAD" {
				answer = strings.TrimSuffix(ok, "ok")
			}
			x, err := w.exchange(ctx, asked{method: method}, answer)
			if err != nil {
				return err
			}
			if err := wantEqual("request line", x.request.start, method+" "+x.target+" HTTP/1.1"); err != nil {
				return err
			}
			if err := wantEqual("status", x.answer.status(), 200); err != nil {
				return err
			}
		}
		return nil
	}}
}

var targetRows = []row{
	methods("Every method of HTTP goes out as it is", nil, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
	methods("Methods of WebDAV go out as they are", nil, "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT"),
	methods("Methods that no standard knows go out as they are", nil, "PURGE", "QUERY", "FOO_BAR", "M-SEARCH"),
	methods("A method in lower case, or with other signs, goes out as it is", marks{"nginx": "refuses it (400)"}, "get", "Patch", "x!y", "V2"),

	targets("A plain path goes out as it is", nil, "/TAG", "/TAG/", "/TAG/a/b.c/d-e_f~g"),
	targets("An escaped slash stays escaped", nil, "/TAG/a%2Fb", "/TAG/a%2fb"),
	targets("Escapes keep their case, and needless ones stay", nil, "/TAG/%c3%a4%C3%A4/%61%7Euser/~user/%41"),
	targets("An escaped percent sign, question mark and number sign stay", nil, "/TAG/a%25b/100%25/c%3Fd/e%23f"),
	targets("Escaped spaces and escaped non-ASCII stay", nil, "/TAG/a%20b/%E2%82%AC/%E9"),
	targets("Empty segments stay, in the middle and at the end", nil, "/TAG//a///b", "/TAG/a//", "/TAG//"),
	targets("Two slashes at the start stay", nil, "//TAG/a", "//TAG"),
	targets("Semicolons, plus signs and all that a path may hold stay", nil, "/TAG/a;b=1;c/d+e/:@!$&'()*,=-._~"),
	targets("An at sign and a colon at the start of a path stay", nil, "/@TAG/x", "/:80@TAG/x", "/http://TAG/x"),
	targets("Braces, pipes, quotes and carets that should have been escaped stay", marks{"caddy": "escapes them"}, `/TAG/{a}|b^c"d<e>`+"`[f]"),
	targets("Non-ASCII bytes that should have been escaped stay", marks{"caddy": "escapes them"}, "/TAG/\u00e9\u20ac", "/TAG/\xe9"),
	targets("Three dots and names that begin with dots stay", nil, "/TAG/.../.well-known/..x/a..b"),
	targets("A path of 8 KiB goes out as it is", nil, "/TAG/"+strings.Repeat("0123456789abcde/", 512)),
	targets("An empty query keeps its question mark", nil, "/TAG?", "/TAG/a/?"),
	targets("A query keeps order, duplicates and empty pairs", nil, "/TAG?b=2&a=1&b=1&&=&c&d=&a=1"),
	targets("A query keeps semicolons, plus signs and question marks", nil, "/TAG?a;b=c;d", "/TAG?q=a+b%20c+d", "/TAG?a=b?c=d??"),
	targets("A query keeps escapes, needless, lower-case and broken ones", nil, "/TAG?q=%2F%2f%61%C3%a4", "/TAG?q=%zz&r=%&s=%4"),
	targets("A query keeps slashes and dots", nil, "/TAG?next=/a/../b//c/./d"),
	targets("A query keeps brackets, pipes, quotes and raw non-ASCII bytes", nil, `/TAG?f[a]={"b":[1]}|<c>^`+"`", "/TAG?q=\u00e9\xe9"),
	targets("A query of 8 KiB goes out as it is", nil, "/TAG?q="+strings.Repeat("0123456789abcde/", 512)),
	{name: "A target with scheme and host goes out as the path it means", run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{target: "http://HOST/TAG/a%2Fb//c?d=%zz"}, ok)
		if err != nil {
			return err
		}
		_, path, _ := strings.Cut(strings.TrimPrefix(x.target, "http://"), "/")
		return wantEqual("request line", x.request.start, "GET /"+path+" HTTP/1.1")
	}},
}
