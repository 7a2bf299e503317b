// Package fidelity is a table of what must pass unchanged through a proxy, in
// the files of its tests. It is run against Lanyard, which must pass it whole,
// and, to compare, against stock Caddy and nginx:
//
//	./xcaddy.sh && go test ./fidelity
//
// docs/fidelity.md is written from the table by `go test ./fidelity -update`.
package fidelity
