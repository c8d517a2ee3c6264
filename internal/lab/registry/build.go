package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"

	pkgregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"jumpsuite/internal/lab/rootfs"
	"jumpsuite/internal/lab/world"
)

// build makes an image that plays a behaviour. Its layers are not compressed:
// they are read over the loopback. Where there is no busybox, the image has only
// its own layer; it can be looked at, not run.
func build(img world.Image) (v1.Image, error) {
	var layers []v1.Layer
	if rootfs.Available() == nil {
		base, err := baseLayer()
		if err != nil {
			return nil, err
		}
		layers = append(layers, base)
	}
	own, err := rootfs.Layer(img)
	if err != nil {
		return nil, err
	}
	layers = append(layers, static.NewLayer(own, types.DockerUncompressedLayer))
	made, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, err
	}
	file, err := made.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", img.Arch
	file.Config = v1.Config{
		Entrypoint: []string{rootfs.Entrypoint},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		WorkingDir: "/",
	}
	return mutate.ConfigFile(made, file)
}

var baseLayer = sync.OnceValues(func() (v1.Layer, error) {
	base, err := rootfs.Base()
	if err != nil {
		return nil, err
	}
	return static.NewLayer(base, types.DockerUncompressedLayer), nil
})

// blobs are the layers and configurations of all images, whatever repository
// they are in.
type blobs struct {
	mu       sync.Mutex
	byDigest map[v1.Hash][]byte
}

func newBlobs() *blobs { return &blobs{byDigest: map[v1.Hash][]byte{}} }

// add notes an image's blobs, and returns their sizes.
func (b *blobs) add(img v1.Image) (map[string]int64, error) {
	sizes := map[string]int64{}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	name, err := img.ConfigName()
	if err != nil {
		return nil, err
	}
	b.put(name, config, sizes)
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		if err := b.layer(layer, sizes); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

func (b *blobs) layer(layer v1.Layer, sizes map[string]int64) error {
	digest, err := layer.Digest()
	if err != nil {
		return err
	}
	if content, ok := b.get(digest); ok {
		sizes[digest.String()] = int64(len(content))
		return nil
	}
	r, err := layer.Compressed()
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	b.put(digest, content, sizes)
	return nil
}

func (b *blobs) put(digest v1.Hash, content []byte, sizes map[string]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.byDigest[digest] = content
	sizes[digest.String()] = int64(len(content))
}

func (b *blobs) get(digest v1.Hash) ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	content, ok := b.byDigest[digest]
	return content, ok
}

// has reports whether there is a blob; digest is as in a request's path.
func (b *blobs) has(digest string) bool {
	h, err := v1.NewHash(digest)
	if err != nil {
		return false
	}
	_, ok := b.get(h)
	return ok
}

// errBlob does not happen: Handler asks for no blob that is not there.
var errBlob = errors.New("no such blob")

// Get is what go-containerregistry's registry asks for a blob.
func (b *blobs) Get(_ context.Context, _ string, digest v1.Hash) (io.ReadCloser, error) {
	content, ok := b.get(digest)
	if !ok {
		return nil, errBlob
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

// Stat is what go-containerregistry's registry asks for a blob's size.
func (b *blobs) Stat(_ context.Context, _ string, digest v1.Hash) (int64, error) {
	content, ok := b.get(digest)
	if !ok {
		return 0, errBlob
	}
	return int64(len(content)), nil
}

func (r *Registry) handler() http.Handler {
	return pkgregistry.New(pkgregistry.WithBlobHandler(r.blobs), pkgregistry.Logger(log.New(io.Discard, "", 0)))
}

// serve puts an image's manifest where Handler finds it, by digest and tags.
func (r *Registry) serve(repo *Repository, img *Image, tags []string) error {
	for _, name := range append([]string{img.Digest}, tags...) {
		status, text := r.manifest(http.MethodPut, repo, name, img.MediaType, img.Manifest)
		if status != http.StatusCreated {
			return fmt.Errorf("put %s/%s %s: %d %s", repo.Host, repo.Name, name, status, text)
		}
	}
	return nil
}

// unserve takes a tag or digest away from what Handler finds.
func (r *Registry) unserve(repo *Repository, name string) {
	r.manifest(http.MethodDelete, repo, name, "", nil)
}

// manifest makes one request for a manifest to the registry behind Handler.
func (r *Registry) manifest(method string, repo *Repository, name, media string, body []byte) (status int, text string) {
	q, err := http.NewRequest(method, "/v2/"+repo.Host+"/"+repo.Name+"/manifests/"+name, bytes.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	q.Header.Set("Content-Type", media)
	a := &answer{header: http.Header{}, status: http.StatusOK}
	r.served.ServeHTTP(a, q)
	return a.status, a.body.String()
}

// answer is an http.ResponseWriter for a request that comes from here.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// Handler answers the registry API (/v2/), for pulls.
func (r *Registry) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			http.Error(w, "the lab's registry is for pulls: images come from the world", http.StatusMethodNotAllowed)
			return
		}
		host := q.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		rest, ok := strings.CutPrefix(q.URL.Path, "/v2/")
		if ok && rest != "" && r.hosts(host) && !strings.HasPrefix(rest, host+"/") {
			q = q.Clone(q.Context())
			q.URL.Path = "/v2/" + host + "/" + rest
		}
		if !r.admit(w, q, r.asked(q, host)) {
			return
		}
		if _, digest, ok := strings.Cut(q.URL.Path, "/blobs/"); ok && !r.blobs.has(digest) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}`)
			return
		}
		r.served.ServeHTTP(w, q)
	})
}

// asked is the registry that a request is for: the one that was called by its
// name, or else the one in the path.
func (r *Registry) asked(q *http.Request, called string) string {
	rest, _ := strings.CutPrefix(q.URL.Path, "/v2/")
	if host, _, ok := strings.Cut(rest, "/"); ok && called != r.world.ECR() {
		return host
	}
	return called
}

// hosts reports whether there are repositories of a registry host.
func (r *Registry) hosts(host string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, repo := range r.repositories {
		if repo.Host == host {
			return true
		}
	}
	return false
}
