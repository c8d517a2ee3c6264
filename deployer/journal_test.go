package deployer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

const serviceARN = "arn:aws:ecs:eu-central-1:123456789012:service/prod/web"

func tagged(tags ...types.Tag) *ecsstatus.Service {
	return ecsstatus.NewService(types.Service{ServiceName: aws.String("web"), ServiceArn: aws.String(serviceARN), Status: aws.String("ACTIVE"),
		TaskDefinition: aws.String("arn:aws:ecs:eu-central-1:123456789012:task-definition/web:2"), Tags: tags})
}

func fullJournal() Journal {
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	return Journal{
		Attempt: "0123456789abcdef0123456789abcdef", State: StateRollingBack, Changed: at.Add(time.Minute), Holder: "abcdef012345", Left: true,
		ContainerType: "web", By: "dev1", Host: "jump-1", Began: at, Reason: "ticket 7: it is slow",
		Image: "123456789012.dkr.ecr.eu-central-1.amazonaws.com/web:2", Container: "web", Digest: "sha256:" + strings.Repeat("a", 64), Strategy: Replacing, MaxFailures: 3,
		Seconds: 1200, WaitDrained: true, OnInterrupt: RollBack,
		Before:   Before{Definition: "web:1", Deployment: "ecs-svc/1", Desired: 4, MinimumHealthy: 50, Maximum: 150, Breaker: Breaker{Enabled: true, Rollback: true, Type: "COUNT", Value: 7}},
		Percents: true, Back: "web:1", Definition: "web:2", Deployment: "ecs-svc/2", Return: "ecs-svc/3", Why: "3 tasks failed",
	}
}

func TestAJournalComesBackFromItsTags(t *testing.T) {
	want := fullJournal()
	got, ok := JournalOf(tagged(want.tags()...))
	if !ok || got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	bare := Journal{Attempt: "a", State: StateBegun, Holder: "h", Strategy: Rolling, ContainerType: "web", By: "-", Host: "-", Changed: want.Changed, Began: want.Began}
	if got, ok := JournalOf(tagged(bare.tags()...)); !ok || got != bare {
		t.Errorf("got  %+v\nwant %+v", got, bare)
	}
}

func TestWhatIsWishedOfADeploymentFitsIntoItsTag(t *testing.T) {
	j := fullJournal()
	j.Deployment, j.Return = "ecs-svc/9223372036854775807", "ecs-svc/9223372036854775807"
	j.MaxFailures, j.Seconds = 99999, 7*24*60*60
	if n := len(j.how()); n > mostTagValue {
		t.Errorf("%d characters, and a tag has %d: %s", n, mostTagValue, j.how())
	}
}

// A new journal takes the place of the whole old one.
func TestAJournalLeavesNothingOfTheOneBefore(t *testing.T) {
	if got, want := len(Journal{}.tags()), len(journalTags); got != want {
		t.Errorf("%d tags, want all %d each time", got, want)
	}
}

// What AWS takes: Amazon ECS Developer Guide, "Tag restrictions".
var takenByAWS = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

func TestWhateverPeopleWriteFitsIntoTags(t *testing.T) {
	for _, text := range []string{"", "a\x00b\xff\x1b[31m", strings.Repeat("ü", 300), "“quoted” (50%) & <more>; #1", "line\nbreak\ttab", strings.Repeat(" ", 300), "日本語 reason", "-", "aws: asked for it", " AwS:x"} {
		j := fullJournal()
		j.Reason, j.Why, j.Image, j.By, j.Host = text, text, text, text, text
		for _, tag := range j.tags() {
			key, value := aws.ToString(tag.Key), aws.ToString(tag.Value)
			if !takenByAWS.MatchString(value) || !utf8.ValidString(value) || utf8.RuneCountInString(value) > 256 || len(key) > 128 || value == "" || strings.HasPrefix(strings.ToLower(value), "aws:") {
				t.Errorf("%q: tag %s is %q", text, key, value)
			}
		}
		if got, ok := JournalOf(tagged(j.tags()...)); !ok || got.Back != "web:1" || got.Before != j.Before || got.Began != j.Began {
			t.Errorf("%q: %v %+v", text, ok, got)
		}
	}
}

func TestTagsThatSomeoneHasSpoiltPutNothingBack(t *testing.T) {
	for _, spoilt := range []string{tagBefore, tagHow, tagState, tagAttempt, tagBy} {
		var tags []types.Tag
		for _, tag := range fullJournal().tags() {
			if aws.ToString(tag.Key) == spoilt {
				tag.Value = aws.String("rubbish = = min=x")
			}
			tags = append(tags, tag)
		}
		j, ok := JournalOf(tagged(tags...))
		if ok && j.leftPercents(0, 100) && (j.Before.MinimumHealthy != 50 || j.Before.Maximum != 150) {
			t.Errorf("%s spoilt: would put %d and %d back", spoilt, j.Before.MinimumHealthy, j.Before.Maximum)
		}
	}
}

func TestTagsLeadBackToNoOtherFamily(t *testing.T) {
	for back, want := range map[string]string{"web:1": "web:1", "admin:1": "", "webb:1": "", "web": "web", "-": ""} {
		j := fullJournal()
		j.Back = back
		if got, _ := JournalOf(tagged(j.tags()...)); got.Back != want {
			t.Errorf("%s: back to %q, want %q", back, got.Back, want)
		}
	}
}

func TestRoomForAJournal(t *testing.T) {
	many := func(n int, prefix string) (tags []types.Tag) {
		for i := range n {
			tags = append(tags, types.Tag{Key: aws.String(fmt.Sprintf("%s%d", prefix, i)), Value: aws.String("x")})
		}
		return tags
	}
	old := tagged()
	old.ARN = "arn:aws:ecs:eu-central-1:123456789012:service/web"
	for _, tt := range []struct {
		name string
		s    *ecsstatus.Service
		j    Journal
		want string
	}{
		{"none", tagged(), Journal{}, ""},
		{"38 of its owner's", tagged(many(38, "k")...), Journal{}, ""},
		{"39 of its owner's", tagged(many(39, "k")...), Journal{}, "container type web has 39 tags: with the 12 of a deployment's journal these would be more than the 50 that AWS allows"},
		{"AWS's own do not count", tagged(many(45, "aws:x")...), Journal{}, ""},
		{"an older journal does not count", tagged(append(many(38, "k"), fullJournal().tags()...)...), Journal{}, ""},
		{"an ARN of the old format", old, Journal{}, "container type web has an ARN of the old format"},
		{"a long family", tagged(), Journal{Back: strings.Repeat("f", 255) + ":1"}, "is too long for a tag"},
	} {
		err := tagRoom(tt.s, tt.j)
		if tt.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != cli.ExitConfig {
			t.Errorf("%s: got %v, want %q and 78", tt.name, err, tt.want)
		}
	}
}

func TestJournalsAreKeptForTheirOwnerOnly(t *testing.T) {
	s := shelf{filepath.Join(t.TempDir(), "a", "b")}
	l, err := s.take(t.Context(), "one", "holder", "dev1", false)
	if err != nil {
		t.Fatal(err)
	}
	j := fullJournal()
	j.Attempt = "one"
	if err := s.save(j); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{s.path: 0o700, s.journal("one"): 0o600, s.lock("one"): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %o", path, st.Mode(), err, want)
		}
	}
	if got := s.journals(); len(got) != 1 || got[0] != j {
		t.Errorf("got %+v", got)
	}
	l.release(true)
	if got := s.attempts(); len(got) != 0 {
		t.Errorf("locks %q are left", got)
	}
	if err := os.Chmod(s.path, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := s.take(t.Context(), "two", "holder", "dev1", false); err == nil || !strings.Contains(err.Error(), "is no folder that only its owner may write") {
		t.Errorf("a folder that all may write: %v", err)
	}
}

func TestOldJournalsAreRemovedAndOpenOnesKept(t *testing.T) {
	s := shelf{t.TempDir()}
	for n := range kept + 5 {
		j := Journal{Attempt: fmt.Sprint(n), State: StateDeployed, Began: noon.Add(time.Duration(n) * time.Minute)}
		if n == 0 {
			j.State = StateUpdated
		}
		if err := s.save(j); err != nil {
			t.Fatal(err)
		}
	}
	s.prune()
	left := s.journals()
	if len(left) != kept+1 || left[0].Attempt != fmt.Sprint(kept+4) || left[kept].Attempt != "0" {
		t.Errorf("%d are left, from %s to %s", len(left), left[0].Attempt, left[len(left)-1].Attempt)
	}
}

func TestOneProcessOfAMachineIsAtAContainerType(t *testing.T) {
	s := shelf{t.TempDir()}
	first, err := s.take(t.Context(), "one", "holder1", "dev1 (process 7)", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, attempt := range []string{"two", "one"} {
		_, err = s.take(t.Context(), attempt, "holder2", "dev2", false)
		if held, ok := errors.AsType[*heldError](err); !ok || held.who != "dev1 (process 7)" {
			t.Errorf("%s: got %v, want who is at it", attempt, err)
		}
	}
	second, err := s.take(t.Context(), "two", "holder2", "dev2", true)
	if err != nil {
		t.Errorf("over the other one: %v", err)
	}
	if alive, known := s.lives(t.Context(), "one", "holder1"); !alive || !known {
		t.Errorf("the first: alive %v, known %v", alive, known)
	}
	if _, known := s.lives(t.Context(), "one", "another"); known {
		t.Error("another holder of that attempt is known")
	}
	second.release(true)
	first.release(false) // as the kernel does when it is killed
	if alive, known := s.lives(t.Context(), "one", "holder1"); alive || !known {
		t.Errorf("dead: alive %v, known %v", alive, known)
	}
	third, err := s.take(t.Context(), "three", "holder3", "dev3", false)
	if err != nil {
		t.Fatal(err)
	}
	third.release(true)
}

// A stopped process that looks at the locks does not hang the others for ever.
func TestTheDoorIsNotWaitedForWithoutEnd(t *testing.T) {
	s := shelf{t.TempDir()}
	door, err := s.door(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.take(ctx, "one", "h", "dev1", false); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A read may be older than the one before: a journal that had ended before this
// process began is nobody's who began at the same time.
func TestAJournalThatHadEndedIsNoRivals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state State
		after time.Duration
		want  bool
	}{
		{"ended before", StateDeployed, -2 * time.Second, false},
		{"ended since", StateDeployed, time.Second, true},
		{"begun before", StateBegun, -2 * time.Second, true},
	} {
		j := fullJournal()
		j.State, j.Changed = tt.state, noon.Add(tt.after)
		k := &keeper{j: Journal{Holder: "mine"}, former: "older", since: noon}
		if _, got := k.theirs(tagged(j.tags()...)); got != tt.want {
			t.Errorf("%s: theirs %v, want %v", tt.name, got, tt.want)
		}
	}
}
