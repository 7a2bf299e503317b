package e2e_test

import (
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/dialect"
	"github.com/lanyard-proxy/lanyard/provider"
)

// What a provider tells is believed only in its form, and as its own host:
// neither token nor client secret goes elsewhere, and no code is redeemed that
// came with a response of somebody else's.
func TestCatalogueHostile(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		of     string
		twist  func(*dialect.Dialect)
		before bool // the code is redeemed
	}{
		"no signature":    {of: "shopify", before: true, twist: func(d *dialect.Dialect) { d.HMAC = "" }},
		"false signature": {of: "shopify", before: true, twist: func(d *dialect.Dialect) { d.HMAC = ""; d.Authorize.Answer += "&hmac=" + strings.Repeat("0", 64) }},
		"false shop": {of: "shopify", before: true, twist: func(d *dialect.Dialect) { // signed over another
			d.Authorize.Answer = strings.Replace(d.Authorize.Answer, "&state", "&hmac=x&state", 1)
		}},
		"accounts server": {of: "zoho", before: true, twist: func(d *dialect.Dialect) {
			d.Authorize.Answer = strings.Replace(d.Authorize.Answer, "accounts.zoho.eu", "accounts.zoho.eu.evil.example", 1)
		}},
		"company": {of: "quickbooks", before: true, twist: func(d *dialect.Dialect) {
			d.Authorize.Answer = strings.Replace(d.Authorize.Answer, "$account", "..%2F..%2Fevil", 1)
		}},
		"instance": {of: "salesforce", twist: func(d *dialect.Dialect) {
			d.Code.Answer = strings.Replace(d.Code.Answer, "https://acme.my.salesforce.com", "https://evil.example", 1)
		}},
		"instance with a user": {of: "salesforce", twist: func(d *dialect.Dialect) {
			d.Code.Answer = strings.Replace(d.Code.Answer, "https://acme.my.salesforce.com", "https://acme.my.salesforce.com@evil.example", 1)
		}},
		"base uri": {of: "docusign", twist: func(d *dialect.Dialect) {
			d.Account.Answer = strings.Replace(d.Account.Answer, "https://na3.docusign.net", "https://na3.docusign.net.evil.example", 1)
		}},
		"data centre": {of: "mailchimp", twist: func(d *dialect.Dialect) {
			d.Account.Answer = strings.Replace(d.Account.Answer, `"us6"`, `"evil.example/us6"`, 1)
		}},
	}
	var all []*speaker
	before := map[*speaker]bool{}
	for name, tt := range tests {
		e, ok := provider.Lookup(tt.of)
		if !ok {
			t.Fatalf("no entry %s", tt.of)
		}
		s := speakersOf(t, tt.of, e)[0]
		s.own, s.name = true, "hostile-"+strings.ReplaceAll(name, " ", "-")
		s.dialect.Name = s.name
		tt.twist(s.dialect)
		all = append(all, s)
		before[s] = tt.before
	}
	c := newCatalogue(t, all)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			id, err := c.join(t, s, s.account("ann"))
			if err == nil || !strings.Contains(err.Error(), "the app is told source_error") {
				t.Errorf("connecting gave %q, %v", id, err)
			}
			if c.server.Record(s.name, s.holder("ann")).Access != "" && before[s] {
				t.Error("the code was redeemed")
			}
		})
	}
	t.Cleanup(func() { // after all of them
		for _, line := range c.server.Nobody() {
			t.Errorf("a request that is no provider's: %s", line)
		}
	})
}
