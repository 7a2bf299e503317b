// Command nodes measures what several Lanyards on one PostgreSQL do, beside one
// alone: calls, renewals, and what they cost the database. It starts all of
// them on this machine and prints a table in Markdown:
//
//	go run ./bench/nodes
//	go run ./bench/nodes -o docs/scaling.md   # keeps it
package main
