package connect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxTries is how many credentials may be entered in one flow. With the fifth
// that does not do, the flow ends.
const maxTries = 5

// fieldPrefix keeps the names of a form's fields apart from our own.
const fieldPrefix = "field_"

// Lengths that decide whether the end of a secret is shown to who entered it.
const (
	endingLen  = 4
	endingFrom = 12
)

func blank(fields []tokenstore.Field) []fieldView {
	var views []fieldView
	for _, f := range fields {
		views = append(views, fieldView{Field: f})
	}
	return views
}

// credentialView is the form of a stored flow.
func credentialView(f *tokenstore.Flow, in Integration, state string, fields []fieldView) keyView {
	return keyView{Flow: f, In: in, Action: keyPath, State: state, Fields: fields}
}

// paramsView is the form before there is a flow: what goes with it is the link
// itself, whose signature is checked again.
func paramsView(f *tokenstore.Flow, in Integration, link string, fields []fieldView) keyView {
	return keyView{Flow: f, In: in, Params: true, Action: paramsPath, State: link, Fields: fields}
}

// readFields reads what was entered into a form's fields, and reports whether
// each has its form. The views keep what may be shown again.
func readFields(form url.Values, fields []tokenstore.Field) (given map[string]secret.String, views []fieldView, ok bool) {
	given, ok = map[string]secret.String{}, true
	for _, f := range fields {
		value := strings.ReplaceAll(form.Get(fieldPrefix+f.Name), "\r\n", "\n")
		if f.Name != "password" { // what was copied often has a space or a line's end with it
			value = strings.TrimSpace(value)
		}
		v := fieldView{Field: f}
		switch {
		case value == "" && f.Optional:
			views = append(views, v)
			continue
		case value == "":
			v.Problem = problemMissing
		case !fits(f, value):
			v.Problem = problemForm
		}
		switch {
		case !f.Secret:
			v.Value = value
		case len(value) >= endingFrom && f.Name != "password":
			v.Ending = ending(value)
		}
		ok = ok && v.Problem == ""
		views = append(views, v)
		given[f.Name] = secret.New(value)
	}
	return given, views, ok
}

// ending returns the last characters of a key, empty where they are not plain
// text: a key of several lines ends like every other.
func ending(value string) string {
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return value[len(value)-endingLen:]
}

// submitParams serves the form that asks for connection parameters, and goes on
// as if the link had said them.
func (h *Handler) submitParams(w http.ResponseWriter, r *http.Request, form url.Values) {
	link := form.Get("state")
	p, ok := h.verify(w, r, link)
	if !ok {
		return
	}
	f, in, no := h.plan(r.Context(), p)
	if no != nil {
		h.refused(r, &f, no.code)
		h.answer(w, r, &f, *no)
		return
	}
	missing := in.missing(p.Params)
	_, views, ok := readFields(form, missing)
	if ok {
		params := maps.Clone(p.Params)
		if params == nil {
			params = map[string]string{}
		}
		for i := range views {
			params[views[i].Name] = views[i].Value
		}
		bound := in
		if err := bound.bind(params); err == nil {
			p.Params = params
			h.begin(w, r, p, link)
			return
		}
	}
	v := paramsView(&f, in, link, views)
	if ok { // of the declared form, and yet not to be used
		v.blame(&in, p.Params)
	}
	h.keyPage(w, r, http.StatusUnprocessableEntity, v)
}

// blame says which of the parameters entered can't be used: the only one that has
// to be there, if the others can be left out to no avail, or the one without which
// the rest can. Else it is all of them.
func (v *keyView) blame(in *Integration, said map[string]string) {
	usable := func(without func(i int) bool) bool {
		params := maps.Clone(said)
		if params == nil {
			params = map[string]string{}
		}
		for i := range v.Fields {
			if !without(i) {
				params[v.Fields[i].Name] = v.Fields[i].Value
			}
		}
		bound := *in
		return bound.bind(params) == nil
	}
	var needed []int
	for i := range v.Fields {
		if !v.Fields[i].Optional {
			needed = append(needed, i)
		}
	}
	if len(needed) == 1 && !usable(func(i int) bool { return v.Fields[i].Optional }) {
		v.Fields[needed[0]].Problem = problemForm
		return
	}
	for i := range v.Fields {
		if v.Fields[i].Optional && usable(func(j int) bool { return j == i }) {
			v.Fields[i].Problem = problemForm
			return
		}
	}
}

// submitKey serves the form that asks for a credential: it is tried while the
// flow stays open, and the flow is taken with the one that does.
func (h *Handler) submitKey(w http.ResponseWriter, r *http.Request, form url.Values) {
	state := form.Get("state")
	f, err := h.cfg.Store.Flow(r.Context(), secret.New(state).Hash())
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		h.guess(w, r, failure{codeStateInvalid, errors.New("form for an unknown state")})
		return
	case err != nil:
		h.refuse(w, r, failure{codeProvisioning, err})
		return
	case f.Stage != tokenstore.FlowOpen && h.bound(r, &f):
		h.second(w, r, f)
		return
	case f.Stage != tokenstore.FlowOpen:
		h.used(w, r, &f)
		return
	case !wallNow().Before(f.ExpiresAt):
		h.end(w, r, f, failure{code: codeTimeout})
		return
	case !h.bound(r, &f):
		h.refused(r, &f, codeBrowserMismatch)
		h.page(w, r, &f, failure{codeBrowserMismatch, errors.New("form without the flow's cookie")})
		return
	}
	in, no := h.usable(&f)
	switch {
	case no != nil:
		h.end(w, r, f, *no)
		return
	case in.Provider.Scheme() == tokenstore.AuthOAuth2:
		h.guess(w, r, failure{codeStateInvalid, errors.New("form for a flow that takes no credential")})
		return
	}
	given, views, ok := readFields(form, in.Provider.Fields())
	v := credentialView(&f, in, state, views)
	if !ok {
		h.keyPage(w, r, http.StatusUnprocessableEntity, v)
		return
	}
	if wait := h.limits.tries.Take(in.Name + "\n" + f.UserID); wait > 0 {
		h.tooMany(w, r, &f, wait)
		return
	}
	h.try(w, r, f, in, given, v)
}

var errTries = fmt.Errorf("none of %d credentials that were entered would do", maxTries)

// try makes a credential of what was entered. Of a flow, one is tried at a time.
func (h *Handler) try(
	w http.ResponseWriter, r *http.Request, f tokenstore.Flow, in Integration, given map[string]secret.String, v keyView,
) {
	if !h.claimForm(w, r, f) {
		return
	}
	defer h.leave(f.ID)
	ctx := context.WithoutCancel(r.Context())
	// Counted ahead: a try that nobody waits for counts too.
	now, err := h.cfg.Store.UpdateFlow(ctx, f.ID, func(f *tokenstore.Flow) error {
		if f.Stage != tokenstore.FlowOpen {
			return tokenstore.ErrFlowUsed
		}
		if f.Tries >= maxTries {
			return errTries
		}
		f.Tries++
		return nil
	})
	switch {
	case errors.Is(err, tokenstore.ErrFlowUsed):
		h.repeat(w, r, f)
		return
	case errors.Is(err, errTries): // the last one was interrupted
		h.end(w, r, f, failure{codeSourceError, err})
		return
	case err != nil:
		h.page(w, r, &f, failure{codeProvisioning, err})
		return
	}
	asking, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	t, account, err := in.Provider.Credential(asking, given)
	if err == nil {
		h.keep(ctx, w, r, now, in, brought{token: t, account: account})
		return
	}
	problem, x := judge(err)
	if x.code == "" && (now.Tries < maxTries) {
		if v.Problem = problem; problem == problemRefused && len(v.Fields) == 1 {
			v.Problem, v.Fields[0].Problem = "", problem
		}
		h.log.Info("entered credential not taken", zap.String("connection_id", f.ConnectionID),
			zap.String("integration", f.Integration), zap.Int("attempt", now.Tries), zap.Error(err))
		answer := func(w http.ResponseWriter, r *http.Request) { h.keyPage(w, r, http.StatusUnprocessableEntity, v) }
		h.answered(f.ID, answer)
		answer(w, r)
		return
	}
	if x.code == "" {
		x = failure{codeSourceError, fmt.Errorf("%w: %w", errTries, err)}
	}
	h.end(w, r, now, x)
}

// judge says what a credential that did not do means: a problem that the user
// can mend, or a failure that ends the flow.
func judge(err error) (problem string, x failure) {
	no, refused := errors.AsType[*tokenstore.RefusalError](err)
	switch {
	case errors.Is(err, tokenstore.ErrCredentialInvalid):
		return problemForm, failure{}
	case errors.Is(err, tokenstore.ErrCredentialRefused), refused && no.Kind == tokenstore.RefusedGrant:
		return problemRefused, failure{}
	case refused && no.Kind == tokenstore.RefusedScope:
		return "", failure{codeInvalidScope, err}
	case refused && no.Kind == tokenstore.RefusedClient:
		return "", failure{codeSourceError, err}
	}
	return problemLater, failure{}
}

// keep takes the flow for a credential that is good, and ends it.
func (h *Handler) keep(ctx context.Context, w http.ResponseWriter, r *http.Request, f tokenstore.Flow, in Integration, b brought) {
	taken, ok := h.take(ctx, w, r, f, func(*tokenstore.Flow) {})
	if !ok {
		h.discard(ctx, &f, b)
		return
	}
	got, no := h.store(ctx, &taken, in, b, h.browser(r))
	h.land(w, r, &taken, in, got, no)
}
