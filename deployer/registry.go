package deployer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
)

// Images is the part of the ECR client that a Deployer uses.
type Images interface {
	DescribeImages(context.Context, *ecr.DescribeImagesInput, ...func(*ecr.Options)) (*ecr.DescribeImagesOutput, error)
	BatchGetImage(context.Context, *ecr.BatchGetImageInput, ...func(*ecr.Options)) (*ecr.BatchGetImageOutput, error)
	GetDownloadUrlForLayer(context.Context, *ecr.GetDownloadUrlForLayerInput, ...func(*ecr.Options)) (*ecr.GetDownloadUrlForLayerOutput, error)
}

// Checked is what the registry said of an image.
type Checked struct {
	Digest string // empty if it could not be asked
	// Platforms are what it is for; none if that is not known.
	Platforms []platform
	// Scan is how many findings of a severity (HIGH) ECR's scan has; nil: none is known.
	Scan  map[string]int
	Notes []string // what could not be asked, or what is odd
}

// check asks ECR for an image, in whatever account; of any other registry it says that it
// cannot be asked. Another account decides what it answers: see checkPullable. An image that is not there is an error with
// code 66, an ECR that does not answer one with 69: a deployment that cannot
// be checked does not begin.
func (d *Deployer) check(ctx context.Context, i Image, account string) (Checked, error) {
	owner, region, ok := i.ecrRegistry()
	if !ok {
		return Checked{Digest: i.Digest, Notes: []string{fmt.Sprintf("registry %s is no ECR: whether it has the image, and for which architecture, cannot be checked", registryName(i))}}, nil
	}
	in := &ecr.DescribeImagesInput{RegistryId: aws.String(owner), RepositoryName: aws.String(i.Repository), ImageIds: []ecrtypes.ImageIdentifier{identifier(i)}}
	out, err := d.Images(region).DescribeImages(ctx, in)
	if owner != account && denied(awsconfig.Explain(err)) {
		return d.checkPullable(ctx, i, owner, region)
	}
	if err != nil {
		return Checked{}, d.checkError(ctx, i, owner, region, err)
	}
	if len(out.ImageDetails) == 0 {
		return Checked{}, noImage(i, nil)
	}
	checked := Checked{Digest: aws.ToString(out.ImageDetails[0].ImageDigest)}
	checked.scanned(out.ImageDetails[0].ImageScanFindingsSummary)
	return d.withPlatforms(ctx, checked, i, owner, region)
}

// withPlatforms adds what an image is for.
func (d *Deployer) withPlatforms(ctx context.Context, checked Checked, i Image, owner, region string) (_ Checked, err error) {
	in := &ecr.DescribeImagesInput{RegistryId: aws.String(owner), RepositoryName: aws.String(i.Repository)}
	checked.Platforms, err = d.platformsOf(ctx, in, region, checked.Digest)
	switch {
	case errors.Is(err, errNoImage):
		return checked, cli.Errorf(cli.ExitConfig, "deploy a container image", "%s: %w", i.Short(), err)
	case err != nil:
		checked.Notes = append(checked.Notes, fmt.Sprintf("for which architecture the image is could not be checked: %v", err))
	}
	return checked, nil
}

// checkPullable asks another account's ECR for what it lets people see who may pull and no
// more, which is what repository policies usually allow: the manifest. A no is a
// note: the hosts may have rights that we have not.
func (d *Deployer) checkPullable(ctx context.Context, i Image, owner, region string) (Checked, error) {
	out, err := d.Images(region).BatchGetImage(ctx, &ecr.BatchGetImageInput{RegistryId: aws.String(owner), RepositoryName: aws.String(i.Repository),
		ImageIds: []ecrtypes.ImageIdentifier{identifier(i)}, AcceptedMediaTypes: manifestTypes})
	if why := awsconfig.Explain(err); denied(why) {
		return Checked{Digest: i.Digest, Notes: []string{fmt.Sprintf("whether the ECR of account %s has the image, and for which architecture, is not checked: %v", owner, why)}}, nil
	}
	if err != nil {
		return Checked{}, d.checkError(ctx, i, owner, region, err)
	}
	if len(out.Images) == 0 {
		return Checked{}, noImage(i, nil)
	}
	checked := Checked{Digest: i.Digest}
	if id := out.Images[0].ImageId; id != nil && id.ImageDigest != nil {
		checked.Digest = *id.ImageDigest
	}
	return d.withPlatforms(ctx, checked, i, owner, region)
}

// scanned notes what ECR's scan of the image found. It stops nothing: what is
// bad enough to is for who looks after the images.
func (c *Checked) scanned(s *ecrtypes.ImageScanFindingsSummary) {
	if s == nil {
		return
	}
	c.Scan = map[string]int{}
	var parts []string
	for _, severity := range []ecrtypes.FindingSeverity{ecrtypes.FindingSeverityCritical, ecrtypes.FindingSeverityHigh, ecrtypes.FindingSeverityMedium,
		ecrtypes.FindingSeverityLow, ecrtypes.FindingSeverityInformational, ecrtypes.FindingSeverityUndefined} {
		if n := s.FindingSeverityCounts[string(severity)]; n > 0 {
			c.Scan[string(severity)] = int(n)
			parts = append(parts, fmt.Sprintf("%d %s", n, severity))
		}
	}
	if len(parts) > 0 {
		c.Notes = append(c.Notes, "ECR's scan of the image found "+strings.Join(parts, ", ")+": see aws ecr describe-image-scan-findings")
	}
}

func registryName(i Image) string {
	if i.Registry == "" {
		return "docker.io"
	}
	return i.Registry
}

// identifier asks by the digest where there is one: Docker pulls by it too,
// and does not look at the tag.
func identifier(i Image) ecrtypes.ImageIdentifier {
	if i.Digest != "" {
		return ecrtypes.ImageIdentifier{ImageDigest: aws.String(i.Digest)}
	}
	return ecrtypes.ImageIdentifier{ImageTag: aws.String(i.Tag)}
}

func (d *Deployer) checkError(ctx context.Context, i Image, owner, region string, err error) error {
	if _, ok := errors.AsType[*ecrtypes.ImageNotFoundException](err); ok {
		return noImage(i, d.tags(ctx, i, owner, region))
	}
	if _, ok := errors.AsType[*ecrtypes.RepositoryNotFoundException](err); ok {
		return cli.Errorf(cli.ExitNotFound, "check the name, and that the image has been pushed", "no repository %s in registry %s", i.Repository, i.Registry)
	}
	return cli.Errorf(cli.ExitUnavailable, "--skip-image-check deploys without knowing whether the image is there",
		"check image %s in ECR: %w", i.Short(), awsconfig.Explain(err))
}

func noImage(i Image, newest []string) error {
	hint := "push it first"
	if near := cli.Nearest(i.Tag, newest, 3); len(near) > 0 {
		hint = "the nearest tags are " + strings.Join(near, ", ")
	} else if len(newest) > 0 {
		hint = "the newest tags are " + strings.Join(newest[:min(5, len(newest))], ", ")
	}
	return cli.Errorf(cli.ExitNotFound, hint, "no image %s in repository %s", i.Short(), i.Repository)
}

// tags are the tags of a repository, the newest first. They are for a hint, so
// an error is no reason to say anything else.
func (d *Deployer) tags(ctx context.Context, i Image, owner, region string) []string {
	out, err := d.Images(region).DescribeImages(ctx, &ecr.DescribeImagesInput{
		RegistryId: aws.String(owner), RepositoryName: aws.String(i.Repository), MaxResults: aws.Int32(1000),
		Filter: &ecrtypes.DescribeImagesFilter{TagStatus: ecrtypes.TagStatusTagged},
	})
	if err != nil {
		return nil
	}
	slices.SortStableFunc(out.ImageDetails, func(a, b ecrtypes.ImageDetail) int {
		return aws.ToTime(b.ImagePushedAt).Compare(aws.ToTime(a.ImagePushedAt))
	})
	var tags []string
	for _, image := range out.ImageDetails {
		tags = append(tags, image.ImageTags...)
	}
	return tags
}
