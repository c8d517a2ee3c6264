package dockerproxy

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"jumpsuite/internal/audit"
)

// Who leaves a group loses what runs by it, and not only what he begins.
func TestAStreamEndsWhenItsCallerLeavesTheGroup(t *testing.T) {
	for name, tt := range map[string]struct {
		user   string
		groups []string
		err    error
		ends   error // nil: it goes on
	}{
		"left":         {"dev", nil, nil, errGroupsChanged},
		"denied":       {"dev", []string{"developers", "suspended"}, nil, errGroupsChanged},
		"unknown":      {"dev", []string{"developers"}, errors.New("no such user"), errUnresolved},
		"another user": {"new", []string{"developers"}, nil, errUnresolved},
		"another":      {"dev", []string{"developers", "more"}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, newFakeEngine(t).socket, "test")
			h.setPolicy(strings.Replace(testPolicy, "[user:dev, user:other]", "[group:developers]", 1) + `
  - {name: suspended, effect: deny, principals: [group:suspended], actions: [docker.exec], environments: ["*"]}
`)
			caller := Caller{UID: 1001}
			caller.User, caller.Groups = "dev", []string{"developers"}
			h.serveAs("member", caller)
			conn, br := startExec(t, h, "member", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":false}`)
			var asked atomic.Int32
			serves := h.gates[len(h.gates)-1]
			go serves.Recheck(h.ctx, 20*time.Millisecond, func(_ context.Context, uid int) (string, []string, error) {
				asked.Add(1)
				return tt.user, tt.groups, tt.err
			})
			eventually(t, "the groups were looked at", func() bool { return asked.Load() > 0 })
			if tt.ends == nil {
				io.WriteString(conn, "still")
				if b := make([]byte, 5); !func() bool { _, err := io.ReadFull(br, b); return err == nil && string(b) == "still" }() {
					t.Errorf("got %q, want the stream to go on", b)
				}
				return
			}
			if _, err := io.ReadAll(br); err != nil {
				t.Errorf("got %v, want an end", err)
			}
			eventually(t, "its close says why", func() bool {
				return slices.ContainsFunc(h.log.all(), func(e audit.Event) bool { return e.Kind == audit.Close && e.Result.Error == tt.ends.Error() })
			})
		})
	}
}
