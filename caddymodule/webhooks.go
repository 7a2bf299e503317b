package caddymodule

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/webhook"
)

// WebhookConfig is an endpoint of the app that is told what happens, signed as
// Standard Webhooks says.
type WebhookConfig struct {
	// Where the app takes webhooks: https, or http on this machine (localhost,
	// 127.0.0.1, [::1]). Redirects are not followed.
	URL string `json:"url,omitempty"`
	// What signs them: `whsec_` and the base64 of 24 to 64 bytes, as a placeholder
	// such as `{env.LANYARD_WEBHOOK_SECRET}`. One is required. While it is exchanged
	// there are two, the new one first, and each signs.
	Secrets []string `json:"secrets,omitempty"`
	// The types of events that are sent. Default: `connection.active`, `.failed`,
	// `.expired`, `.refreshed`, `.refresh_failed`, `.revoked` and
	// `.scopes_changed`.
	Events []string `json:"events,omitempty"`
}

func (a *App) parseWebhook(d *caddyfile.Dispenser) error {
	args, err := arguments(d, "URL")
	if err != nil {
		return err
	}
	c := WebhookConfig{URL: args[0]}
	err = parseBlock(d, options{
		"secret": func(d *caddyfile.Dispenser) error {
			args, err := arguments(d, "a value")
			c.Secrets = append(c.Secrets, args...)
			return err
		},
		"events": list(&c.Events, checkWebhookEvent),
	})
	if err == nil && len(c.Secrets) == 0 {
		err = d.Errf("webhook needs a secret, which signs what is sent")
	}
	a.Webhooks = append(a.Webhooks, c)
	return err
}

func checkWebhookEvent(name string) error {
	if slices.Contains(webhook.Types, tokenstore.EventType(name)) {
		return nil
	}
	var known []string
	for _, t := range webhook.Types {
		known = append(known, string(t))
	}
	return fmt.Errorf("%q is no type of event: %s", name, hint(name, known))
}

// resolveWebhooks resolves the endpoints. Errors call them by number: a URL may
// hold what only the app should know.
func (s *settings) resolveWebhooks(a *App, r *resolver) error {
	for i, c := range a.Webhooks {
		name := fmt.Sprintf("webhook %d", i+1)
		e := webhook.Endpoint{URL: r.text(name, c.URL)}
		if r.err != nil {
			return r.err
		}
		r.fail(name, webhook.CheckURL(e.URL))
		if slices.ContainsFunc(s.webhooks, func(o webhook.Endpoint) bool { return o.URL == e.URL }) {
			r.fail(name, errors.New("there is another one with this URL; put the events into one"))
		}
		if len(c.Secrets) == 0 {
			r.fail(name, errors.New("it needs a secret, which signs what is sent"))
		}
		for _, value := range c.Secrets {
			text := r.secret(name+": secret", value)
			if r.err != nil {
				return r.err
			}
			key, err := webhook.ParseSecret(text)
			r.fail(name+": secret", err)
			e.Secrets = append(e.Secrets, key)
		}
		for _, t := range c.Events {
			r.fail(name+": events", checkWebhookEvent(t))
			e.Events = append(e.Events, tokenstore.EventType(t))
		}
		s.webhooks = append(s.webhooks, e)
	}
	return r.err
}
