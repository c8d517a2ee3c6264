// Package ecr is the lab's Amazon ECR: the API through which callers look at
// the images of the lab's registry. It is read only; images come from the world.
package ecr

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	api "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/registry"
	"jumpsuite/internal/lab/wire"
	"jumpsuite/internal/lab/world"
)

// Limits of the API (ECR API reference).
const (
	batchSize = 100  // imageIds, layerDigests, repositoryNames
	pageSize  = 100  // default of maxResults
	pageMax   = 1000 // largest maxResults
)

// ECR answers about a registry. All fields but URL must be set.
type ECR struct {
	World    *world.World
	Clock    *clock.Clock
	Registry *registry.Registry
	// URL is where the registry is served, for download URLs of layers: http://HOST:PORT.
	URL string
}

func (e *ECR) repositoryARN(name string) string {
	return "arn:aws:ecr:" + e.World.Region + ":" + e.World.Account + ":repository/" + name
}

func (e *ECR) registryID(asked *string) string {
	if asked != nil {
		return *asked
	}
	return e.World.Account
}

// repository is the images of a repository that a caller named.
func (e *ECR) repository(account, name *string) ([]registry.Image, error) {
	id := e.registryID(account)
	if images, ok := e.Registry.ImagesAt(e.host(id), *name); ok {
		return images, nil
	}
	return nil, wire.Errorf("RepositoryNotFoundException", "The repository with name '%s' does not exist in the registry with id '%s'", *name, id)
}

// host is the registry of an account. Another account's are in the world as images
// with the registry 999999999999.dkr.ecr.REGION.amazonaws.com.
func (e *ECR) host(account string) string {
	return account + strings.TrimPrefix(e.World.ECR(), e.World.Account)
}

// find is the image that an identifier means: by digest, by tag, or by both
// when they belong together. nil is none.
func find(images []registry.Image, id types.ImageIdentifier) *registry.Image {
	for i, img := range images {
		digest := id.ImageDigest == nil || *id.ImageDigest == img.Digest
		tag := id.ImageTag == nil || slices.Contains(img.Tags, *id.ImageTag)
		if digest && tag {
			return &images[i]
		}
	}
	return nil
}

func (e *ECR) imageNotFound(repository string, id types.ImageIdentifier) error {
	return wire.Errorf("ImageNotFoundException", "The image with imageId %s does not exist within the repository with name '%s' in the registry with id '%s'",
		idText(id), repository, e.World.Account)
}

func idText(id types.ImageIdentifier) string {
	return fmt.Sprintf("{imageDigest:'%s', imageTag:'%s'}", orNull(id.ImageDigest), orNull(id.ImageTag))
}

func orNull(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

func invalid(parameter, constraint string) error {
	return wire.Errorf("InvalidParameterException", "Invalid parameter at '%s' failed to satisfy constraint: '%s'", parameter, constraint)
}

// checkIDs checks a list of image identifiers.
func checkIDs(ids []types.ImageIdentifier) error {
	if len(ids) > batchSize {
		return invalid("imageIds", fmt.Sprintf("Member must have length less than or equal to %d", batchSize))
	}
	for _, id := range ids {
		if id.ImageDigest == nil && id.ImageTag == nil {
			return invalid("imageIds", "must have at least one of imageTag and imageDigest")
		}
	}
	return nil
}

// paged is one page of all, and the token of the next.
func paged[T any](all []T, token *string, size *int32) (page []T, next *string, err error) {
	n := pageSize
	if size != nil {
		n = int(*size)
	}
	if n < 1 || n > pageMax {
		return nil, nil, invalid("maxResults", fmt.Sprintf("Member must have value between 1 and %d", pageMax))
	}
	from, err := offset(token, len(all))
	if err != nil {
		return nil, nil, err
	}
	to := min(from+n, len(all))
	if to < len(all) {
		made := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "page:%d", to))
		next = &made
	}
	return all[from:to], next, nil
}

func offset(token *string, length int) (int, error) {
	if token == nil {
		return 0, nil
	}
	text, err := base64.StdEncoding.DecodeString(*token)
	number, ok := strings.CutPrefix(string(text), "page:")
	n, atoi := strconv.Atoi(number)
	if err != nil || !ok || atoi != nil || n < 1 || n > length {
		return 0, invalid("nextToken", "is not a token that was handed out")
	}
	return n, nil
}

// DescribeImages answers for the images with the given ids, or page by page for all.
func (e *ECR) DescribeImages(_ context.Context, in *api.DescribeImagesInput) (*api.DescribeImagesOutput, error) {
	images, err := e.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if len(in.ImageIds) > 0 {
		return e.describeByID(images, in)
	}
	images = slices.DeleteFunc(images, func(i registry.Image) bool { return in.Filter != nil && !tagged(i, in.Filter.TagStatus) })
	page, next, err := paged(images, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeImagesOutput{NextToken: next}
	for _, img := range page {
		out.ImageDetails = append(out.ImageDetails, e.detail(*in.RepositoryName, img))
	}
	return out, nil
}

func (e *ECR) describeByID(images []registry.Image, in *api.DescribeImagesInput) (*api.DescribeImagesOutput, error) {
	if in.MaxResults != nil || in.NextToken != nil {
		return nil, invalid("maxResults", "cannot be used when imageIds are specified")
	}
	if err := checkIDs(in.ImageIds); err != nil {
		return nil, err
	}
	out := &api.DescribeImagesOutput{}
	for _, id := range in.ImageIds {
		img := find(images, id)
		if img == nil {
			return nil, e.imageNotFound(*in.RepositoryName, id)
		}
		out.ImageDetails = append(out.ImageDetails, e.detail(*in.RepositoryName, *img))
	}
	return out, nil
}

func tagged(i registry.Image, status types.TagStatus) bool {
	switch status {
	case types.TagStatusTagged:
		return len(i.Tags) > 0
	case types.TagStatusUntagged:
		return len(i.Tags) == 0
	}
	return true
}

func (e *ECR) detail(repository string, img registry.Image) types.ImageDetail {
	media := "application/vnd.docker.container.image.v1+json"
	d := types.ImageDetail{
		RegistryId: &e.World.Account, RepositoryName: &repository, ImageDigest: &img.Digest, ImageTags: img.Tags,
		ImageSizeInBytes: &img.Size, ImagePushedAt: &img.PushedAt, ImageManifestMediaType: &img.MediaType,
		ArtifactMediaType: &media, ImageStatus: types.ImageStatusActive,
	}
	if img.Behaviour.Findings != nil {
		d.ImageScanStatus = scanned()
		d.ImageScanFindingsSummary = &types.ImageScanFindingsSummary{
			FindingSeverityCounts: counts(img), ImageScanCompletedAt: &img.PushedAt, VulnerabilitySourceUpdatedAt: &img.PushedAt}
	}
	return d
}

func scanned() *types.ImageScanStatus {
	text := "The scan was completed successfully."
	return &types.ImageScanStatus{Status: types.ScanStatusComplete, Description: &text}
}

func counts(img registry.Image) map[string]int32 {
	out := map[string]int32{}
	for severity, n := range img.Behaviour.Findings {
		out[severity] = int32(n)
	}
	return out
}

// DescribeImageScanFindings answers with the numbers of findings, and as many
// findings, that are made up; of an image without scan it says so.
func (e *ECR) DescribeImageScanFindings(_ context.Context, in *api.DescribeImageScanFindingsInput) (*api.DescribeImageScanFindingsOutput, error) {
	images, err := e.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if err := checkIDs([]types.ImageIdentifier{*in.ImageId}); err != nil {
		return nil, err
	}
	img := find(images, *in.ImageId)
	if img == nil {
		return nil, e.imageNotFound(*in.RepositoryName, *in.ImageId)
	}
	if img.Behaviour.Findings == nil {
		return nil, wire.Errorf("ScanNotFoundException", "Image scan does not exist for the image with '%s' in the repository with name '%s' in the registry with id '%s'",
			idText(*in.ImageId), *in.RepositoryName, e.World.Account)
	}
	page, next, err := paged(findings(*img), in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	return &api.DescribeImageScanFindingsOutput{
		RegistryId: &e.World.Account, RepositoryName: in.RepositoryName, ImageId: in.ImageId, ImageScanStatus: scanned(), NextToken: next,
		ImageScanFindings: &types.ImageScanFindings{Findings: page, FindingSeverityCounts: counts(*img), ImageScanCompletedAt: &img.PushedAt, VulnerabilitySourceUpdatedAt: &img.PushedAt},
	}, nil
}

func findings(img registry.Image) []types.ImageScanFinding {
	var out []types.ImageScanFinding
	for _, severity := range types.FindingSeverity("").Values() {
		for i := range img.Behaviour.Findings[string(severity)] {
			name := fmt.Sprintf("CVE-2020-%04d", i+1)
			out = append(out, types.ImageScanFinding{Name: &name, Severity: severity})
		}
	}
	return out
}

// BatchGetImage answers with manifests; what is not there is in its failures.
func (e *ECR) BatchGetImage(_ context.Context, in *api.BatchGetImageInput) (*api.BatchGetImageOutput, error) {
	images, err := e.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if len(in.ImageIds) > batchSize {
		return nil, checkIDs(in.ImageIds)
	}
	out := &api.BatchGetImageOutput{}
	for _, id := range in.ImageIds {
		img, failure := get(images, id)
		if failure != nil {
			out.Failures = append(out.Failures, *failure)
			continue
		}
		manifest := string(img.Manifest)
		out.Images = append(out.Images, types.Image{
			RegistryId: &e.World.Account, RepositoryName: in.RepositoryName, ImageManifest: &manifest, ImageManifestMediaType: &img.MediaType,
			ImageId: &types.ImageIdentifier{ImageDigest: &img.Digest, ImageTag: id.ImageTag},
		})
	}
	return out, nil
}

func get(images []registry.Image, id types.ImageIdentifier) (*registry.Image, *types.ImageFailure) {
	fail := func(code types.ImageFailureCode, reason string) *types.ImageFailure {
		return &types.ImageFailure{ImageId: &id, FailureCode: code, FailureReason: &reason}
	}
	switch {
	case id.ImageDigest == nil && id.ImageTag == nil:
		return nil, fail(types.ImageFailureCodeMissingDigestAndTag, "Invalid request parameters: both tag and digest cannot be null")
	case id.ImageDigest != nil && !isDigest(*id.ImageDigest):
		return nil, fail(types.ImageFailureCodeInvalidImageDigest, "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	if img := find(images, id); img != nil {
		return img, nil
	}
	return nil, fail(types.ImageFailureCodeImageNotFound, "Requested image not found")
}

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// ListImages answers page by page with an id for each tag, and for each untagged image.
func (e *ECR) ListImages(_ context.Context, in *api.ListImagesInput) (*api.ListImagesOutput, error) {
	images, err := e.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	var ids []types.ImageIdentifier
	for _, img := range images {
		if in.Filter == nil || tagged(img, in.Filter.TagStatus) {
			ids = append(ids, identifiers(img)...)
		}
	}
	page, next, err := paged(ids, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	return &api.ListImagesOutput{ImageIds: page, NextToken: next}, nil
}

func identifiers(img registry.Image) []types.ImageIdentifier {
	if len(img.Tags) == 0 {
		return []types.ImageIdentifier{{ImageDigest: &img.Digest}}
	}
	var ids []types.ImageIdentifier
	for _, tag := range img.Tags {
		ids = append(ids, types.ImageIdentifier{ImageDigest: &img.Digest, ImageTag: &tag})
	}
	return ids
}

// DescribeRepositories answers for the repositories with the given names, or page by page for all.
func (e *ECR) DescribeRepositories(_ context.Context, in *api.DescribeRepositoriesInput) (*api.DescribeRepositoriesOutput, error) {
	if len(in.RepositoryNames) > batchSize {
		return nil, invalid("repositoryNames", fmt.Sprintf("Member must have length less than or equal to %d", batchSize))
	}
	for _, name := range in.RepositoryNames {
		if _, err := e.repository(in.RegistryId, &name); err != nil {
			return nil, err
		}
	}
	all := slices.DeleteFunc(e.Registry.Repositories(), func(r registry.Repository) bool {
		return len(in.RepositoryNames) > 0 && !slices.Contains(in.RepositoryNames, r.Name)
	})
	page, next, err := paged(all, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeRepositoriesOutput{NextToken: next}
	for _, r := range page {
		arn, uri := e.repositoryARN(r.Name), r.Host+"/"+r.Name
		out.Repositories = append(out.Repositories, types.Repository{
			RegistryId: &e.World.Account, RepositoryName: &r.Name, RepositoryArn: &arn, RepositoryUri: &uri, CreatedAt: &r.CreatedAt,
			ImageTagMutability: types.ImageTagMutabilityMutable, ImageScanningConfiguration: &types.ImageScanningConfiguration{},
			EncryptionConfiguration: &types.EncryptionConfiguration{EncryptionType: types.EncryptionTypeAes256},
		})
	}
	return out, nil
}

// GetAuthorizationToken answers with a token for the account's registry,
// whichever was asked for. The registry takes it, and asks for it where the world
// says so.
func (e *ECR) GetAuthorizationToken(context.Context, *api.GetAuthorizationTokenInput) (*api.GetAuthorizationTokenOutput, error) {
	password, expires := e.Registry.Password()
	token := base64.StdEncoding.EncodeToString([]byte(registry.User + ":" + password))
	endpoint := "https://" + e.World.ECR()
	return &api.GetAuthorizationTokenOutput{AuthorizationData: []types.AuthorizationData{
		{AuthorizationToken: &token, ExpiresAt: &expires, ProxyEndpoint: &endpoint}}}, nil
}

// BatchCheckLayerAvailability tells which layers are in a repository.
func (e *ECR) BatchCheckLayerAvailability(_ context.Context, in *api.BatchCheckLayerAvailabilityInput) (*api.BatchCheckLayerAvailabilityOutput, error) {
	images, err := e.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if len(in.LayerDigests) > batchSize {
		return nil, invalid("layerDigests", fmt.Sprintf("Member must have length less than or equal to %d", batchSize))
	}
	out := &api.BatchCheckLayerAvailabilityOutput{}
	for _, digest := range in.LayerDigests {
		if !isDigest(digest) {
			reason := "Invalid request parameters: layer digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'"
			out.Failures = append(out.Failures, types.LayerFailure{LayerDigest: &digest, FailureCode: types.LayerFailureCodeInvalidLayerDigest, FailureReason: &reason})
			continue
		}
		layer := types.Layer{LayerDigest: &digest, LayerAvailability: types.LayerAvailabilityUnavailable}
		if size, ok := layerSize(images, digest); ok {
			media := "application/vnd.docker.image.rootfs.diff.tar"
			layer.LayerAvailability, layer.LayerSize, layer.MediaType = types.LayerAvailabilityAvailable, &size, &media
		}
		out.Layers = append(out.Layers, layer)
	}
	return out, nil
}

func layerSize(images []registry.Image, digest string) (size int64, ok bool) {
	for _, img := range images {
		if size, ok := img.Layer(digest); ok {
			return size, true
		}
	}
	return 0, false
}

// GetDownloadUrlForLayer answers with the layer's URL in the lab's registry.
func (e *ECR) GetDownloadUrlForLayer(_ context.Context, in *api.GetDownloadUrlForLayerInput) (*api.GetDownloadUrlForLayerOutput, error) {
	images, err := e.repository(in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if _, ok := layerSize(images, *in.LayerDigest); !ok {
		return nil, wire.Errorf("LayersNotFoundException", "The layer with digest '%s' does not exist in the repository with name '%s' in the registry with id '%s'",
			*in.LayerDigest, *in.RepositoryName, e.World.Account)
	}
	url := e.Registry.Presign(e.URL + "/v2/" + e.host(e.registryID(in.RegistryId)) + "/" + *in.RepositoryName + "/blobs/" + *in.LayerDigest)
	return &api.GetDownloadUrlForLayerOutput{DownloadUrl: &url, LayerDigest: in.LayerDigest}, nil
}
