package audit

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"time"
)

// idEncoding sorts as its bytes do and has no letters that look like digits.
var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

const idLen = 26

// NewID is a new id: 48 bits of milliseconds since 1970, 80 random bits, in 26
// characters. Ids sort by time.
func NewID(t time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(t.UnixMilli())<<16)
	rand.Read(b[6:]) // never fails
	return idEncoding.EncodeToString(b[:])
}

// ParseID checks that s is an id, and returns when it was made (UTC). An id
// that passed is safe as a file name.
func ParseID(s string) (time.Time, error) {
	b, err := idEncoding.DecodeString(s)
	if err != nil || len(s) != idLen || idEncoding.EncodeToString(b) != s {
		return time.Time{}, fmt.Errorf("%q is not an audit id (26 of 0-9 a-z without i, l, o, u)", clip(s, 40))
	}
	ms := binary.BigEndian.Uint64(b[:8]) >> 16
	return time.UnixMilli(int64(ms)).UTC(), nil
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n]
}
