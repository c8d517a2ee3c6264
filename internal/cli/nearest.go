package cli

import (
	"slices"
	"strings"
)

// Nearest returns at most n of names that look like given, the nearest first:
// those within a third of its length in edits, and those that contain it.
func Nearest(given string, names []string, n int) []string {
	type near struct {
		name string
		far  int
	}
	limit := max(2, len(given)/3)
	var found []near
	g := strings.ToLower(given)
	for _, name := range names {
		l := strings.ToLower(name)
		d := distance(g, l)
		if len(g) >= 3 && (strings.Contains(l, g) || strings.Contains(g, l) && len(l) >= 3) {
			d = min(d, limit)
		}
		if d <= limit && d < max(len(g), len(l)) {
			found = append(found, near{name, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return a.far - b.far })
	var out []string
	for _, f := range found[:min(n, len(found))] {
		out = append(out, f.name)
	}
	return out
}

// distance is the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
