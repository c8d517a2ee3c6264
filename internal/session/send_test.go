package session

import (
	"bytes"
	"testing"
)

// The agent may deliver a message twice. What is on top can only drop that if
// it is made of whole records, which are whole writes.
func TestAWriteIsNotTornBetweenMessages(t *testing.T) {
	var o outgoing
	write := func(n int) {
		p := bytes.Repeat([]byte{byte(n)}, n)
		for len(p) > 0 {
			p = p[o.add(p):]
		}
	}
	for _, n := range []int{10, chunk - 20, 10, 1, chunk, 100, chunk + 5, 3} {
		write(n)
	}
	var got []int
	for _, m := range o.queue {
		got = append(got, len(m.payload))
	}
	want := []int{chunk, 1, chunk, 100, chunk, 8}
	if len(got) != len(want) {
		t.Fatalf("got messages of %v bytes, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got messages of %v bytes, want %v", got, want)
		}
	}
	for range window {
		o.push(0, nil)
	}
	if !o.full(1) {
		t.Error("a full window takes a byte")
	}
}
