package proxy

// InsufficientScope is for the fuzz test of the WWW-Authenticate parser.
var InsufficientScope = insufficientScope
