package connect_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.p.exchange = func(context.Context) (tokenstore.Answer, error) {
			time.Sleep(5 * time.Second)
			return tokenstore.Answer{Status: 200, Body: secret.New("t")}, nil
		}
		br, late := b.browser(), b.browser()
		state, lateState := br.open(b.link()), late.open(b.link())
		var wg sync.WaitGroup
		wg.Go(func() { wantApp(t, br.callback(state), "") })
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.h.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close() = %v, want that it gave up", err)
		}
		wantPage(t, late.callback(lateState), 503, "unavailable")
		if err := b.h.Close(t.Context()); err != nil || len(b.connections()) != 1 {
			t.Errorf("Close() = %v, %d connections", err, len(b.connections()))
		}
		wg.Wait()
		b.remake() // a Handler that follows goes on with the flow
		wantApp(t, late.callback(lateState), "")
	})
}

// TestIntentAnswerParse: the flow is stored as taken before its code leaves,
// and the answer before anything reads it.
func TestIntentAnswerParse(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	state := br.open(b.link())
	var atExchange, atParse tokenstore.Flow
	b.p.exchange = func(ctx context.Context) (tokenstore.Answer, error) {
		var err error
		atExchange, err = b.store.Flow(ctx, secretHash(state))
		return tokenstore.Answer{Status: 200, Body: secret.New("t")}, err
	}
	b.p.parsing = func() { atParse = b.flow(state) }
	wantApp(t, br.callback(state), "")
	if atExchange.Stage != tokenstore.FlowTaken || atExchange.Answer != nil {
		t.Errorf("at the exchange the flow is %+v", atExchange)
	}
	if atParse.Answer == nil || atParse.Answer.Body.Reveal() != "t" {
		t.Errorf("at the parsing the flow is %+v", atParse)
	}
}
