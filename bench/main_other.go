//go:build !linux

package main

import "os"

func main() {
	_, _ = os.Stderr.WriteString("bench: Linux only, since it reads /proc\n")
	os.Exit(1)
}
