package dialect

import (
	"crypto/rand"
	"regexp/syntax"
	"strings"
)

// Sample returns a text of the form of a regular expression. What is repeated
// without a bound is long and random where it is a secret, else short.
func Sample(pattern string, secret bool) string {
	if pattern == "" {
		pattern = "[a-z]+"
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		panic(err) // an entry's pattern was validated
	}
	return sample(re, secret)
}

func sample(re *syntax.Regexp, secret bool) string {
	few := 5
	if secret {
		few = 28
	}
	switch re.Op { //nolint:exhaustive // of the rest nothing has to stand there
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		return pick(re.Rune, secret)
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "a"
	case syntax.OpCapture:
		return sample(re.Sub[0], secret)
	case syntax.OpConcat:
		var b strings.Builder
		for _, sub := range re.Sub {
			b.WriteString(sample(sub, secret))
		}
		return b.String()
	case syntax.OpAlternate:
		return sample(re.Sub[0], secret)
	case syntax.OpStar, syntax.OpPlus:
		return repeat(re.Sub[0], few, secret)
	case syntax.OpQuest:
		return ""
	case syntax.OpRepeat:
		n := max(re.Min, few)
		if re.Max >= 0 {
			n = min(n, re.Max)
		}
		return repeat(re.Sub[0], n, secret)
	}
	return ""
}

func repeat(re *syntax.Regexp, n int, secret bool) string {
	var b strings.Builder
	for range n {
		b.WriteString(sample(re, secret))
	}
	return b.String()
}

// pick returns a letter or digit of a class where it has one.
func pick(ranges []rune, secret bool) string {
	var all []rune
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= min(ranges[i+1], ranges[i]+200); r++ {
			if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
				all = append(all, r)
			}
		}
	}
	if len(all) == 0 {
		return string(ranges[0])
	}
	if !secret {
		for _, r := range all {
			if 'a' <= r && r <= 'z' {
				return string(r)
			}
		}
		return string(all[min(len(all)-1, 7)]) // no number that begins with a zero
	}
	var b [1]byte
	_, _ = rand.Read(b[:])
	return string(all[int(b[0])%len(all)])
}
