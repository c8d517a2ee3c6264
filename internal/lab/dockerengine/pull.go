package dockerengine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	dockerregistry "github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"

	"jumpsuite/internal/lab/rootfs"
	"jumpsuite/internal/lab/world"
)

// agentError is an error with the name that the ECS agent gives it, in its
// words (agent/dockerclient/dockerapi/errors.go).
type agentError struct {
	name string
	err  error
}

func (e *agentError) Error() string {
	const daemon = "Error response from daemon: "
	return e.name + ": " + daemon + strings.TrimPrefix(e.err.Error(), daemon)
}

func (e *agentError) Unwrap() error { return e.err }

// pullRetries is about how long the agent's five tries of a pull take, in lab
// time (agent/engine/docker_task_engine.go: 1.1 s and more between two).
const pullRetries = 10 * time.Second

// pulled is an image on the engine.
type pulled struct {
	reference string // as the task definition has it
	exact     string // by digest
	digest    string
	behaviour world.Image
}

// tag makes the reference mean this image, as a pull of it would have done.
func (p pulled) tag(ctx context.Context, docker *client.Client) error {
	if strings.Contains(p.reference, "@") {
		return nil
	}
	return docker.ImageTag(ctx, p.exact, p.reference)
}

// name is what a container is made from.
func (p pulled) name() string {
	if strings.Contains(p.reference, "@") {
		return p.exact
	}
	return p.reference
}

// pull is a pull that somebody began. Done is closed when err is set.
type pull struct {
	done chan struct{}
	err  error
}

// pullFor pulls the image of a container. An error is in the agent's words.
//
// As with ECS_IMAGE_PULL_BEHAVIOR=default, a host that has the image starts it
// when it cannot be pulled. A host has the images of tasks that it began with.
func (e *Engine) pullFor(ctx context.Context, c *contained) error {
	p, err := e.fetch(ctx, c)
	if digest, cached := c.cachedDigest(); err != nil && cached && ctx.Err() == nil {
		p, err = e.cached(ctx, c.spec.Image, digest)
	}
	if err != nil {
		return e.giveUp(ctx, err)
	}
	c.image = p
	return nil
}

// giveUp is what comes of a pull that failed, after the agent's other tries.
func (e *Engine) giveUp(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		_ = e.Clock.Sleep(ctx, pullRetries) // who cancels it does not want the error
	}
	return &agentError{name: "CannotPullContainerError", err: err}
}

// fetch pulls the image that ECS resolved for a container, or else the one
// that its reference names now.
func (e *Engine) fetch(ctx context.Context, c *contained) (pulled, error) {
	named, err := reference.ParseDockerRef(c.spec.Image)
	if err != nil {
		return pulled{}, err
	}
	repository, wanted := reference.TrimNamed(named).String(), c.spec.Image
	if c.spec.Digest != "" {
		wanted = repository + "@" + c.spec.Digest
	}
	digest, behaviour, err := e.Images.Resolve(wanted)
	if err != nil {
		return pulled{}, err
	}
	if behaviour, err = behaviour.For(c.task.Host.Arch); err != nil {
		return pulled{}, err
	}
	e.remember(digest, behaviour)
	p := pulled{reference: c.spec.Image, exact: repository + "@" + digest, digest: digest, behaviour: behaviour}
	if err := e.Clock.Sleep(ctx, time.Duration(behaviour.Pull)); err != nil {
		return p, err
	}
	return p, e.pull(ctx, p.exact)
}

func (e *Engine) remember(digest string, behaviour world.Image) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen[digest] = behaviour
}

// cached is an image that a host has and no registry need have. It is played
// by one that is made here; if the registry had it before, it behaves the same.
func (e *Engine) cached(ctx context.Context, ref, digest string) (pulled, error) {
	const stand = "jumpsuite.lab/cached:latest"
	base, err := rootfs.Base()
	if err != nil {
		return pulled{}, err
	}
	from := image.ImportSource{Source: bytes.NewReader(base), SourceName: "-"}
	done, err := e.docker.ImageImport(ctx, from, stand, image.ImportOptions{})
	if err != nil {
		return pulled{}, err
	}
	defer done.Close()
	if _, err := io.Copy(io.Discard, done); err != nil {
		return pulled{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return pulled{reference: ref, exact: stand, digest: digest, behaviour: e.seen[digest]}, nil
}

// pull pulls an image by digest, unless the engine has it.
func (e *Engine) pull(ctx context.Context, exact string) error {
	e.mu.Lock()
	p, ok := e.pulls[exact]
	if !ok {
		p = &pull{done: make(chan struct{})}
		e.pulls[exact] = p
		e.work.Go(func() { e.begin(p, exact) })
	}
	e.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin pulls for all who wait for it. A failure is forgotten, so that the
// next one tries again.
func (e *Engine) begin(p *pull, exact string) {
	defer close(p.done)
	if p.err = e.download(exact); p.err != nil {
		e.mu.Lock()
		delete(e.pulls, exact)
		e.mu.Unlock()
	}
}

func (e *Engine) download(exact string) error {
	auth, err := e.auth(exact)
	if err != nil {
		return err
	}
	progress, err := e.docker.ImagePull(e.ctx, exact, image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return err
	}
	defer progress.Close()
	for lines := json.NewDecoder(progress); ; {
		var line struct{ Error string }
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
	}
}

// auth is the login for an image's registry, as the Engine API wants it. The
// agent asks for a new one for each pull, too.
func (e *Engine) auth(exact string) (string, error) {
	host, _, _ := strings.Cut(exact, "/")
	if e.Login == nil {
		return "", nil
	}
	user, password := e.Login(host)
	if user == "" {
		return "", nil
	}
	return dockerregistry.EncodeAuthConfig(dockerregistry.AuthConfig{Username: user, Password: password, ServerAddress: host})
}

// serveRegistry serves Config.Registry inside the engine's network, where all
// its names lead to. Docker Hub is asked as a mirror.
func (e *Engine) serveRegistry() error {
	l, err := e.daemon.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		return err
	}
	e.registry = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "127.0.0.1" {
			r.Host = "docker.io"
		}
		e.Registry.ServeHTTP(w, r)
	})}
	e.work.Go(func() { _ = e.registry.Serve(l) }) // until Close
	return nil
}
