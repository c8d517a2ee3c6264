package tunnel

import (
	"crypto/ed25519"
	"strings"
	"testing"
)

func TestTheFirstOfAMachinesKeysIsFoundByTheirSignatures(t *testing.T) {
	var private []ed25519.PrivateKey
	var id []KeyID
	for range 4 {
		_, k, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		private, id = append(private, k), append(id, IDOf(k.Public().(ed25519.PublicKey)))
	}
	first, second := Succeed(private[0], id[1]), Succeed(private[1], id[2])
	forged := Former{Key: id[0], Signature: Succeed(private[3], id[2]).Signature}
	none := func(KeyID) bool { return false }
	for _, tt := range []struct {
		name    string
		key     KeyID
		former  []Former
		revoked func(KeyID) bool
		want    KeyID
	}{
		{"it was never rotated", id[2], nil, none, id[2]},
		{"once", id[1], []Former{first}, none, id[0]},
		{"twice", id[2], []Former{second, first}, none, id[0]},
		{"in the wrong order", id[2], []Former{first, second}, none, id[2]},
		{"another machine's", id[3], []Former{second, first}, none, id[3]},
		{"one is left out", id[2], []Former{first}, none, id[2]},
		{"the signature is another key's", id[2], []Former{forged}, none, id[2]},
		{"what is no signature", id[1], []Former{{Key: id[0], Signature: "x"}}, none, id[1]},
		{"what is no key", id[1], []Former{{Key: "ed25519:x", Signature: first.Signature}}, none, id[1]},
		{"the first was revoked", id[2], []Former{second, first}, func(k KeyID) bool { return k == id[0] }, id[1]},
		{"the second was revoked", id[2], []Former{second, first}, func(k KeyID) bool { return k == id[1] }, id[2]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Line(tt.key, tt.former, tt.revoked)
			if got[0] != tt.key || got[len(got)-1] != tt.want || len(got) > len(tt.former)+1 {
				t.Errorf("got %s, want it to lead to %s", got, tt.want)
			}
		})
	}
	var many []Former
	for range maxFormer + 1 {
		many = append(many, first)
	}
	h := Hello{User: "a", Audit: "b", Former: many}
	if err := h.check(); err == nil || !strings.Contains(err.Error(), "too much") {
		t.Errorf("a hello with %d former keys: %v", len(many), err)
	}
}
