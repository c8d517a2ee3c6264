package tunnel

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"
)

// Former is a key that a machine had before another: it signed, while it was in
// use, which one would take its place. So what was its callers' stays theirs after
// a rotation, and nobody has to be told. It makes nobody trusted.
type Former struct {
	Key       KeyID  `json:"key"`
	Signature string `json:"signature"` // of the key that took its place, by this one
}

// maxFormer is how many are followed: rotations are rare.
const maxFormer = 32

// succession is what is signed.
func succession(old, next KeyID) []byte {
	return []byte("jumpsuite: the next key\n" + string(old) + "\n" + string(next) + "\n")
}

// Succeed says that next takes the place of a key.
func Succeed(old ed25519.PrivateKey, next KeyID) Former {
	id := IDOf(old.Public().(ed25519.PublicKey))
	return Former{Key: id, Signature: base64.RawURLEncoding.EncodeToString(ed25519.Sign(old, succession(id, next)))}
}

// Precedes reports whether the former key has signed that next takes its place.
func (f Former) Precedes(next KeyID) bool {
	if _, err := ParseKeyID(string(f.Key)); err != nil {
		return false
	}
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(string(f.Key), keyPrefix))
	if err != nil {
		return false
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(f.Signature)
	return err == nil && ed25519.Verify(key, succession(f.Key, next), signature)
}

// Line is a machine's keys by rotations: the one in use, and those that led to it,
// newest first. What its callers own is filed under the last of it, and what a
// policy says of one of them holds for the machine. At a key that is revoked, or has
// not signed the one behind it, it ends: who got hold of a key that was revoked must
// have nothing by it.
func Line(key KeyID, former []Former, revoked func(KeyID) bool) []KeyID {
	line := []KeyID{key}
	for i, f := range former {
		if i == maxFormer || revoked(f.Key) || !f.Precedes(line[i]) {
			break
		}
		line = append(line, f.Key)
	}
	return line
}
