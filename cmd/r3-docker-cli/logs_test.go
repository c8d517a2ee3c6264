package main

import (
	"slices"
	"testing"
)

// A look at the container before would be a round trip to another host.
func TestLogsAreOneQuestion(t *testing.T) {
	for _, tt := range []struct{ name, ref, out, err string }{
		{"a log with two streams", "two", "out\n", "err\n"},
		{"a terminal's", "terminal", "\x01raw\r\n", ""},
		{"one that is not there", "nosuch", "", "Error response from daemon: no\n"},
		{"of a gate that does not say", "silent", "", errUnknownLog.Error() + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, g := newFleet(t)
			got := typed(t, g, "logs", "--tail", "5", tt.ref)
			if got.out != tt.out || got.err != tt.err || (got.code == 0) != (tt.out != "") {
				t.Errorf("got %+v, want %q and %q", got, tt.out, tt.err)
			}
			want := []string{"HEAD /_ping", "GET /containers/" + tt.ref + "/logs stderr=1&stdout=1&tail=5"}
			if !slices.Equal(f.asked, want) {
				t.Errorf("asked %q, want %q", f.asked, want)
			}
		})
	}
}
