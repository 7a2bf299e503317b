package connect

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Where the forms of our own pages go, under {public_url}.
const (
	keyPath    = "/connect/key"
	paramsPath = "/connect/params"
)

const (
	// maxForm bounds a posted form in bytes. A service account's key has 3 KiB.
	maxForm = 64 << 10
	// maxResponse bounds what of an authorization response goes on in a URL.
	maxResponse = 8 << 10
	// formLife is how long the browser has to follow one redirect.
	formLife = time.Minute
	// formParam is the parameter in which a posted response is carried on.
	formParam = "form_post"
)

// posted serves the requests that bring a form: those of our own pages, and
// the authorization responses of providers that post them.
func (h *Handler) posted(w http.ResponseWriter, r *http.Request, path, name string) {
	if wait := h.limits.requests.Take(guard.Network(h.from(r))); wait > 0 {
		h.tooMany(w, r, &tokenstore.Flow{}, wait)
		return
	}
	form, err := readForm(w, r)
	switch {
	case err != nil:
		h.guess(w, r, failure{codeStateInvalid, err})
	case path == keyPath:
		h.submitKey(w, r, form)
	case path == paramsPath:
		h.submitParams(w, r, form)
	default:
		h.carryOn(w, r, name, form)
	}
}

// readForm reads a form-encoded body. Its errors hold nothing of it.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, errors.New("post of something that is not a form")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return nil, errors.New("post that is too long or was cut off")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, errors.New("post that is not form-encoded")
	}
	return form, nil
}

// carryOn takes an authorization response that the provider had posted (OAuth
// 2.0 Form Post Response Mode). The flow's cookie does not come with a post
// from another site, so nothing is decided here: the browser is sent to the same
// path with what was posted sealed in one parameter, and what comes then is a
// callback like any other. The code stays out of the browser's history.
func (h *Handler) carryOn(w http.ResponseWriter, r *http.Request, name string, form url.Values) {
	raw := form.Encode()
	_, known := h.cfg.Integrations[name]
	if _, ok := parseResponse(raw, h.codeParam(name)); !ok || !known || len(raw) > maxResponse {
		h.guess(w, r, failure{codeStateInvalid, errors.New("posted callback without one state and either a code or an error")})
		return
	}
	seeOther(w, h.base+"/callback/"+name+"?"+formParam+"="+h.cfg.Signer.sealForm(name, raw, wallNow().Add(formLife)))
}

// carried returns the response that carryOn put into a callback's query, or the
// query itself if it holds none.
func (h *Handler) carried(name, rawQuery string) (string, error) {
	sealed, ok := strings.CutPrefix(rawQuery, formParam+"=")
	if !ok {
		return rawQuery, nil
	}
	return h.cfg.Signer.openForm(name, sealed, wallNow())
}

var errForm = errors.New("posted callback was not sealed here, was changed, or is older than a minute")

// sealers returns the AEADs of the keys by which posted responses are sealed,
// in the order of the API keys.
func (s *Signer) sealers() []cipher.AEAD {
	var all []cipher.AEAD
	for _, k := range s.keys {
		block, err := aes.NewCipher(k.MAC("lanyard callback form v1"))
		if err != nil {
			continue // never: the key has 32 bytes
		}
		if aead, err := cipher.NewGCMWithRandomNonce(block); err == nil {
			all = append(all, aead)
		}
	}
	return all
}

// sealForm seals fields for a callback of this integration until expires.
func (s *Signer) sealForm(integration, fields string, expires time.Time) string {
	plain := strconv.FormatInt(expires.Unix(), 10) + "\n" + fields
	return base64.RawURLEncoding.EncodeToString(s.sealers()[0].Seal(nil, nil, []byte(plain), []byte(integration))) //nolint:gosec // G407: the AEAD makes the nonce
}

// openForm returns the fields that sealForm sealed.
func (s *Signer) openForm(integration, sealed string, now time.Time) (string, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return "", errForm
	}
	for _, aead := range s.sealers() {
		plain, err := aead.Open(nil, nil, raw, []byte(integration))
		if err != nil {
			continue
		}
		until, fields, _ := strings.Cut(string(plain), "\n")
		unix, err := strconv.ParseInt(until, 10, 64)
		if err != nil || now.Unix() >= unix {
			return "", errForm
		}
		return fields, nil
	}
	return "", errForm
}
