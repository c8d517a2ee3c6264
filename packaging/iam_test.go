package packaging

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// statement is one of an IAM policy.
type statement struct {
	Sid, Effect string
	Action      any // a text or a list
	Condition   map[string]map[string]string
}

func (s statement) speaksOf(action string) bool {
	list, _ := s.Action.([]any)
	return s.Action == action || slices.Contains(list, any(action))
}

// A session that is started without a document is one with a shell of the whole
// host. IAM asks for the right to that document only where each statement that
// allows ssm:StartSession demands it (Systems Manager User Guide, "Start a session
// with a document by specifying the session documents in IAM policies").
func TestAJumpServerStartsSessionsWithItsDocumentOnly(t *testing.T) {
	b, err := os.ReadFile("iam/jump-server.json")
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Statement []statement }
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	allowed := 0
	for _, s := range p.Statement {
		if s.Effect != "Allow" || !s.speaksOf("ssm:StartSession") {
			continue
		}
		allowed++
		if got := s.Condition["BoolIfExists"]["ssm:SessionDocumentAccessCheck"]; got != "true" {
			t.Errorf("%s: ssm:SessionDocumentAccessCheck is %q, not true: a session without a document is a shell on the host", s.Sid, got)
		}
	}
	if allowed < 2 {
		t.Errorf("%d statements allow ssm:StartSession: instances and the document are two", allowed)
	}
}
