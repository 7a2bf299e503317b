package client

// Signed returns endpoint with a query and its signature.
func (c *Client) Signed(endpoint, query string) string { return c.signed(endpoint, query) }
