package taskcopy

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// one is a definition with a container web.
func one(change func(*types.TaskDefinition, *types.ContainerDefinition)) types.TaskDefinition {
	def := types.TaskDefinition{Family: aws.String("web"), Revision: 7}
	c := types.ContainerDefinition{Name: aws.String("web")}
	change(&def, &c)
	def.ContainerDefinitions = []types.ContainerDefinition{{Name: aws.String("sidecar")}, c}
	return def
}

func TestTheImageIsTheOneThatTheTaskRan(t *testing.T) {
	for _, tt := range []struct {
		image, digest, want string
		pinned              bool
	}{
		{"registry.test:5000/team/web:1", digest, "registry.test:5000/team/web@" + digest, true},
		{"registry.test:5000/team/web", digest, "registry.test:5000/team/web@" + digest, true},
		{"web:1@sha256:other", digest, "web@" + digest, true},
		{"web:1", "", "web:1", false},
	} {
		c, err := Of(one(func(*types.TaskDefinition, *types.ContainerDefinition) {}), ecsstatus.Container{Name: "web", Image: tt.image, Digest: tt.digest})
		if err != nil || c.Image != tt.want || c.Pinned != tt.pinned || c.Pinned != (len(c.Differs) == 0) {
			t.Errorf("%s %s: got %+v, %v; want %s", tt.image, tt.digest, c, err, tt.want)
		}
	}
}

func TestWhatTheCopyCannotHaveIsSaid(t *testing.T) {
	variable := func(name, value string) types.KeyValuePair {
		return types.KeyValuePair{Name: &name, Value: &value}
	}
	for _, tt := range []struct {
		name   string
		change func(*types.TaskDefinition, *types.ContainerDefinition)
		want   string // empty: there is nothing to say
	}{
		{"bridge", func(d *types.TaskDefinition, _ *types.ContainerDefinition) { d.NetworkMode = types.NetworkModeBridge }, ""},
		{"no network", func(d *types.TaskDefinition, _ *types.ContainerDefinition) { d.NetworkMode = types.NetworkModeNone }, ""},
		{"the host's network", func(d *types.TaskDefinition, _ *types.ContainerDefinition) { d.NetworkMode = types.NetworkModeHost }, "not the host's network"},
		{"a network interface of its own", func(d *types.TaskDefinition, _ *types.ContainerDefinition) {
			d.NetworkMode = types.NetworkModeAwsvpc
		}, "the host's security groups"},
		{"a role", func(d *types.TaskDefinition, _ *types.ContainerDefinition) { d.TaskRoleArn = aws.String("arn") }, "no task role"},
		{"secrets", func(_ *types.TaskDefinition, c *types.ContainerDefinition) {
			c.Secrets = []types.Secret{{Name: aws.String("A"), ValueFrom: aws.String("arn:a")}, {Name: aws.String("B"), ValueFrom: aws.String("arn:b")}}
		}, "no secrets (A, B)"},
		{"environment files", func(_ *types.TaskDefinition, c *types.ContainerDefinition) {
			c.EnvironmentFiles = []types.EnvironmentFile{{}}
		}, "environment files"},
		{"a user", func(_ *types.TaskDefinition, c *types.ContainerDefinition) { c.User = aws.String("app") }, "the image's own user, not app"},
		{"mounts", func(_ *types.TaskDefinition, c *types.ContainerDefinition) {
			c.MountPoints = []types.MountPoint{{ContainerPath: aws.String("/data")}}
		}, "nothing is mounted at /data"},
		{"volumes of others", func(_ *types.TaskDefinition, c *types.ContainerDefinition) { c.VolumesFrom = []types.VolumeFrom{{}} }, "no volumes of other containers"},
		{"links", func(_ *types.TaskDefinition, c *types.ContainerDefinition) { c.Links = []string{"db"} }, "no links to db"},
		{"ports", func(_ *types.TaskDefinition, c *types.ContainerDefinition) { c.PortMappings = []types.PortMapping{{}} }, "no port of the host"},
		{"a variable of two lines", func(_ *types.TaskDefinition, c *types.ContainerDefinition) {
			c.Environment = []types.KeyValuePair{variable("KEY", "a\nLD_PRELOAD=/x")}
		}, "no variable KEY"},
		{"a variable that would be a comment", func(_ *types.TaskDefinition, c *types.ContainerDefinition) {
			c.Environment = []types.KeyValuePair{variable("#A", "b")}
		}, "no variable #A"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Of(one(tt.change), ecsstatus.Container{Name: "web", Image: "web:1", Digest: digest})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(c.Differs, "; "); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) || len(c.Env) > 0 {
				t.Errorf("got %q and %q, want %q", got, c.Env, tt.want)
			}
		})
	}
}

func TestTheCommandLineHasNoValueOfAVariable(t *testing.T) {
	name, value := "DB_PASSWORD", "hunter2"
	c, err := Of(one(func(d *types.TaskDefinition, c *types.ContainerDefinition) {
		d.NetworkMode, c.WorkingDirectory = types.NetworkModeNone, aws.String("/srv")
		c.Environment = []types.KeyValuePair{{Name: &name, Value: &value}}
	}), ecsstatus.Container{Name: "web", Image: "--privileged", Digest: ""})
	if err != nil || !slices.Equal(c.Env, []string{"DB_PASSWORD=hunter2"}) {
		t.Fatal(c, err)
	}
	want := []string{"run", "--interactive", "--tty", "--rm", "--entrypoint=sh", "--env-file=/proc/self/fd/9", "--network=none", "--workdir=/srv", "--", "--privileged"}
	if got := c.Run("sh", "/proc/self/fd/9", true); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	want = []string{"run", "--interactive", "--rm", "--entrypoint=bash", "--", "web"}
	if got := (Copy{Image: "web"}).Run("bash", "", false); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestAContainerThatTheDefinitionDoesNotHaveIsAnError(t *testing.T) {
	_, err := Of(one(func(*types.TaskDefinition, *types.ContainerDefinition) {}), ecsstatus.Container{Name: "nosuch"})
	if err == nil || err.Error() != `task definition web:7 has no container "nosuch"` {
		t.Errorf("got %v", err)
	}
}
