package ecs

import (
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// page describes one request for a part of a list.
type page struct {
	query string // operation and filters: a token is good for the same ones only
	token *string
	max   *int32
	size  int // when max is not given
	most  int // that max may be; zero means 100
}

// listed is one item of a list; at orders the list and grows.
type listed struct {
	at    int64
	value string
}

// cut returns the page's part of a list, and the token of the next page.
func (q page) cut(items []listed) ([]string, *string, error) { return q.cutFrom(items, 0) }

// cutFrom is cut for lists whose first item may be anywhere above start.
func (q page) cutFrom(items []listed, start int64) ([]string, *string, error) {
	after, size, err := q.read(start)
	if err != nil {
		return nil, nil, err
	}
	values := []string{}
	for i, item := range items {
		if item.at <= after {
			continue
		}
		values = append(values, item.value)
		if len(values) == size && i+1 < len(items) {
			token := q.seal(item.at)
			return values, &token, nil
		}
	}
	return values, nil, nil
}

// read returns where the page begins and how long it is.
func (q page) read(start int64) (after int64, size int, err error) {
	size = q.size
	if q.max != nil {
		size = int(*q.max)
	}
	if most := orInt(q.most, 100); size < 1 || size > most {
		return 0, 0, invalid(fmt.Sprintf("maxResults must be between 1 and %d", most))
	}
	if q.token == nil {
		return start, size, nil
	}
	after, err = q.open(*q.token)
	return after, size, err
}

// seal makes a token. It is opaque to callers, and tells its query's tokens from others.
func (q page) seal(at int64) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%016x:%d", q.fingerprint(at), at))
}

func (q page) open(token string) (int64, error) {
	text, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return 0, invalid("Invalid token.")
	}
	sum, number, _ := strings.Cut(string(text), ":")
	at, err := strconv.ParseInt(number, 10, 64)
	if err != nil || sum != fmt.Sprintf("%016x", q.fingerprint(at)) {
		return 0, invalid("Invalid token.")
	}
	return at, nil
}

func (q page) fingerprint(at int64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%d", q.query, at)
	return h.Sum64()
}

// numbered makes a list of values that have their order already.
func numbered(values []string) []listed {
	items := make([]listed, len(values))
	for i, v := range values {
		items[i] = listed{int64(i + 1), v}
	}
	return items
}

// str is the string behind s; nil is the empty one.
func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
