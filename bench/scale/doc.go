// Command scale measures what Lanyard costs at a thousand, a million and ten
// million connections. It fills a store of each size as `caddy lanyard migrate`
// does, measures it under the real program and in this process, and prints a
// table in Markdown with the limits that have to hold, and ends with status 1
// if one does not:
//
//	go run ./bench/scale -o docs/performance.md
//
// The smallest size comes first: the others are compared with it. Ten million
// take 45 GB of disk.
package main
