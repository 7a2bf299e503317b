// Command scale measures what Lanyard costs at a thousand, a million and ten
// million connections. It fills a store of each size in the way Lanyard writes
// it, measures it in this process and under the real program, and prints a
// table in Markdown with the limits that have to hold, and ends with status 1
// if one does not:
//
//	go run ./bench/scale -n 1000,1000000
//
// The smallest size comes first: the others are compared with it.
package main
