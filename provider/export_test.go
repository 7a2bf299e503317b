package provider

import "crypto/x509"

// ReadMetadata reads an authorization server's metadata as discovery does, and
// returns the endpoints that would be used.
func ReadMetadata(e Entry, b []byte) (endpoints map[string]string, err error) {
	md, err := (&discovery{entry: e, browser: true}).parse(b)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"authorization_endpoint": md.authorize, "token_endpoint": md.token,
		"revocation_endpoint": md.revoke, "introspection_endpoint": md.introspect,
		"device_authorization_endpoint": md.device,
	}, nil
}

// Trust has p take certificates of a test server's.
func (p *Provider) Trust(pool *x509.CertPool) {
	p.transport.TLSClientConfig.RootCAs = pool
	p.single.TLSClientConfig.RootCAs = pool
}
