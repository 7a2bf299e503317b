package connect_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// keyed is what the fake provider has beyond authorization codes. The zero value
// has nothing of it.
type keyed struct {
	scheme     string // empty: OAUTH2
	fields     []tokenstore.Field
	params     []tokenstore.Field
	account    func() (tokenstore.Account, error) // nil: can't be asked for
	tells      map[string]string                  // what it adds to the token when it is asked for
	credential func(given map[string]string) (tokenstore.Token, tokenstore.Account, error)
	device     tokenstore.Device // without a code: there is no endpoint
	poll       func() (tokenstore.Answer, error)
	reading    func(tokenstore.Answer) error // what Parse says of it; nil: nothing

	keyMu sync.Mutex // guards given
	given []map[string]string
}

func (k *keyed) Scheme() string {
	if k.scheme == "" {
		return tokenstore.AuthOAuth2
	}
	return k.scheme
}

func (k *keyed) Fields() []tokenstore.Field      { return k.fields }
func (k *keyed) ParamFields() []tokenstore.Field { return k.params }

func (k *keyed) Account(_ context.Context, t *tokenstore.Token) (tokenstore.Account, error) {
	if k.account == nil {
		return tokenstore.Account{}, fmt.Errorf("account: %w", errors.ErrUnsupported)
	}
	account, err := k.account()
	if err == nil && len(k.tells) > 0 {
		t.Metadata = maps.Clone(t.Metadata)
		if t.Metadata == nil {
			t.Metadata = map[string]string{}
		}
		maps.Copy(t.Metadata, k.tells)
	}
	return account, err
}

func (k *keyed) Credential(_ context.Context, given map[string]secret.String) (tokenstore.Token, tokenstore.Account, error) {
	plain := map[string]string{}
	for name, value := range given {
		plain[name] = value.Reveal()
	}
	k.keyMu.Lock()
	k.given = append(k.given, maps.Clone(plain))
	k.keyMu.Unlock()
	return k.credential(plain)
}

func (k *keyed) tried() int {
	k.keyMu.Lock()
	defer k.keyMu.Unlock()
	return len(k.given)
}

func (k *keyed) Device(context.Context, []string) (tokenstore.Device, error) {
	if k.device.Code.IsZero() {
		return tokenstore.Device{}, fmt.Errorf("device: %w", errors.ErrUnsupported)
	}
	return k.device, nil
}

func (k *keyed) PollDevice(context.Context, secret.String) (tokenstore.Answer, error) {
	return k.poll()
}
