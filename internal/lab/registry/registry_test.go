package registry_test

import (
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/registry"
	"jumpsuite/internal/lab/world"
)

const ecr = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"

func start(t *testing.T) *registry.Registry {
	t.Helper()
	w, err := world.Parse([]byte(`
images:
  - {repository: api, tags: ["1", stable], http: 503}
  - {repository: api, tags: ["2"], arch: arm64}
  - {repository: empty, missing: true}
  - {registry: docker.io, repository: library/nginx, tags: ["1.27"]}
  - {registry: quay.io, repository: team/tool}
`), "world")
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.New(w, clock.New(1))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func resolve(t *testing.T, r *registry.Registry, ref string) string {
	t.Helper()
	digest, _, err := r.Resolve(ref)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestReferencesMeanImages(t *testing.T) {
	r := start(t)
	one, two := resolve(t, r, ecr+"/api:1"), resolve(t, r, ecr+"/api:2")
	if one == two || !strings.HasPrefix(one, "sha256:") {
		t.Errorf("got %s and %s", one, two)
	}
	for ref, want := range map[string]string{ecr + "/api:stable": one, ecr + "/api@" + two: two, ecr + "/api:1@" + two: two} {
		if got := resolve(t, r, ref); got != want {
			t.Errorf("%s: got %s, want %s", ref, got, want)
		}
	}
	if resolve(t, r, "nginx:1.27") == "" || resolve(t, r, "quay.io/team/tool") == "" {
		t.Error("images of other registries are not there")
	}
	if _, behaviour, err := r.Resolve(ecr + "/api:1"); err != nil || behaviour.HTTP != 503 {
		t.Errorf("got %+v, %v", behaviour, err)
	}
	if again := start(t); resolve(t, again, ecr+"/api:1") != one {
		t.Error("the same world has other digests")
	}
}

func TestWhatIsNotThereIsToldInDockersWords(t *testing.T) {
	r := start(t)
	for _, tt := range []struct{ name, ref, want string }{
		{"a tag", ecr + "/api:9", "manifest for " + ecr + "/api:9 not found: manifest unknown"},
		{"no tag", ecr + "/api", "manifest for " + ecr + "/api:latest not found: manifest unknown"},
		{"a missing image", ecr + "/empty:1", "manifest for " + ecr + "/empty:1 not found: manifest unknown"},
		{"a repository", ecr + "/web:1", "repository " + ecr + "/web not found: name unknown: The repository with name 'web' does not exist in the registry with id '123456789012'"},
		{"a hub image", "redis", "pull access denied for redis, repository does not exist or may require 'docker login'"},
		{"no reference", "API:1", "invalid reference format"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := r.Resolve(tt.ref)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %s", tt.ref, err, tt.want)
			}
		})
	}
}

func TestTagsMoveAndGo(t *testing.T) {
	r := start(t)
	old := resolve(t, r, ecr+"/api:2")
	if err := r.Push(world.Image{Repository: "api", Tags: []string{"2"}, HTTP: 500}); err != nil {
		t.Fatal(err)
	}
	moved := resolve(t, r, ecr+"/api:2")
	if moved == old || resolve(t, r, ecr+"/api@"+old) != old {
		t.Errorf("got %s, before it was %s, which must still be there", moved, old)
	}
	if err := r.Delete("api:stable"); err != nil {
		t.Fatal(err)
	}
	one := resolve(t, r, ecr+"/api:1") // its other tag
	if err := r.Delete("api:1"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Resolve(ecr + "/api@" + one); err == nil {
		t.Error("the image is there without a tag")
	}
	if err := r.Delete("api@" + moved); err != nil {
		t.Fatal(err)
	}
	images, ok := r.Images("api")
	if !ok || len(images) != 1 || images[0].Digest != old || images[0].Tags != nil {
		t.Errorf("got %+v, want the untagged one only", images)
	}
	if err := r.Delete("api:1"); err == nil || err.Error() != "there is no image api:1" {
		t.Errorf("got %v", err)
	}
}

func TestImagesCanBePulled(t *testing.T) {
	r := start(t)
	server := httptest.NewServer(r.Handler())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(host+"/"+ecr+"/api:2", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil || config.Architecture != "arm64" || len(config.Config.Entrypoint) == 0 {
		t.Errorf("got %+v, %v", config, err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) == 0 {
		t.Fatalf("got %d layers, %v", len(layers), err)
	}
	for _, layer := range layers {
		content, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		content.Close()
	}
	digest, err := img.Digest()
	if err != nil || digest.String() != resolve(t, r, ecr+"/api:2") {
		t.Errorf("got %v, %v", digest, err)
	}
	if err := r.Delete("api:2"); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Image(ref); err == nil || !strings.Contains(err.Error(), "MANIFEST_UNKNOWN") {
		t.Errorf("a deleted image is pulled: %v", err)
	}
}

func TestAnImageOfSeveralArchitecturesIsAManifestList(t *testing.T) {
	r := start(t)
	if err := r.Push(world.Image{Repository: "multi", Tags: []string{"1"}, Platforms: []string{"amd64", "arm64"}}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r.Handler())
	defer server.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://")+"/"+ecr+"/multi:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
		if err != nil {
			t.Fatal(err)
		}
		if config, err := img.ConfigFile(); err != nil || config.Architecture != arch {
			t.Errorf("asked for %s, got %+v, %v", arch, config, err)
		}
	}
	images, _ := r.Images("multi")
	tagged := 0
	for _, i := range images {
		tagged += len(i.Tags)
		if len(i.Tags) > 0 && i.Digest != resolve(t, r, ecr+"/multi:1") {
			t.Errorf("the tag is at %s", i.Digest)
		}
	}
	if len(images) != 3 || tagged != 1 {
		t.Errorf("got %d images with %d tags, want the list and two without a tag", len(images), tagged)
	}
}

func TestTheRequestsHostIsTheRegistry(t *testing.T) {
	r := start(t)
	for _, tt := range []struct {
		name, method, host, path string
		want                     int
	}{
		{"the base", "GET", ecr, "/v2/", 200},
		{"an image of the host", "HEAD", ecr, "/v2/api/manifests/1", 200},
		{"of another host", "HEAD", "quay.io", "/v2/api/manifests/1", 404},
		{"with a port", "HEAD", "quay.io:443", "/v2/team/tool/manifests/latest", 200},
		{"a blob that is not there", "GET", ecr, "/v2/api/blobs/sha256:" + strings.Repeat("0", 64), 404},
		{"a push", "PUT", ecr, "/v2/api/manifests/9", 405},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := httptest.NewRequest(tt.method, tt.path, nil)
			q.Host = tt.host
			w := httptest.NewRecorder()
			r.Handler().ServeHTTP(w, q)
			if w.Code != tt.want {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.want)
			}
		})
	}
	if want := []string{ecr, "docker.io", "quay.io"}; !reflect.DeepEqual(r.Hosts(), want) {
		t.Errorf("got hosts %v, want %v", r.Hosts(), want)
	}
}
