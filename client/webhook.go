package client

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// tolerance is how far a webhook's time may be from now: what is older may be
// somebody's repetition.
const tolerance = 5 * time.Minute

// ErrWebhook is returned for what is no webhook of Lanyard's, or came too late.
var ErrWebhook = errors.New("lanyard: the webhook is not signed with this secret, or too old")

// VerifyWebhook checks that a webhook was signed with secret (`whsec_…`, from
// Lanyard's configuration) at most five minutes from now, as Standard Webhooks
// has it, and returns its event. body is the request's, byte for byte. An event
// comes at least once: Seq tells whether it came before. The error is ErrWebhook,
// or one of the secret's form.
func VerifyWebhook(secret string, header http.Header, body []byte, now time.Time) (*Event, error) {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) == 0 {
		return nil, errors.New("lanyard: the webhook's secret is not whsec_ and base64")
	}
	at, err := strconv.ParseInt(header.Get("Webhook-Timestamp"), 10, 64)
	if err != nil || now.Sub(time.Unix(at, 0)).Abs() > tolerance {
		return nil, ErrWebhook
	}
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(header.Get("Webhook-Id") + "." + strconv.FormatInt(at, 10) + "."))
	_, _ = h.Write(body)
	want, signed := h.Sum(nil), false
	for given := range strings.FieldsSeq(header.Get("Webhook-Signature")) {
		version, text, _ := strings.Cut(given, ",")
		got, err := base64.StdEncoding.DecodeString(text)
		if version == "v1" && err == nil && hmac.Equal(got, want) {
			signed = true
		}
	}
	if !signed {
		return nil, ErrWebhook
	}
	var message struct {
		Data *Event `json:"data"`
	}
	if err := json.Unmarshal(body, &message); err != nil || message.Data == nil {
		return nil, errors.New("lanyard: the webhook's body is not of the known form")
	}
	return message.Data, nil
}
