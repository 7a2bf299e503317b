package tokenstore_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestMargins(t *testing.T) {
	for _, tc := range []struct {
		name       string
		life       time.Duration
		soft, hard time.Duration // before the end
	}{
		{"a day", 24 * time.Hour, 5 * time.Minute, 10 * time.Second},
		{"an hour", time.Hour, 5 * time.Minute, 10 * time.Second},
		{"25 minutes", 25 * time.Minute, 5 * time.Minute, 10 * time.Second},
		{"10 minutes", 10 * time.Minute, 2 * time.Minute, 10 * time.Second},
		{"100 s", 100 * time.Second, 20 * time.Second, 10 * time.Second},
		{"50 s", 50 * time.Second, 10 * time.Second, 5 * time.Second},
		{"10 s", 10 * time.Second, 2 * time.Second, time.Second},
		{"5 s", 5 * time.Second, time.Second, time.Second},
		{"2 s", 2 * time.Second, 400 * time.Millisecond, time.Second},
		{"1 s", time.Second, 200 * time.Millisecond, 500 * time.Millisecond},
		{"none", 0, 0, 0},
		{"less than none", -time.Hour, 0, 0},
	} {
		tok := tokenstore.Token{IssuedAt: now, ExpiresAt: now.Add(tc.life)}
		if got, want := tok.SoftAt(), tok.ExpiresAt.Add(-tc.soft); !got.Equal(want) {
			t.Errorf("%s: SoftAt is %v before the end, want %v", tc.name, tok.ExpiresAt.Sub(got), tc.soft)
		}
		if got, want := tok.HardAt(), tok.ExpiresAt.Add(-tc.hard); !got.Equal(want) {
			t.Errorf("%s: HardAt is %v before the end, want %v", tc.name, tok.ExpiresAt.Sub(got), tc.hard)
		}
	}
}

func TestMarginsWithoutAnEnd(t *testing.T) {
	forever := tokenstore.Token{IssuedAt: now}
	if !forever.SoftAt().IsZero() || !forever.HardAt().IsZero() {
		t.Errorf("a token that does not expire: SoftAt, HardAt = %v, %v; want never", forever.SoftAt(), forever.HardAt())
	}
	guessed := tokenstore.Token{IssuedAt: now, ExpiresAt: now.Add(time.Hour), ExpiryUnknown: true}
	if !guessed.SoftAt().Equal(now.Add(55*time.Minute)) || !guessed.HardAt().IsZero() {
		t.Errorf("a token with a guessed end: SoftAt, HardAt = %v, %v; want 55 min, never", guessed.SoftAt(), guessed.HardAt())
	}
}

// A provider's own margin takes the place of ours, and never half of a life.
func TestMarginOfTheProvider(t *testing.T) {
	for _, tc := range []struct {
		life, margin, soft, hard time.Duration
	}{
		{time.Hour, 30 * time.Second, 30 * time.Second, 10 * time.Second},
		{time.Hour, 5 * time.Second, 5 * time.Second, 5 * time.Second},
		{60 * 24 * time.Hour, 7 * 24 * time.Hour, 7 * 24 * time.Hour, 10 * time.Second},
		{time.Hour, 2 * time.Hour, 30 * time.Minute, 10 * time.Second},
	} {
		tok := tokenstore.Token{IssuedAt: now, ExpiresAt: now.Add(tc.life), Margin: tc.margin}
		if soft, hard := tok.ExpiresAt.Sub(tok.SoftAt()), tok.ExpiresAt.Sub(tok.HardAt()); soft != tc.soft || hard != tc.hard {
			t.Errorf("%v with a margin of %v: SoftAt, HardAt are %v, %v before the end, want %v, %v", tc.life, tc.margin, soft, hard, tc.soft, tc.hard)
		}
	}
}

// A provisional token is due at once, and serves to its end.
func TestProvisional(t *testing.T) {
	tok := tokenstore.Token{IssuedAt: now, ExpiresAt: now.Add(time.Hour), Provisional: true}
	if !tok.SoftAt().Equal(now) || !tok.HardAt().Equal(now.Add(time.Hour-10*time.Second)) {
		t.Errorf("SoftAt, HardAt = %v, %v", tok.SoftAt(), tok.HardAt())
	}
	tok.ExpiresAt = time.Time{}
	if !tok.SoftAt().Equal(now) || !tok.HardAt().IsZero() {
		t.Errorf("without an end: SoftAt, HardAt = %v, %v", tok.SoftAt(), tok.HardAt())
	}
}

func TestFlow(t *testing.T) {
	f := tokenstore.Flow{
		Stage: tokenstore.FlowOpen, ExpiresAt: now,
		CodeVerifier: secret.New("v"), Answer: &tokenstore.Answer{},
	}
	if err := f.Take(); err != nil || f.Stage != tokenstore.FlowTaken {
		t.Errorf("Take = %v, stage %s; want taken", err, f.Stage)
	}
	if err := f.Take(); !errors.Is(err, tokenstore.ErrFlowUsed) {
		t.Errorf("second Take = %v, want ErrFlowUsed", err)
	}
	f.Finish("connected")
	if f.Stage != tokenstore.FlowFinished || f.Outcome != "connected" || f.Answer != nil || !f.CodeVerifier.IsZero() {
		t.Errorf("Finish left %+v", f)
	}
	if err := f.Take(); !errors.Is(err, tokenstore.ErrFlowUsed) {
		t.Errorf("Take of a finished flow = %v, want ErrFlowUsed", err)
	}
	if got, want := f.KeepUntil(), now.Add(24*time.Hour); !got.Equal(want) {
		t.Errorf("KeepUntil = %v, want %v", got, want)
	}
}

// scribble changes what is behind every slice, map and pointer in *record.
func scribble(t *testing.T, record any) {
	t.Helper()
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Interface().(type) {
		case time.Time, secret.String:
			v.SetZero()
			return
		}
		switch v.Kind() {
		case reflect.Struct:
			for _, field := range v.Fields() {
				walk(field)
			}
		case reflect.Pointer:
			walk(v.Elem())
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Map:
			v.Clear()
		default:
			v.SetZero()
		}
	}
	walk(reflect.ValueOf(record).Elem())
}
