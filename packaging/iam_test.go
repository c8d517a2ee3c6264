package packaging

import (
	"encoding/json"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// statement is one of an IAM policy.
type statement struct {
	Sid, Effect      string
	Action, Resource any // a text or a list
	Condition        map[string]map[string]string
}

func (s statement) speaksOf(action string) bool { return slices.Contains(list(s.Action), action) }

// list is what IAM takes for the same: a text, or several.
func list(v any) (texts []string) {
	if s, ok := v.(string); ok {
		return []string{s}
	}
	several, _ := v.([]any)
	for _, s := range several {
		texts = append(texts, s.(string))
	}
	return texts
}

// statements are those of the policies of a role.
func statements(t *testing.T, files ...string) (all []statement) {
	t.Helper()
	for _, file := range files {
		b, err := os.ReadFile(path.Join("iam", file))
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Statement []statement }
		if err := json.Unmarshal(b, &p); err != nil || len(p.Statement) == 0 {
			t.Fatalf("%s: %d statements, %v", file, len(p.Statement), err)
		}
		all = append(all, p.Statement...)
	}
	return all
}

// call is a request as IAM sees it: the keys of its context are what conditions and
// variables are about. One that is not there is null.
type call struct {
	action, resource string
	context          map[string]string
}

// may is IAM's decision: something has to allow it, and nothing deny it.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
func may(t *testing.T, all []statement, c call) bool {
	t.Helper()
	allowed := false
	for _, s := range all {
		if !s.speaksOf(c.action) || !slices.ContainsFunc(list(s.Resource), func(r string) bool { return c.like(r, c.resource) }) || !c.holds(t, s.Condition) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		allowed = true
	}
	return allowed
}

var variable = regexp.MustCompile(`\$\{[^}]+\}`)

// like compares with a pattern, in which variables stand for keys of the context: one
// that is not there makes it match nothing.
func (c call) like(pattern, value string) bool {
	missing := false
	var b strings.Builder
	b.WriteString("^")
	for len(pattern) > 0 {
		if at := variable.FindStringIndex(pattern); at != nil && at[0] == 0 {
			v, ok := c.context[pattern[2:at[1]-1]]
			missing = missing || !ok
			b.WriteString(regexp.QuoteMeta(v))
			pattern = pattern[at[1]:]
			continue
		}
		if pattern[0] == '*' {
			b.WriteString(".*")
		} else {
			b.WriteString(regexp.QuoteMeta(pattern[:1]))
		}
		pattern = pattern[1:]
	}
	return !missing && regexp.MustCompile(b.String()+"$").MatchString(value)
}

func (c call) holds(t *testing.T, conditions map[string]map[string]string) bool {
	t.Helper()
	for operator, keys := range conditions {
		for key, want := range keys {
			got, there := c.context[key]
			ok := false
			switch operator {
			case "StringEquals":
				ok = there && got == want
			case "StringLike", "ArnLike":
				ok = there && c.like(want, got)
			case "BoolIfExists":
				ok = !there || got == want
			case "Null":
				ok = there == (want == "false")
			default:
				t.Fatalf("this test does not know the operator %s", operator)
			}
			if !ok {
				return false
			}
		}
	}
	return true
}

const (
	account  = "arn:aws:ssm:eu-central-1:123456789012:"
	instance = "arn:aws:ec2:eu-central-1:123456789012:instance/"
)

// Of an instance's role, its credentials are known by where they were handed out; a
// person's are not. AWS documents ec2:SourceInstanceARN as one of the keys of a role's
// session, in the context of calls to each service.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
var (
	asInstance = map[string]string{"ec2:SourceInstanceARN": instance + "i-0bbbbbbbbbbbbbbbb", "aws:userid": "AROAEXAMPLE:i-0bbbbbbbbbbbbbbbb"}
	asPerson   = map[string]string{"aws:userid": "AROAADMIN:ann"}
)

func TestWhoMayPublishKeys(t *testing.T) {
	jump := statements(t, "jump-server.json")
	host := statements(t, "docker-host.json")
	admin := statements(t, "jump-server-publish.json")
	both := append(slices.Clone(jump), admin...)
	generous := statement{Effect: "Allow", Action: []any{"ssm:PutParameter", "ssm:DeleteParameter"}, Resource: "*"}
	const ofJump, ofHost = account + "parameter/jumpsuite/prod/jump-servers/i-0bbbbbbbbbbbbbbbb", account + "parameter/jumpsuite/prod/hosts/i-0aaaaaaaaaaaaaaaa"
	for _, tt := range []struct {
		name string
		role []statement
		who  map[string]string
		jump bool // may publish a jump server's
		host bool // may publish a host's
	}{
		{"a jump server", jump, asInstance, false, false},
		{"a jump server with the administrator's policy", both, asInstance, false, false},
		{"a jump server with a generous policy", append(slices.Clone(jump), generous), asInstance, false, false},
		{"a host", host, asInstance, false, true},
		{"a host with a generous policy", append(slices.Clone(host), generous), asInstance, false, true},
		{"a host's policy, used elsewhere", host, asPerson, false, false},
		{"an administrator", admin, asPerson, true, false},
		{"the administrator's policy, at an instance", admin, asInstance, false, false},
	} {
		for _, action := range []string{"ssm:PutParameter", "ssm:DeleteParameter"} {
			if got := may(t, tt.role, call{action, ofJump, tt.who}); got != tt.jump {
				t.Errorf("%s: %s of a jump server's key: %v, want %v", tt.name, action, got, tt.jump)
			}
			if got := may(t, tt.role, call{action, ofHost, tt.who}); got != tt.host {
				t.Errorf("%s: %s of a host's key: %v, want %v", tt.name, action, got, tt.host)
			}
			ours := slices.DeleteFunc(slices.Clone(tt.role), func(s statement) bool { return s.Sid == "" })
			for _, other := range []string{"parameter/other", "parameter/jumpsuite/prod/others/i-0aaaaaaaaaaaaaaaa"} {
				if may(t, ours, call{action, account + other, tt.who}) {
					t.Errorf("%s: %s of %s", tt.name, action, other)
				}
			}
		}
	}
	for name, role := range map[string][]statement{"a jump server": jump, "a host": host} {
		if !may(t, role, call{"ssm:GetParametersByPath", account + "parameter/jumpsuite/prod", asInstance}) {
			t.Errorf("%s fetches no keys", name)
		}
		if may(t, role, call{"ssm:GetParametersByPath", account + "parameter/app/secrets", asInstance}) {
			t.Errorf("%s reads other parameters", name)
		}
	}
}

// A session's id begins with the name of who started it. AWS's samples write that as
// ${aws:userid}, which for a role has the role's id before it; what is seen of roles in
// the field is the name of the role's session, and of an instance's role that is the
// instance's id. Both have to be the jump server's own, and others' not.
// https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-restrict-access-examples.html
func TestAJumpServerKeepsAndEndsItsOwnSessions(t *testing.T) {
	jump := statements(t, "jump-server.json")
	by := func(owner string) map[string]string {
		return map[string]string{"aws:userid": asInstance["aws:userid"], "ssm:resourceTag/aws:ssmmessages:session-id": owner}
	}
	own := by("AROAEXAMPLE:i-0bbbbbbbbbbbbbbbb-0123456789abcdef0")
	other := by("AROAOTHER:i-0cccccccccccccccc-0123456789abcdef0")
	for _, action := range []string{"ssm:ResumeSession", "ssm:TerminateSession"} {
		for _, tt := range []struct {
			name, id string
			context  map[string]string
			want     bool
		}{
			{"its own, as AWS writes it", "AROAEXAMPLE:i-0bbbbbbbbbbbbbbbb-0123456789abcdef0", own, true},
			{"its own, as it is seen", "i-0bbbbbbbbbbbbbbbb-0123456789abcdef0", own, true},
			{"its own, with the owner alone in the tag", "i-0bbbbbbbbbbbbbbbb-0123456789abcdef0", by("AROAEXAMPLE:i-0bbbbbbbbbbbbbbbb"), true},
			{"another instance's", "i-0cccccccccccccccc-0123456789abcdef0", other, false},
			{"a person's", "ann-0123456789abcdef0", by("AROAADMIN:ann"), false},
			{"one without a tag", "i-0bbbbbbbbbbbbbbbb-0123456789abcdef0", asInstance, false},
		} {
			if got := may(t, jump, call{action, account + "session/" + tt.id, tt.context}); got != tt.want {
				t.Errorf("%s of %s: %v, want %v", action, tt.name, got, tt.want)
			}
		}
	}
	for id, want := range map[string]bool{"AROAEXAMPLE:i-0bbbbbbbbbbbbbbbb-01": true, "i-0bbbbbbbbbbbbbbbb-01": true, "ann-01": false} {
		if got := may(t, jump, call{"ssmmessages:OpenDataChannel", account + "session/" + id, asInstance}); got != want {
			t.Errorf("open the data channel of %s: %v, want %v", id, got, want)
		}
	}
}

// A session that is started without a document is one with a shell of the whole
// host. IAM asks for the right to that document only where each statement that
// allows ssm:StartSession demands it (Systems Manager User Guide, "Start a session
// with a document by specifying the session documents in IAM policies").
func TestAJumpServerStartsSessionsWithItsDocumentOnly(t *testing.T) {
	jump := statements(t, "jump-server.json")
	allowed := 0
	for _, s := range jump {
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
	tagged := map[string]string{"ssm:resourceTag/jumpsuite": "docker-host", "ssm:SessionDocumentAccessCheck": "true"}
	unchecked := map[string]string{"ssm:resourceTag/jumpsuite": "docker-host", "ssm:SessionDocumentAccessCheck": "false"}
	foreign := map[string]string{"ssm:resourceTag/jumpsuite": "database", "ssm:SessionDocumentAccessCheck": "true"}
	for _, tt := range []struct {
		name, resource string
		context        map[string]string
		want           bool
	}{
		{"a host", instance + "i-0aaaaaaaaaaaaaaaa", tagged, true},
		{"the document", account + "document/jumpsuite-docker", tagged, true},
		{"a host, without the right to the document being asked for", instance + "i-0aaaaaaaaaaaaaaaa", unchecked, false},
		{"an instance with another tag", instance + "i-0aaaaaaaaaaaaaaaa", foreign, false},
		{"an instance without one", instance + "i-0aaaaaaaaaaaaaaaa", nil, false},
		{"a shell", account + "document/SSM-SessionManagerRunShell", tagged, false},
		{"any port", "arn:aws:ssm:eu-central-1::document/AWS-StartPortForwardingSession", tagged, false},
		{"another document of the account's", account + "document/jumpsuite-docker-2", tagged, false},
		{"a task, by ECS Exec", "arn:aws:ecs:eu-central-1:123456789012:task/prod/0123", tagged, false},
		{"a machine that is no instance", account + "managed-instance/mi-0123456789abcdef0", tagged, false},
	} {
		if got := may(t, jump, call{"ssm:StartSession", tt.resource, tt.context}); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
