package deployer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"jumpsuite/internal/awsconfig"
)

// platform is what an image is for, or what a host is: an operating system and
// an architecture in Docker's words, linux and amd64.
type platform struct{ OS, Arch string }

func (p platform) String() string { return p.OS + "/" + p.Arch }

// manifest is what of an image's manifest matters here, of all its formats: a
// list of manifests for several platforms (Docker's manifest list, OCI's index),
// one whose configuration has the platform (schema 2, OCI), or one that has the
// architecture itself (schema 1).
// https://github.com/opencontainers/image-spec/blob/main/image-index.md
type manifest struct {
	Manifests []struct {
		Platform struct {
			OS           string `json:"os"`
			Architecture string `json:"architecture"`
		} `json:"platform"`
	} `json:"manifests"`
	Config struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
	} `json:"config"`
	Architecture string `json:"architecture"`
}

// platforms are those of a list. What attestations say (unknown/unknown) is
// nobody's platform.
func (m manifest) platforms() []platform {
	var out []platform
	for _, part := range m.Manifests {
		p := platform{part.Platform.OS, part.Platform.Architecture}
		if p.OS != "unknown" && p.Arch != "" && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if m.Architecture != "" {
		out = append(out, platform{"linux", m.Architecture})
	}
	return out
}

// manifestTypes are all formats that a host may pull.
var manifestTypes = []string{
	"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.v1+prettyjws",
}

// configTypes are the configurations of container images.
var configTypes = []string{"application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json", ""}

// errNoImage is of a manifest that is something else's: a Helm chart, say.
var errNoImage = errors.New("it is no container image")

// platformsOf asks ECR what an image is for.
func (d *Deployer) platformsOf(ctx context.Context, in *ecr.DescribeImagesInput, region, digest string) ([]platform, error) {
	images := d.Images(region)
	out, err := images.BatchGetImage(ctx, &ecr.BatchGetImageInput{RegistryId: in.RegistryId, RepositoryName: in.RepositoryName,
		ImageIds: []ecrtypes.ImageIdentifier{{ImageDigest: &digest}}, AcceptedMediaTypes: manifestTypes})
	if err != nil {
		return nil, awsconfig.Explain(err)
	}
	if len(out.Images) == 0 {
		return nil, errors.New("ECR has no manifest of it")
	}
	var m manifest
	if err := json.Unmarshal([]byte(aws.ToString(out.Images[0].ImageManifest)), &m); err != nil {
		return nil, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if found := m.platforms(); len(found) > 0 {
		return found, nil
	}
	if !slices.Contains(configTypes, m.Config.MediaType) {
		return nil, fmt.Errorf("%w, its configuration is %s", errNoImage, m.Config.MediaType)
	}
	return d.configPlatform(ctx, images, in, m.Config.Digest)
}

// configPlatform reads an image's configuration, a blob that ECR hands out by a
// signed URL as it does to who pulls.
func (d *Deployer) configPlatform(ctx context.Context, images Images, in *ecr.DescribeImagesInput, digest string) ([]platform, error) {
	out, err := images.GetDownloadUrlForLayer(ctx, &ecr.GetDownloadUrlForLayerInput{RegistryId: in.RegistryId, RepositoryName: in.RepositoryName, LayerDigest: &digest})
	if err != nil {
		return nil, awsconfig.Explain(err)
	}
	blob, err := d.fetch(ctx, aws.ToString(out.DownloadUrl))
	if err != nil {
		return nil, fmt.Errorf("read its configuration: %w", err)
	}
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(blob)); got != digest {
		return nil, fmt.Errorf("its configuration is %s, and not %s", short(got), short(digest))
	}
	var config struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	}
	if err := json.Unmarshal(blob, &config); err != nil {
		return nil, fmt.Errorf("its configuration cannot be read: %w", err)
	}
	return []platform{{config.OS, config.Architecture}}, nil
}

// mostConfig is how long an image's configuration may be; those in use have some
// thousand bytes.
const mostConfig = 4 << 20

// fetch gets what a URL of ECR's has. The URL is signed, so it is in no error.
func (d *Deployer) fetch(ctx context.Context, url string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("ECR's URL for it is none")
	}
	answer, err := d.web.Do(q)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", q.URL.Host, innermost(err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", q.URL.Host, answer.Status)
	}
	blob, err := io.ReadAll(io.LimitReader(answer.Body, mostConfig+1))
	if err == nil && len(blob) > mostConfig {
		err = errors.New("it is too long")
	}
	return blob, err
}

// innermost is the cause without what net/http puts around it, which has the URL.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

func platformList(all []platform) string {
	var out []string
	for _, p := range all {
		out = append(out, p.String())
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
