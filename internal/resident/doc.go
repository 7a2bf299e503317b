// Package resident keeps the resident memory of a process to what it uses.
package resident
