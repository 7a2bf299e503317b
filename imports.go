// Package lanyard brings Lanyard into a build of Caddy:
//
//	xcaddy build --with github.com/lanyard-proxy/lanyard
//
// There is nothing to call here. An app names a connection in its request to
// the proxy; see the folder caddymodule for what can be configured.
package lanyard

import (
	// The app, the handlers, the transport and the commands.
	_ "github.com/lanyard-proxy/lanyard/caddymodule"
)
