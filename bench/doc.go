// Command bench measures Lanyard beside what else could do its job: a stock
// Caddy with reverse_proxy and header_up, and nginx with a map. It starts all
// of them and an upstream on this machine, takes turns between them, prints
// the figures in Markdown, and ends with exit code 1 if Lanyard misses one of
// the bounds in gates_linux.go.
//
//	go run ./bench                                # all of it
//	go run ./bench -quick                         # whether it works
//	go run ./bench -jobs requests,sse -rounds 9   # some of it, more exactly
//	go run ./bench -o docs/performance.md         # keeps the figures
package main
