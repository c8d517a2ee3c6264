package registry_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/registry"
	"jumpsuite/internal/lab/world"
)

const ecrHost = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"

// withLogin is a registry that asks for a login, and one that is not the account's.
func withLogin(t *testing.T, speed float64) (*registry.Registry, *clock.Clock) {
	t.Helper()
	w, err := world.Parse([]byte("registry-login: true\nimages:\n  - {repository: api, tags: [\"1\"]}\n  - {repository: app, registry: registry.test, tags: [\"1\"]}\n"), "world")
	if err != nil {
		t.Fatal(err)
	}
	c := clock.New(speed)
	r, err := registry.New(w, c)
	if err != nil {
		t.Fatal(err)
	}
	return r, c
}

// ask asks for a path at a host; a user of "" is no login.
func ask(r *registry.Registry, host, path, user, password string) *http.Response {
	q := httptest.NewRequest(http.MethodGet, "http://"+host+path, nil)
	if user != "" {
		q.SetBasicAuth(user, password)
	}
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, q)
	return w.Result()
}

func TestTheAccountsRegistryAsksForALogin(t *testing.T) {
	r, _ := withLogin(t, 1)
	password, _ := r.Password()
	other, _ := withLogin(t, 1)
	foreign, _ := other.Password()
	const manifest = "/v2/api/manifests/1"
	for _, tt := range []struct {
		name, host, path, user, password string
		want                             int
	}{
		{"no login", ecrHost, manifest, "", "", 401},
		{"no login, the first question", ecrHost, "/v2/", "", "", 401},
		{"no login, by the lab's address", "127.0.0.1:4567", "/v2/" + ecrHost + "/api/manifests/1", "", "", 401},
		{"no login, no such repository", ecrHost, "/v2/nosuch/manifests/1", "", "", 401},
		{"its password", ecrHost, manifest, "AWS", password, 200},
		{"its password, by the lab's address", "127.0.0.1:4567", "/v2/" + ecrHost + "/api/manifests/1", "AWS", password, 200},
		{"another user", ecrHost, manifest, "lab", password, 401},
		{"a made-up password", ecrHost, manifest, "AWS", "secret", 401},
		{"one that was changed", ecrHost, manifest, "AWS", "A" + password[1:], 401},
		{"that of another registry", ecrHost, manifest, "AWS", foreign, 401},
		{"a registry that is not the account's", "registry.test", "/v2/app/manifests/1", "", "", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(r, tt.host, tt.path, tt.user, tt.password)
			if got.StatusCode != tt.want {
				t.Errorf("got %s, want %d", got.Status, tt.want)
			}
			challenge := got.Header.Get("Www-Authenticate")
			if tt.want == 401 && challenge != `Basic realm="https://`+ecrHost+`/",service="ecr.amazonaws.com"` {
				t.Errorf("it is asked for with %q", challenge)
			}
		})
	}
}

func TestAPasswordEndsAfterTwelveHours(t *testing.T) {
	r, c := withLogin(t, 3600*100) // 12 hours take 0.4 s
	password, expires := r.Password()
	if life := expires.Sub(c.Now()); life > registry.PasswordLife || life < 0 {
		t.Errorf("it is good for %s", life)
	}
	c.Sleep(t.Context(), registry.PasswordLife+time.Minute)
	got := ask(r, ecrHost, "/v2/", "AWS", password)
	body := new(strings.Builder)
	got.Write(body)
	if got.StatusCode != 403 || !strings.Contains(body.String(), "Your authorization token has expired. Reauthenticate and try again.") {
		t.Errorf("got %s", body)
	}
}

func TestAPresignedURLNeedsNoLogin(t *testing.T) {
	r, _ := withLogin(t, 1)
	images, _ := r.Images("api")
	_, after, _ := strings.Cut(string(images[0].Manifest), `"digest":"`)
	digest, _, _ := strings.Cut(after, `"`)
	path := "/v2/api/blobs/" + digest
	if got := ask(r, ecrHost, path, "", ""); got.StatusCode != 401 {
		t.Errorf("not signed: %s", got.Status)
	}
	if got := ask(r, ecrHost, r.Presign(path), "", ""); got.StatusCode != 200 {
		t.Errorf("signed: %s", got.Status)
	}
	if got := ask(r, ecrHost, r.Presign("/v2/api/manifests/1"), "", ""); got.StatusCode != 401 {
		t.Errorf("a manifest is not signed for: %s", got.Status)
	}
}
