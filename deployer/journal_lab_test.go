package deployer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/deployer"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab/world"
)

func TestWithoutRoomForItsJournalNothingIsBegun(t *testing.T) {
	p := play(t, idleWorld)
	p.d.Folder = filepath.Join(t.TempDir(), "file", "below")
	if err := os.WriteFile(filepath.Dir(p.d.Folder), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := p.deploy(t.Context(), "web:2")
	if cli.ExitCode(err) != cli.ExitAudit || !strings.Contains(err.Error(), "keep the journal of the deployment: ") {
		t.Errorf("got %v (code %d), want 74", err, cli.ExitCode(err))
	}
	if n := p.count("TagResource") + p.count("RegisterTaskDefinition") + p.count("UpdateService"); n != 0 {
		t.Errorf("%d changes", n)
	}
}

// Tags that AWS does not take, whether it says so or not: nothing is begun.
func TestWithoutItsTagsNothingIsBegun(t *testing.T) {
	p := play(t, idleWorld)
	p.lab.AddFault(world.Fault{Operation: "TagResource", Error: "denied"})
	err := p.deploy(t.Context(), "web:2")
	if cli.ExitCode(err) != cli.ExitUnavailable || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("got %v (code %d), want 69", err, cli.ExitCode(err))
	}
	if n := p.count("RegisterTaskDefinition") + p.count("UpdateService"); n != 0 {
		t.Errorf("%d changes", n)
	}
}

// Once the service is updated, the journal waits for AWS, and AWS not for it.
func TestTheJournalHoldsNothingUpThatIsUnderWay(t *testing.T) {
	p := play(t, idleWorld)
	p.lab.AddFault(world.Fault{Operation: "TagResource", Error: "server", Skip: 1, Times: 2})
	if err := p.deploy(t.Context(), "web:2"); err != nil {
		t.Fatal(err)
	}
	p.ended(deployer.StateDeployed)
}

// A disk that is full when the roll-back is due: the tags have it all the same.
func TestARollBackGoesOnThoughItsFileCannotBeWritten(t *testing.T) {
	p := play(t, strings.Replace(busyWorld, `tags: ["1", "2"]}`, `tags: ["1"]}, {repository: web, tags: ["2"], exit: 1, after: 2s}`, 1))
	p.d.Folder = filepath.Join(t.TempDir(), "deployments")
	p.d.Tell = func(e deployer.Event) {
		if e.Kind != deployer.Updated {
			return
		}
		if err := errors.Join(os.RemoveAll(p.d.Folder), os.WriteFile(p.d.Folder, nil, 0o600)); err != nil {
			t.Error(err)
		}
	}
	if err := p.deploy(t.Context(), "web:2"); cli.ExitCode(err) != cli.ExitRolledBack {
		t.Errorf("got %v, want 75", err)
	}
	p.ended(deployer.StateRolledBack)
}

// ended checks what the service's tags say.
func (p *theatre) ended(want deployer.State) {
	p.t.Helper()
	list, _, err := p.d.Deployments(p.t.Context(), "web", nil)
	i := slices.IndexFunc(list, func(e deployer.Entry) bool { return e.Holder != "" }) // the others are ECS's history
	if err != nil || i < 0 || list[i].State != want {
		p.t.Errorf("%+v, %v; want %s", list, err, want)
	}
}

// Two jump servers at the same moment: whichever wins, there is one deployment
// for each that says so, and nobody's ends without a name.
func TestOfTwoJumpServersThatBeginTogetherOneGivesWay(t *testing.T) {
	p := play(t, strings.Replace(busyWorld, `["1", "2"]`, `["1", "2", "3"]`, 1))
	p.d.Host = "jump-1"
	second := deployer.New(p.cfg, "prod")
	second.Interval, second.Host = p.d.Interval, "jump-2"
	image, err := deployer.ParseImage("web:3")
	if err != nil {
		t.Fatal(err)
	}
	// Both have seen that nothing runs before either has written.
	var ready sync.WaitGroup
	ready.Add(2)
	meet := func(e deployer.Event) {
		if e.Kind == deployer.Planned {
			ready.Done()
			ready.Wait()
		}
	}
	p.d.Tell, second.Tell = meet, meet
	var other error
	var wg sync.WaitGroup
	wg.Go(func() {
		other = second.Deploy(t.Context(), deployer.Request{ContainerType: "web", Image: image, Timeout: 24 * time.Hour})
	})
	first := p.deploy(t.Context(), "web:2")
	wg.Wait()
	codes := map[int]int{}
	codes[cli.ExitCode(first)]++
	codes[cli.ExitCode(other)]++
	if codes[cli.ExitOK] > 1 || codes[cli.ExitOK]+codes[cli.ExitBusy] != 2 {
		t.Errorf("they ended with %v and %v, want one deployed and one 73, or both 73", first, other)
	}
	if n := p.count("UpdateService"); n > 2 {
		t.Errorf("%d UpdateService", n)
	}
}

// Of two who updated the service within milliseconds the other one's journal may be in the
// tags, and its deployment, which came first, gone already: ours is the last, and is rolled
// back when it fails.
func TestTheJournalOfWhoCameFirstDoesNotKeepTheLastFromRollingBack(t *testing.T) {
	p := play(t, strings.Replace(busyWorld, `tags: ["1", "2"]}`, `tags: ["1"]}, {repository: web, tags: ["2"], exit: 1, after: 2s}`, 1))
	api := ecs.NewFromConfig(p.cfg)
	p.d.Tell = func(e deployer.Event) {
		p.events = append(p.events, e)
		if e.Kind != deployer.Updated {
			return
		}
		var tags []types.Tag
		for key, value := range map[string]string{"deployment": strings.Repeat("0a", 16), "state": "updated " + e.Time.Format(time.RFC3339) + " 0123456789ab",
			"to": "web:9", "how": "strategy=rolling deployment=ecs-svc/1"} {
			tags = append(tags, types.Tag{Key: aws.String("jumpsuite:" + key), Value: aws.String(value)})
		}
		if _, err := api.TagResource(t.Context(), &ecs.TagResourceInput{ResourceArn: aws.String("arn:aws:ecs:eu-central-1:123456789012:service/prod/web"), Tags: tags}); err != nil {
			t.Error(err)
		}
	}
	if err := p.deploy(t.Context(), "web:2"); cli.ExitCode(err) != cli.ExitRolledBack {
		t.Errorf("got %v, want 75", err)
	}
	p.ended(deployer.StateRolledBack)
}

// Who has seen nothing of our deployment before he wrote his journal over ours gives way, as
// it is there, or has died: what failed is rolled back by us or by nobody.
func TestAJournalThatNothingCameOfDoesNotKeepAFailureFromBeingRolledBack(t *testing.T) {
	p := play(t, strings.Replace(busyWorld, `tags: ["1", "2"]}`, `tags: ["1"]}, {repository: web, tags: ["2"], exit: 1, after: 2s}`, 1))
	api := ecs.NewFromConfig(p.cfg)
	p.d.Tell = func(e deployer.Event) {
		p.events = append(p.events, e)
		if e.Kind != deployer.Updated {
			return
		}
		var tags []types.Tag
		for key, value := range map[string]string{"deployment": strings.Repeat("0a", 16), "state": "begun " + e.Time.Format(time.RFC3339) + " 0123456789ab",
			"to": "-", "how": "strategy=rolling"} {
			tags = append(tags, types.Tag{Key: aws.String("jumpsuite:" + key), Value: aws.String(value)})
		}
		if _, err := api.TagResource(t.Context(), &ecs.TagResourceInput{ResourceArn: aws.String("arn:aws:ecs:eu-central-1:123456789012:service/prod/web"), Tags: tags}); err != nil {
			t.Error(err)
		}
	}
	if err := p.deploy(t.Context(), "web:2"); cli.ExitCode(err) != cli.ExitRolledBack {
		t.Errorf("got %v, want 75", err)
	}
	p.ended(deployer.StateRolledBack)
}

// What has failed is never taken for what a roll-back has registered, though the two say the
// same: of a definition without room for a mark, the content is all there is to go by.
func TestWhatHasFailedIsNotWhatIsGoneBackTo(t *testing.T) {
	var tags []string
	for n := range 50 {
		tags = append(tags, fmt.Sprintf("t%d: a", n))
	}
	p := play(t, strings.Replace(loneWorld, `image: "web:1"`, `image: "web:1", tags: {`+strings.Join(tags, ", ")+`}`, 1))
	ctx, cancel := context.WithCancelCause(t.Context())
	p.d.Tell = func(e deployer.Event) {
		if e.Kind != deployer.Updated {
			return
		}
		if _, err := p.lab.ECS.DeregisterTaskDefinition(t.Context(), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: aws.String("web:1")}); err != nil {
			t.Error(err)
		}
		cancel(errors.New("interrupted"))
	}
	image, err := deployer.ParseImage("web:1")
	if err != nil {
		t.Fatal(err)
	}
	err = p.d.Deploy(ctx, deployer.Request{ContainerType: "web", Image: image, Force: true, Strategy: deployer.Replacing, OnInterrupt: deployer.RollBack})
	if cli.ExitCode(err) != cli.ExitRolledBack || !strings.HasSuffix(err.Error(), "rolled back to web:3") {
		t.Errorf("got %v, want 75 with web:3", err)
	}
}

func TestAHeldContainerTypeIsTakenOverWhenItsProcessIsSilent(t *testing.T) {
	p := play(t, busyWorld)
	p.d.Host = "jump-1"
	second := deployer.New(p.cfg, "prod")
	second.Interval, second.Host = p.d.Interval, "jump-2"
	began := make(chan struct{})
	gone := make(chan struct{})
	p.d.Tell = func(e deployer.Event) {
		if e.Kind == deployer.Updated {
			close(began)
			<-gone // stopped, as by SIGSTOP: it gives no sign of life
		}
	}
	var first error
	var wg sync.WaitGroup
	wg.Go(func() { first = p.deploy(t.Context(), "web:2") })
	<-began
	var told []deployer.Kind
	second.Tell = func(e deployer.Event) { told = append(told, e.Kind) }
	if err := second.Wait(t.Context(), deployer.Pickup{ContainerType: "web", Timeout: 24 * time.Hour}); err != nil {
		t.Errorf("the second: %v", err)
	}
	close(gone)
	wg.Wait()
	if n := strings.Count(strings.Join(kinds(told), " "), string(deployer.PickedUp)); n != 2 {
		t.Errorf("told %v, want that it watches, and then that it takes over", told)
	}
	if cli.ExitCode(first) != cli.ExitBusy {
		t.Errorf("the first, awake again, ended with %v, want 73", first)
	}
	if n := p.count("UpdateService"); n != 1 {
		t.Errorf("%d UpdateService", n)
	}
}

func kinds(list []deployer.Kind) (out []string) {
	for _, k := range list {
		out = append(out, string(k))
	}
	return out
}

// Two jump servers that begin within milliseconds: each finds its own journal in the
// tags, and updates the service. The deployment that ECS has last is followed by its
// process, even if the other one's journal is the last one; the other gives way.
func TestOfTwoThatBothUpdatedTheServiceOneIsFollowed(t *testing.T) {
	p := play(t, strings.Replace(busyWorld, `["1", "2"]`, `["1", "2", "3"]`, 1))
	looked, written, began, followed, over := make(chan bool), make(chan bool), make(chan bool), make(chan bool), make(chan bool)
	cfg := p.cfg.Copy()
	cfg.HTTPClient = before{p.cfg.HTTPClient, "TagResource", "updated", sync.OnceFunc(func() {
		close(began)
		<-followed
	})}
	second := deployer.New(cfg, "prod")
	second.Interval = p.d.Interval
	image, err := deployer.ParseImage("web:3")
	if err != nil {
		t.Fatal(err)
	}
	var other error
	second.Record = func(_ *deployer.Plan, step string) error {
		if strings.HasPrefix(step, "TagResource: ") { // its preflight has found nobody
			close(looked)
			<-written
		}
		return nil
	}
	p.d.Tell = func(e deployer.Event) {
		if e.Kind == deployer.Updated {
			close(followed)
		}
	}
	p.d.Record = func(_ *deployer.Plan, step string) error {
		if strings.HasPrefix(step, "UpdateService: web to ") { // it has just found that the journal is its own
			close(written)
			select {
			case <-began:
			case <-over:
			}
		}
		return nil
	}
	go func() {
		defer close(over)
		other = second.Deploy(t.Context(), deployer.Request{ContainerType: "web", Image: image})
	}()
	select {
	case <-looked:
	case <-over:
		t.Fatal(other)
	}
	if err := p.deploy(t.Context(), "web:2"); err != nil {
		t.Errorf("the one whose deployment was the last: %v", err)
	}
	if <-over; cli.ExitCode(other) != cli.ExitBusy || !strings.Contains(other.Error(), "was superseded") {
		t.Errorf("the other: %v, want 73", other)
	}
	if n := p.count("UpdateService"); n != 2 {
		t.Errorf("%d UpdateService, want 2: one each", n)
	}
	p.ended(deployer.StateDeployed)
}

// before is a client that does something before the first call of an operation with
// a text in its body.
type before struct {
	aws.HTTPClient
	operation, text string
	do              func()
}

func (b before) Do(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), "."+b.operation) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if strings.Contains(string(body), b.text) {
			b.do()
		}
	}
	return b.HTTPClient.Do(r)
}
