//go:build !linux

package caddymodule

// Elsewhere than on Linux these are not known, and nothing is found.

func statFileSystem(string) fileSystem { return fileSystem{} }

func canWrite(string) bool { return true }

func lockHolder(string) int { return 0 }

func programOf(int) string { return "" }
