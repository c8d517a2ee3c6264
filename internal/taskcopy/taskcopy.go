// Package taskcopy says how a container of an ECS task is run once more by hand,
// with a shell in place of its entrypoint: what of the task the copy has, and
// what it cannot have. It runs nothing.
//
// A copy is what `docker run` makes on a host where the policy caps it: it has the
// image that the task really ran, its environment, working directory and, where
// that is one of docker's, its network. It has neither what ECS's agent puts
// into a container (secrets, role, metadata) nor what a run may not ask for.
package taskcopy

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
)

// DefaultShell is in most images.
const DefaultShell = "sh"

// Copy is a container of a task, as it can be run once more.
type Copy struct {
	Image   string // by digest, where ECS knows it
	Pinned  bool   // it does
	Network string // as docker run takes it; empty: docker's default, a bridge
	WorkDir string // empty: the image's
	// Env is the environment of the task definition, a NAME=VALUE each, as a file
	// of docker's --env-file can hold it.
	Env []string
	// Differs says, in words, what the task has and the copy has not. Words of the
	// task definition are in it: they are not fit for a terminal as they are.
	Differs []string
}

// Of is a copy of a container of a task of that definition.
func Of(def types.TaskDefinition, c ecsstatus.Container) (Copy, error) {
	for _, d := range def.ContainerDefinitions {
		if aws.ToString(d.Name) == c.Name {
			return of(def, d, c), nil
		}
	}
	return Copy{}, fmt.Errorf("task definition %s:%d has no container %q", aws.ToString(def.Family), def.Revision, c.Name)
}

func of(def types.TaskDefinition, d types.ContainerDefinition, c ecsstatus.Container) Copy {
	out := Copy{WorkDir: aws.ToString(d.WorkingDirectory)}
	out.Image, out.Pinned = image(c)
	if !out.Pinned {
		out.differ("ECS does not say which image %s was: the name may stand for another one by now", c.Image)
	}
	out.environment(d)
	out.network(def)
	out.without(def, d)
	return out
}

// image is the image that a container really ran.
func image(c ecsstatus.Container) (name string, pinned bool) {
	if c.Digest == "" {
		return c.Image, false
	}
	name, _, _ = strings.Cut(c.Image, "@")
	if slash, colon := strings.LastIndexByte(name, '/'), strings.LastIndexByte(name, ':'); colon > slash {
		name = name[:colon] // Docker ignores a tag beside a digest
	}
	return name + "@" + c.Digest, true
}

func (c *Copy) differ(format string, args ...any) {
	c.Differs = append(c.Differs, fmt.Sprintf(format, args...))
}

// environment takes the variables over. A file of docker's has a line for each:
// what does not fit into one is left out, and said.
func (c *Copy) environment(d types.ContainerDefinition) {
	var unfit []string
	for _, v := range d.Environment {
		name, value := aws.ToString(v.Name), aws.ToString(v.Value)
		if !fitsLine(name, value) {
			unfit = append(unfit, name)
			continue
		}
		c.Env = append(c.Env, name+"="+value)
	}
	if len(unfit) > 0 {
		c.differ("no variable %s: more than a line, or no name that docker takes", strings.Join(unfit, ", "))
	}
	if len(d.EnvironmentFiles) > 0 {
		c.differ("no variables from its environment files, which are in S3")
	}
	if names := secrets(d); len(names) > 0 {
		c.differ("no secrets (%s): ECS reads them with a role that a copy does not have", strings.Join(names, ", "))
	}
}

// fitsLine reports whether a variable can be a line of a file for docker's
// --env-file: it skips lines that begin with #, takes white space off a line's
// beginning and a carriage return off its end, and reads no more than 64 KiB
// (github.com/docker/cli/pkg/kvfile).
func fitsLine(name, value string) bool {
	const longest = 60_000
	return name != "" && name[0] != '#' && !strings.ContainsFunc(name, unicode.IsSpace) && !strings.ContainsAny(name, "=\x00") &&
		!strings.ContainsAny(value, "\r\n\x00") && utf8.ValidString(name+value) && len(name)+len(value) < longest
}

func secrets(d types.ContainerDefinition) (names []string) {
	for _, s := range d.Secrets {
		names = append(names, aws.ToString(s.Name))
	}
	return names
}

// network takes over what a run may ask for.
func (c *Copy) network(def types.TaskDefinition) {
	switch def.NetworkMode {
	case types.NetworkModeNone:
		c.Network = "none"
	case types.NetworkModeHost:
		c.differ("not the host's network: the copy is behind it, in docker's bridge network")
	case types.NetworkModeAwsvpc:
		c.differ("not the task's network interface: the copy is in docker's bridge network, and its connections come from the host, with the host's security groups")
	}
}

// without says what else is left out.
func (c *Copy) without(def types.TaskDefinition, d types.ContainerDefinition) {
	if aws.ToString(def.TaskRoleArn) != "" {
		c.differ("no task role")
	}
	if user := aws.ToString(d.User); user != "" {
		c.differ("the image's own user, not %s", user)
	}
	var mounted []string
	for _, m := range d.MountPoints {
		mounted = append(mounted, aws.ToString(m.ContainerPath))
	}
	if len(mounted) > 0 {
		c.differ("nothing is mounted at %s", strings.Join(mounted, ", "))
	}
	if len(d.VolumesFrom) > 0 {
		c.differ("no volumes of other containers")
	}
	if len(d.Links) > 0 {
		c.differ("no links to %s", strings.Join(d.Links, ", "))
	}
	if len(d.PortMappings) > 0 {
		c.differ("no port of the host leads to it")
	}
}

// Run is the copy's docker run: arguments after `docker -H HOST`. envFile is where
// the CLI reads Env; without one, it is empty. terminal is whether there is one.
func (c Copy) Run(shell, envFile string, terminal bool) []string {
	args := []string{"run", "--interactive"}
	if terminal {
		args = append(args, "--tty")
	}
	args = append(args, "--rm", "--entrypoint="+shell)
	for _, o := range []struct{ name, value string }{{"--env-file", envFile}, {"--network", c.Network}, {"--workdir", c.WorkDir}} {
		if o.value != "" {
			args = append(args, o.name+"="+o.value)
		}
	}
	return append(args, "--", c.Image)
}
