// Package fidelity is a table of what must pass unchanged through a proxy, in
// the files of its tests. It is run against Lanyard, which must pass it whole,
// and, to compare, against stock Caddy and nginx:
//
//	./xcaddy.sh && go test ./fidelity
//
// docs/fidelity.md is written from the table by `go test ./fidelity -update`.
// How the peers fail what is marked is in testdata/faults.txt; `-faults` adds to it.
//
// TestNoAnswerIsAnothers goes on for longer with -mix.time, and draws the same
// calls again with -mix.seed.
package fidelity
