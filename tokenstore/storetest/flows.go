package storetest

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func (c contract) flow() {
	f := c.createdFlow("flow", nil)
	got, err := c.s.Flow(c.Context(), f.ID)
	if err != nil {
		c.Fatalf("Flow = %v", err)
	}
	c.same("the flow", got, f)
	c.want("second CreateFlow", c.s.CreateFlow(c.Context(), f), tokenstore.ErrExists)

	for _, id := range []string{"other", "", "flow/"} {
		_, err = c.s.Flow(c.Context(), id)
		c.want("Flow", err, tokenstore.ErrNotFound)
		_, err = c.s.UpdateFlow(c.Context(), id, func(*tokenstore.Flow) error {
			c.Error("a change ran on nothing")
			return nil
		})
		c.want("UpdateFlow", err, tokenstore.ErrNotFound)
	}
}

func (c contract) everyFlowField() {
	full := FullFlow()
	if err := c.s.CreateFlow(c.Context(), full); err != nil {
		c.Fatalf("CreateFlow = %v", err)
	}
	got, err := c.s.Flow(c.Context(), full.ID)
	if err != nil {
		c.Fatalf("Flow = %v", err)
	}
	c.same("the flow", got, full)
}

func (c contract) flowUpdate() {
	f := c.createdFlow("flow", func(f *tokenstore.Flow) { f.Labels = map[string]string{"a": "1"} })
	_, err := c.s.UpdateFlow(c.Context(), f.ID, func(f *tokenstore.Flow) error {
		f.Outcome = "changed"
		return errRefused
	})
	if err != errRefused { //nolint:errorlint // as it is, not wrapped
		c.Errorf("UpdateFlow = %v, want the change's own error as it is", err)
	}
	got, err := c.s.UpdateFlow(c.Context(), f.ID, func(f *tokenstore.Flow) error {
		f.Outcome = "changed"
		return tokenstore.ErrUnchanged
	})
	if err != nil {
		c.Errorf("UpdateFlow with ErrUnchanged = %v, want success", err)
	}
	c.same("the flow left unchanged", got, f)
	got.Labels["a"] = "changed what was returned"

	updated, err := c.s.UpdateFlow(c.Context(), f.ID, func(f *tokenstore.Flow) error {
		f.Finish("user_denied")
		return nil
	})
	if err != nil {
		c.Fatalf("UpdateFlow = %v", err)
	}
	want := f.Clone()
	want.Finish("user_denied")
	c.same("the updated flow", updated, want)
	got, err = c.s.Flow(c.Context(), f.ID)
	if err != nil {
		c.Fatalf("Flow = %v", err)
	}
	c.same("the stored flow", got, want)
}

func (c contract) takenOnce() {
	f := c.createdFlow("flow", nil)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			_, err := c.s.UpdateFlow(c.Context(), f.ID, (*tokenstore.Flow).Take)
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, tokenstore.ErrFlowUsed):
				c.Errorf("UpdateFlow = %v, want ErrFlowUsed", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		c.Errorf("%d of 100 took the flow, want 1", won.Load())
	}
}

func (c contract) forgottenFlows() {
	// How long a flow is remembered after its end is the record's business.
	now := time.Now()
	memory := (&tokenstore.Flow{ExpiresAt: now}).KeepUntil().Sub(now)
	kept := c.createdFlow("kept", func(f *tokenstore.Flow) {
		f.ExpiresAt, f.Stage = now.Add(time.Hour-memory), tokenstore.FlowTaken
	})
	over := c.createdFlow("over", func(f *tokenstore.Flow) {
		f.ExpiresAt, f.Stage = now.Add(-memory), tokenstore.FlowTaken
	})
	if _, err := c.s.Flow(c.Context(), kept.ID); err != nil {
		c.Errorf("Flow an hour before KeepUntil = %v", err)
	}
	_, err := c.s.Flow(c.Context(), over.ID)
	c.want("Flow past KeepUntil", err, tokenstore.ErrNotFound)
	_, err = c.s.UpdateFlow(c.Context(), over.ID, func(*tokenstore.Flow) error { return nil })
	c.want("UpdateFlow past KeepUntil", err, tokenstore.ErrNotFound)
	c.same("taken flows", c.taken(), []string{kept.ID})
	c.want("CreateFlow in place of a forgotten one",
		c.s.CreateFlow(c.Context(), tokenstore.Flow{ID: over.ID, ExpiresAt: now.Add(time.Hour)}), nil)
}

func (c contract) takenFlows() {
	c.createdFlow("open", nil)
	c.createdFlow("one", nil)
	c.createdFlow("two", nil)
	c.createdFlow("finished", nil)
	for _, id := range []string{"one", "two", "finished"} {
		if _, err := c.s.UpdateFlow(c.Context(), id, (*tokenstore.Flow).Take); err != nil {
			c.Fatalf("UpdateFlow = %v", err)
		}
	}
	_, err := c.s.UpdateFlow(c.Context(), "finished", func(f *tokenstore.Flow) error {
		f.Finish("connected")
		return nil
	})
	if err != nil {
		c.Fatalf("UpdateFlow = %v", err)
	}
	c.same("taken flows", c.taken(), []string{"one", "two"})
}

func (c contract) taken() (ids []string) {
	c.Helper()
	flows, err := c.s.TakenFlows(c.Context())
	if err != nil {
		c.Fatalf("TakenFlows = %v", err)
	}
	for _, f := range flows {
		ids = append(ids, f.ID)
	}
	slices.Sort(ids)
	return ids
}
