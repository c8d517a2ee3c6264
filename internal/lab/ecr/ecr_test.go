package ecr_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/ecr"
	"jumpsuite/internal/lab/registry"
	"jumpsuite/internal/lab/world"
)

func start(t *testing.T) *ecr.ECR {
	t.Helper()
	text := "images:\n  - {repository: api, tags: [good, latest], size: 12, findings: {HIGH: 3, LOW: 1}}\n"
	for i := range 5 {
		text += fmt.Sprintf("  - {repository: api, tags: [\"%d\"]}\n", i)
	}
	w, err := world.Parse([]byte(text+"  - {repository: empty, missing: true}\n"), "world")
	if err != nil {
		t.Fatal(err)
	}
	c := clock.New(1)
	r, err := registry.New(w, c)
	if err != nil {
		t.Fatal(err)
	}
	return &ecr.ECR{World: w, Clock: c, Registry: r, URL: "http://127.0.0.1:1"}
}

func TestImagesAreDescribed(t *testing.T) {
	e := start(t)
	out, err := e.DescribeImages(t.Context(), &api.DescribeImagesInput{RepositoryName: aws.String("api"), ImageIds: []types.ImageIdentifier{{ImageTag: aws.String("good")}}})
	if err != nil || len(out.ImageDetails) != 1 {
		t.Fatalf("got %+v, %v", out, err)
	}
	d := out.ImageDetails[0]
	if strings.Join(d.ImageTags, " ") != "good latest" || *d.ImageSizeInBytes != 12<<20 || d.ImageScanFindingsSummary.FindingSeverityCounts["HIGH"] != 3 {
		t.Errorf("got %+v", d)
	}
	byDigest, err := e.DescribeImages(t.Context(), &api.DescribeImagesInput{RepositoryName: aws.String("api"), ImageIds: []types.ImageIdentifier{{ImageDigest: d.ImageDigest}}})
	if err != nil || *byDigest.ImageDetails[0].ImageDigest != *d.ImageDigest {
		t.Errorf("got %+v, %v", byDigest, err)
	}
}

func TestImagesComeInPages(t *testing.T) {
	e := start(t)
	in := &api.DescribeImagesInput{RepositoryName: aws.String("api"), MaxResults: aws.Int32(4)}
	seen, pages := map[string]bool{}, 0
	for {
		out, err := e.DescribeImages(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range out.ImageDetails {
			seen[*d.ImageDigest] = true
		}
		pages++
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if len(seen) != 6 || pages != 2 {
		t.Errorf("got %d images on %d pages, want 6 on 2", len(seen), pages)
	}
	ids, err := e.ListImages(t.Context(), &api.ListImagesInput{RepositoryName: aws.String("api")})
	if err != nil || len(ids.ImageIds) != 7 {
		t.Errorf("got %+v, %v; want an id for each tag", ids, err)
	}
}

func TestErrorsAreInTheWordsOfECR(t *testing.T) {
	e, ctx := start(t), t.Context()
	tag := func(s string) []types.ImageIdentifier { return []types.ImageIdentifier{{ImageTag: &s}} }
	for _, tt := range []struct {
		name string
		call func() error
		want string
	}{
		{"no repository", func() error {
			_, err := e.DescribeImages(ctx, &api.DescribeImagesInput{RepositoryName: aws.String("web")})
			return err
		}, "RepositoryNotFoundException: The repository with name 'web' does not exist in the registry with id '123456789012'"},
		{"another account", func() error {
			_, err := e.DescribeImages(ctx, &api.DescribeImagesInput{RepositoryName: aws.String("api"), RegistryId: aws.String("999999999999")})
			return err
		}, "RepositoryNotFoundException: The repository with name 'api' does not exist in the registry with id '999999999999'"},
		{"no image", func() error {
			_, err := e.DescribeImages(ctx, &api.DescribeImagesInput{RepositoryName: aws.String("api"), ImageIds: tag("nosuch")})
			return err
		}, "ImageNotFoundException: The image with imageId {imageDigest:'null', imageTag:'nosuch'} does not exist within the repository with name 'api' in the registry with id '123456789012'"},
		{"a missing image", func() error {
			_, err := e.DescribeImages(ctx, &api.DescribeImagesInput{RepositoryName: aws.String("empty"), ImageIds: tag("latest")})
			return err
		}, "ImageNotFoundException: "},
		{"neither tag nor digest", func() error {
			_, err := e.DescribeImages(ctx, &api.DescribeImagesInput{RepositoryName: aws.String("api"), ImageIds: make([]types.ImageIdentifier, 1)})
			return err
		}, "InvalidParameterException: "},
		{"too many ids", func() error {
			_, err := e.BatchGetImage(ctx, &api.BatchGetImageInput{RepositoryName: aws.String("api"), ImageIds: make([]types.ImageIdentifier, 101)})
			return err
		}, "InvalidParameterException: Invalid parameter at 'imageIds'"},
		{"a page too large", func() error {
			_, err := e.ListImages(ctx, &api.ListImagesInput{RepositoryName: aws.String("api"), MaxResults: aws.Int32(1001)})
			return err
		}, "InvalidParameterException: Invalid parameter at 'maxResults'"},
		{"a made-up token", func() error {
			_, err := e.ListImages(ctx, &api.ListImagesInput{RepositoryName: aws.String("api"), NextToken: aws.String("x")})
			return err
		}, "InvalidParameterException: Invalid parameter at 'nextToken'"},
		{"no scan", func() error {
			_, err := e.DescribeImageScanFindings(ctx, &api.DescribeImageScanFindingsInput{RepositoryName: aws.String("api"), ImageId: &types.ImageIdentifier{ImageTag: aws.String("1")}})
			return err
		}, "ScanNotFoundException: Image scan does not exist for the image"},
		{"no layer", func() error {
			_, err := e.GetDownloadUrlForLayer(ctx, &api.GetDownloadUrlForLayerInput{RepositoryName: aws.String("api"), LayerDigest: aws.String("sha256:0")})
			return err
		}, "LayersNotFoundException: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.call(); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestManifestsAndLayers(t *testing.T) {
	e, ctx := start(t), t.Context()
	out, err := e.BatchGetImage(ctx, &api.BatchGetImageInput{RepositoryName: aws.String("api"), ImageIds: []types.ImageIdentifier{
		{ImageTag: aws.String("good")}, {ImageTag: aws.String("bad")}, {ImageDigest: aws.String("sha256:1")}, {}}})
	if err != nil || len(out.Images) != 1 || len(out.Failures) != 3 {
		t.Fatalf("got %+v, %v", out, err)
	}
	for i, want := range []types.ImageFailureCode{"ImageNotFound", "InvalidImageDigest", "MissingDigestAndTag"} {
		if got := out.Failures[i].FailureCode; got != want {
			t.Errorf("failure %d: got %s, want %s", i, got, want)
		}
	}
	_, after, _ := strings.Cut(*out.Images[0].ImageManifest, `"digest":"`)
	digest, _, _ := strings.Cut(after, `"`)
	layers, err := e.BatchCheckLayerAvailability(ctx, &api.BatchCheckLayerAvailabilityInput{RepositoryName: aws.String("api"),
		LayerDigests: []string{digest, "sha256:" + strings.Repeat("0", 64), "x"}})
	if err != nil || layers.Layers[0].LayerAvailability != "AVAILABLE" || layers.Layers[1].LayerAvailability != "UNAVAILABLE" || layers.Failures[0].FailureCode != "InvalidLayerDigest" {
		t.Errorf("got %+v, %v", layers, err)
	}
	url, err := e.GetDownloadUrlForLayer(ctx, &api.GetDownloadUrlForLayerInput{RepositoryName: aws.String("api"), LayerDigest: &digest})
	if err != nil || !strings.HasPrefix(*url.DownloadUrl, "http://127.0.0.1:1/v2/") || !strings.HasSuffix(*url.DownloadUrl, digest) {
		t.Errorf("got %+v, %v", url, err)
	}
}

func TestRepositoriesTokensAndFindings(t *testing.T) {
	e, ctx := start(t), t.Context()
	repositories, err := e.DescribeRepositories(ctx, &api.DescribeRepositoriesInput{})
	if err != nil || len(repositories.Repositories) != 2 || *repositories.Repositories[0].RepositoryUri != "123456789012.dkr.ecr.eu-central-1.amazonaws.com/api" {
		t.Errorf("got %+v, %v", repositories, err)
	}
	if _, err := e.DescribeRepositories(ctx, &api.DescribeRepositoriesInput{RepositoryNames: []string{"web"}}); err == nil {
		t.Error("a repository that is not there is described")
	}
	token, err := e.GetAuthorizationToken(ctx, &api.GetAuthorizationTokenInput{})
	if err != nil || *token.AuthorizationData[0].ProxyEndpoint != "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com" || !token.AuthorizationData[0].ExpiresAt.After(e.Clock.Now()) {
		t.Errorf("got %+v, %v", token, err)
	}
	findings, err := e.DescribeImageScanFindings(ctx, &api.DescribeImageScanFindingsInput{RepositoryName: aws.String("api"), ImageId: &types.ImageIdentifier{ImageTag: aws.String("good")}})
	if err != nil || len(findings.ImageScanFindings.Findings) != 4 {
		t.Errorf("got %+v, %v", findings, err)
	}
}
