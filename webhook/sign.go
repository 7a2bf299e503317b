package webhook

import (
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
)

// The headers of a webhook, as Standard Webhooks has them.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

const (
	secretPrefix = "whsec_"
	// The bounds of a signing key, in bytes, which Standard Webhooks sets.
	minSecret, maxSecret = 24, 64
	// tolerance is how far a timestamp may be from now: what is older may be a
	// repetition by somebody else.
	tolerance = 5 * time.Minute
)

// ParseSecret reads a signing secret: `whsec_` and the base64 of 24 to 64 bytes.
// The error does not hold it.
func ParseSecret(text string) (secret.String, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil {
		return secret.String{}, errors.New("it is not `whsec_` and base64; make one with `echo whsec_$(openssl rand -base64 32)`")
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return secret.String{}, fmt.Errorf("it is the base64 of %d bytes; 24 to 64 are needed", len(key))
	}
	return secret.New(string(key)), nil
}

// signatures returns the value of the header webhook-signature: one signature for
// each key, in their order.
func signatures(keys []secret.String, id string, at int64, body []byte) string {
	all := make([]string, 0, len(keys))
	for _, key := range keys {
		all = append(all, sign(key, id, at, body))
	}
	return strings.Join(all, " ")
}

func sign(key secret.String, id string, at int64, body []byte) string {
	sum := key.MAC(id + "." + strconv.FormatInt(at, 10) + "." + string(body))
	return "v1," + base64.StdEncoding.EncodeToString(sum)
}

// Verify returns nil if a webhook that came now, with this header and body, was
// signed with the key that ParseSecret returned, not more than five minutes ago.
func Verify(key secret.String, header http.Header, body []byte, now time.Time) error {
	at, err := strconv.ParseInt(header.Get(headerTimestamp), 10, 64)
	if err != nil {
		return errors.New("the webhook has no timestamp")
	}
	if age := now.Sub(time.Unix(at, 0)); age.Abs() > tolerance {
		return errors.New("the webhook's timestamp is too far from now")
	}
	want := sign(key, header.Get(headerID), at, body)
	for given := range strings.FieldsSeq(header.Get(headerSignature)) {
		if hmac.Equal([]byte(given), []byte(want)) {
			return nil
		}
	}
	return errors.New("the webhook's signature is not right")
}
