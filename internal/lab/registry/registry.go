// Package registry is the lab's container registry: it has a world's images, in
// the account's ECR and in other registries, and they are real ones: a layer
// with busybox and a layer with the behaviour that the world describes.
//
// The simulating engine asks it what a reference means (Resolve). A Docker
// Engine pulls from Handler, which is go-containerregistry's registry: an image
// HOST/REPOSITORY is there as /v2/HOST/REPOSITORY, and also as
// /v2/REPOSITORY when it is asked as HOST.
//
// With registry-login in its world, the account's ECR asks for the user name
// and password that GetAuthorizationToken hands out.
//
// The same world makes the same digests on the same machine.
package registry

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/world"
)

// Hub is the registry of references that name none.
const Hub = "docker.io"

// Registry has images. Its methods may be called from any goroutine.
type Registry struct {
	world   *world.World
	clock   *clock.Clock
	created time.Time
	served  http.Handler
	blobs   *blobs
	secret  []byte // of passwords

	mu           sync.Mutex
	repositories map[string]*Repository // by HOST/NAME
}

// Repository is a name and the images that are under it.
type Repository struct {
	Host, Name string
	CreatedAt  time.Time
	images     map[string]*Image // by digest
	tags       map[string]string // to digests
}

// Image is an image in a repository.
type Image struct {
	Digest    string
	Tags      []string // sorted; none is an untagged image
	PushedAt  time.Time
	Manifest  []byte
	MediaType string
	Size      int64 // bytes, as ECR says; not those of the layers
	Behaviour world.Image

	layers map[string]int64 // digests of config and layers, and their sizes
}

// New makes a registry with the images of a world that is complete.
func New(w *world.World, c *clock.Clock) (*Registry, error) {
	r := &Registry{world: w, clock: c, created: c.Now(), repositories: map[string]*Repository{}, blobs: newBlobs(), secret: make([]byte, 32)}
	rand.Read(r.secret)
	r.served = r.handler()
	for i, img := range w.Images {
		age := time.Duration(len(w.Images)-i) * time.Hour
		if err := r.push(img, r.created.Add(-age)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Push makes an image there, or moves its tags to it. Of one that is Missing
// only the repository is made.
func (r *Registry) Push(img world.Image) error { return r.push(img, r.clock.Now()) }

func (r *Registry) push(img world.Image, at time.Time) error {
	img.Complete()
	host := cmp.Or(img.Registry, r.world.ECR())
	if _, err := reference.WithName(host + "/" + img.Repository); err != nil {
		return fmt.Errorf("image %s/%s: %w", host, img.Repository, err)
	}
	if img.Missing {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.repository(host, img.Repository, at)
		return nil
	}
	entries, err := r.entries(img, at)
	if err != nil {
		return fmt.Errorf("make image %s: %w", img.Repository, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := r.repository(host, img.Repository, at)
	for i, entry := range entries {
		if have := repo.images[entry.Digest]; have != nil {
			entry.PushedAt = have.PushedAt
		}
		repo.images[entry.Digest] = entry
		var tags []string // those of a manifest list's parts: none
		if i == len(entries)-1 {
			tags = img.Tags
		}
		for _, tag := range tags {
			repo.tags[tag] = entry.Digest
		}
		if err := r.serve(repo, entry, tags); err != nil {
			return err
		}
	}
	return nil
}

// entries builds an image: one, or one for each platform and the manifest list
// after them.
func (r *Registry) entries(img world.Image, at time.Time) ([]*Image, error) {
	if len(img.Platforms) == 0 {
		made, err := build(img)
		if err != nil {
			return nil, err
		}
		one, err := r.entry(made, img, at)
		return []*Image{one}, err
	}
	var entries []*Image
	var parts []mutate.IndexAddendum
	for _, platform := range img.Platforms {
		part := img
		part.Arch, part.Platforms, part.Tags = platform, nil, nil
		made, err := build(part)
		if err != nil {
			return nil, err
		}
		one, err := r.entry(made, part, at)
		if err != nil {
			return nil, err
		}
		entries = append(entries, one)
		parts = append(parts, mutate.IndexAddendum{Add: made, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: platform}}})
	}
	list, err := listEntry(mutate.IndexMediaType(mutate.AppendManifests(empty.Index, parts...), types.DockerManifestList), img, at)
	return append(entries, list), err
}

// listEntry notes a manifest list, which has no layers of its own.
func listEntry(list v1.ImageIndex, img world.Image, at time.Time) (*Image, error) {
	manifest, err := list.RawManifest()
	if err != nil {
		return nil, err
	}
	digest, err := list.Digest()
	return &Image{Digest: digest.String(), PushedAt: at, Manifest: manifest, MediaType: string(types.DockerManifestList), Size: int64(img.Size) << 20, Behaviour: img}, err
}

// entry notes what a built image consists of.
func (r *Registry) entry(made v1.Image, img world.Image, at time.Time) (*Image, error) {
	manifest, err := made.RawManifest()
	if err != nil {
		return nil, err
	}
	digest, err := made.Digest()
	if err != nil {
		return nil, err
	}
	media, err := made.MediaType()
	if err != nil {
		return nil, err
	}
	layers, err := r.blobs.add(made)
	if err != nil {
		return nil, err
	}
	return &Image{
		Digest: digest.String(), PushedAt: at, Manifest: manifest, MediaType: string(media),
		Size: int64(img.Size) << 20, Behaviour: img, layers: layers,
	}, nil
}

// repository finds or makes a repository. The caller holds the lock.
func (r *Registry) repository(host, name string, at time.Time) *Repository {
	key := host + "/" + name
	if r.repositories[key] == nil {
		r.repositories[key] = &Repository{Host: host, Name: name, CreatedAt: at, images: map[string]*Image{}, tags: map[string]string{}}
	}
	return r.repositories[key]
}

// Delete removes an image, by its digest, or a tag; with its last tag the
// image goes too, as in ECR. ref is a whole reference, or REPOSITORY:TAG in the account's ECR.
func (r *Registry) Delete(ref string) error {
	named, err := reference.ParseNormalizedNamed(r.world.Reference(ref))
	if err != nil {
		return fmt.Errorf("image %q: %w", ref, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	repo, img := r.find(named)
	if img == nil {
		return fmt.Errorf("there is no image %s", ref)
	}
	if _, byDigest := named.(reference.Digested); !byDigest {
		tag := tagOf(named)
		delete(repo.tags, tag)
		r.unserve(repo, tag)
		if slices.Contains(slices.Collect(maps.Values(repo.tags)), img.Digest) {
			return nil
		}
	}
	maps.DeleteFunc(repo.tags, func(tag, digest string) bool {
		if digest == img.Digest {
			r.unserve(repo, tag)
		}
		return digest == img.Digest
	})
	delete(repo.images, img.Digest)
	r.unserve(repo, img.Digest)
	return nil
}

func tagOf(named reference.Named) string {
	if tagged, ok := named.(reference.Tagged); ok {
		return tagged.Tag()
	}
	return "latest"
}

// find looks an image up; nil is none. The digest in a reference wins over its
// tag. The caller holds the lock.
func (r *Registry) find(named reference.Named) (*Repository, *Image) {
	repo := r.repositories[named.Name()]
	if repo == nil {
		return nil, nil
	}
	if d, ok := named.(reference.Digested); ok {
		return repo, repo.images[d.Digest().String()]
	}
	return repo, repo.images[repo.tags[tagOf(named)]]
}

// Resolve returns the digest and the behaviour of the image that ref, a whole
// reference, names. The error's text is what docker says when it pulls.
func (r *Registry) Resolve(ref string) (digest string, behaviour world.Image, err error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", world.Image{}, fmt.Errorf("invalid reference format: %q", ref)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	repo, img := r.find(named)
	switch {
	case img != nil:
		return img.Digest, img.Behaviour, nil
	case repo != nil:
		return "", world.Image{}, fmt.Errorf("manifest for %s not found: manifest unknown", reference.FamiliarString(reference.TagNameOnly(named)))
	case reference.Domain(named) == r.world.ECR():
		return "", world.Image{}, fmt.Errorf("repository %s not found: name unknown: The repository with name '%s' does not exist in the registry with id '%s'",
			named.Name(), reference.Path(named), r.world.Account)
	}
	return "", world.Image{}, fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
		reference.FamiliarName(named))
}

// Repositories are those of the account's ECR, by name.
func (r *Registry) Repositories() []Repository {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Repository
	for _, repo := range r.repositories {
		if repo.Host == r.world.ECR() {
			all = append(all, *repo)
		}
	}
	slices.SortFunc(all, func(a, b Repository) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Images are the images in a repository of the account's ECR, the newest
// first; ok is false if there is no such repository.
func (r *Registry) Images(repository string) (images []Image, ok bool) {
	return r.ImagesAt(r.world.ECR(), repository)
}

// ImagesAt is Images of a registry by its host.
func (r *Registry) ImagesAt(host, repository string) (images []Image, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := r.repositories[host+"/"+repository]
	if repo == nil {
		return nil, false
	}
	for _, img := range repo.images {
		one := *img
		for tag, digest := range repo.tags {
			if digest == img.Digest {
				one.Tags = append(one.Tags, tag)
			}
		}
		slices.Sort(one.Tags)
		images = append(images, one)
	}
	slices.SortFunc(images, func(a, b Image) int {
		return cmp.Or(b.PushedAt.Compare(a.PushedAt), cmp.Compare(a.Digest, b.Digest))
	})
	return images, true
}

// Layer is the size of a layer of the image, or of its configuration.
func (i Image) Layer(digest string) (size int64, ok bool) {
	size, ok = i.layers[digest]
	return size, ok
}

// Hosts are the registries that there are repositories of, sorted; the
// account's ECR is always one.
func (r *Registry) Hosts() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	hosts := []string{r.world.ECR()}
	for _, repo := range r.repositories {
		hosts = append(hosts, repo.Host)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
