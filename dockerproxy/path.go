package dockerproxy

import (
	"fmt"
	"net/http"
	"strings"
)

// The API versions that the gate speaks. Older ones mean other things by the
// same words (before 1.24 a start could carry a whole HostConfig).
const (
	oldestMinor = 41 // Engine 20.10
	newestMinor = 51 // Engine 28
)

// parsePath splits a path into its version and its decoded segments. It decodes
// once; segments that are empty or dots, encoded slashes and control characters
// are refused, so that nobody has to ask what a path "really" is.
func parsePath(raw string) (version string, segments []string, err error) {
	if raw == "/" {
		return "", nil, noPage(raw)
	}
	for seg := range strings.SplitSeq(raw[1:], "/") {
		s, err := decodeSegment(seg)
		if err != nil {
			return "", nil, err
		}
		segments = append(segments, s)
	}
	if last := segments[len(segments)-1]; last == "" {
		return "", nil, noPage(raw)
	}
	for _, s := range segments {
		if s == "" || s == "." || s == ".." {
			return "", nil, badRequest("the path %q is not in its plain form", clip(raw))
		}
	}
	if !looksLikeVersion(segments[0]) {
		return "", segments, nil
	}
	if !isVersion(segments[0]) {
		return "", nil, versionRefusal(segments[0])
	}
	if len(segments) == 1 {
		return "", nil, noPage(raw)
	}
	return segments[0][1:], segments[1:], nil
}

func noPage(path string) *Refusal {
	return &Refusal{Status: http.StatusNotFound, Text: "page not found: " + printable(path), Engine: true}
}

func decodeSegment(s string) (string, error) {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return "", badRequest("the path has an escape that is none")
			}
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		if c < ' ' || c == 0x7f || c == '/' || c == '\\' {
			return "", badRequest("the path has an escaped slash or a control character")
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}

// looksLikeVersion is what an Engine could take for a version.
func looksLikeVersion(s string) bool {
	return len(s) > 1 && s[0] == 'v' && strings.Trim(s[1:], "0123456789.") == ""
}

// isVersion accepts v1.41 to v1.51 in exactly this form.
func isVersion(s string) bool {
	if len(s) != len("v1.51") || s[:3] != "v1." {
		return false
	}
	minor := int(s[3]-'0')*10 + int(s[4]-'0')
	return s[3] >= '1' && s[3] <= '9' && s[4] >= '0' && s[4] <= '9' && minor >= oldestMinor && minor <= newestMinor
}

func versionRefusal(given string) *Refusal {
	return &Refusal{
		Status: http.StatusBadRequest,
		Text:   fmt.Sprintf("API version %s is not spoken here: 1.%d to 1.%d are", printable(given[1:]), oldestMinor, newestMinor),
	}
}
