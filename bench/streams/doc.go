// Command streams shows what many streams at once cost, and that none is lost:
// idle and busy server-sent events and WebSockets, and slow calls with fast
// ones beside them, each with a reload of the configuration in the middle.
//
//	go run ./bench/streams [-compare] [-n 10000] [-busy 1000] [-slow 5000] [-only NAMES] [-caddy PATH] [-stock PATH]
//
// It builds ./caddy by ./xcaddy.sh unless told where there is one, and starts
// for each case a new one with connections imported. What it prints is
// Markdown. It ends with 1 if a gate was missed. Linux only.
package main
