// Package child starts the programs that are measured and reads from /proc what
// they use.
package child
