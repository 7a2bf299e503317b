// Package machine says on what a benchmark ran. It works on Linux.
package machine
