package deployer

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"jumpsuite/internal/cli"
)

// imageExample is in every complaint about an image URL.
const imageExample = "an image URL is REGISTRY/REPOSITORY:TAG, as in 123456789012.dkr.ecr.eu-central-1.amazonaws.com/web:1.2 (or @sha256:… for the tag)"

// Image is a parsed image URL.
type Image struct {
	Registry   string // host, with its port; empty when none was given
	Repository string // without the registry
	Tag        string // may be empty if there is a digest
	Digest     string // sha256:…; may be empty if there is a tag
}

// ParseImage parses an image URL. It must name a tag or a digest: what "latest"
// stands for is nothing that a deployment should depend on. Errors are usage
// errors that say what is wrong.
func ParseImage(s string) (Image, error) {
	if complaint := suspicious(s); complaint != "" {
		return Image{}, badImage(s, complaint)
	}
	ref, err := reference.Parse(s)
	if err != nil {
		return Image{}, badImage(s, explain(s, err))
	}
	named, ok := ref.(reference.Named)
	if !ok {
		return Image{}, badImage(s, "it has no repository")
	}
	i := split(named.Name())
	if tagged, ok := ref.(reference.Tagged); ok {
		i.Tag = tagged.Tag()
	}
	if digested, ok := ref.(reference.Digested); ok {
		i.Digest = digested.Digest().String()
	}
	if i.Digest != "" && !strings.HasPrefix(i.Digest, "sha256:") {
		return Image{}, badImage(s, notSHA256)
	}
	if i.Tag == "" && i.Digest == "" {
		return Image{}, cli.Usage(fmt.Sprintf("name one, as in %s:1.2", s), "image URL %q has no tag and no digest", s)
	}
	return i, nil
}

const notSHA256 = "what follows @ must be sha256: and 64 hexadecimal digits"

func badImage(s, complaint string) error {
	return cli.Usage(imageExample, "bad image URL %q: %s", s, complaint)
}

// suspicious names mistakes for which the grammar's complaint would not help.
func suspicious(s string) string {
	switch {
	case s == "":
		return "it is empty"
	case strings.Contains(s, "://"):
		return "it must not begin with " + s[:strings.Index(s, "://")+3]
	case strings.ContainsAny(s, " \t\r\n"):
		return "there is a space in it"
	case strings.HasSuffix(s, ":"):
		return "the tag is empty"
	case strings.HasSuffix(s, "@"):
		return "the digest is empty"
	case strings.HasSuffix(s, "/"):
		return "it has no repository"
	}
	return ""
}

func explain(s string, err error) string {
	switch {
	case errors.Is(err, reference.ErrNameContainsUppercase):
		return "a repository's name has no capital letters"
	case errors.Is(err, reference.ErrNameTooLong):
		return "the name is too long"
	case strings.Contains(s, "@") && !errors.Is(err, reference.ErrReferenceInvalidFormat):
		return "the digest is not sha256: and 64 hexadecimal digits"
	case strings.Contains(s, "@"):
		return notSHA256
	}
	return "it is not of the form REGISTRY/REPOSITORY:TAG"
}

// split tells the registry from the repository as Docker does: the first part
// is a host if it has a dot or a colon, or is localhost.
func split(name string) Image {
	first, rest, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return Image{Registry: first, Repository: rest}
	}
	return Image{Repository: name}
}

// String is the image URL.
func (i Image) String() string {
	s := i.Name()
	if i.Tag != "" {
		s += ":" + i.Tag
	}
	if i.Digest != "" {
		s += "@" + i.Digest
	}
	return s
}

// Name is the image URL without tag and digest.
func (i Image) Name() string {
	if i.Registry == "" {
		return i.Repository
	}
	return i.Registry + "/" + i.Repository
}

// Short is the image as people say it: without the registry.
func (i Image) Short() string {
	i.Registry = ""
	return i.String()
}

// Last is the last part of the repository.
func (i Image) Last() string {
	return i.Repository[strings.LastIndex(i.Repository, "/")+1:]
}

// complete gives i, which was given without a registry, the registry and path
// of the image that the container has now, if it is of the same name.
func (i Image) complete(now Image) (Image, bool) {
	if i.Registry != "" {
		return i, true
	}
	if i.Repository != now.Last() && i.Repository != now.Repository {
		return i, false
	}
	i.Registry, i.Repository = now.Registry, now.Repository
	return i, true
}

// parseLoose parses what a task definition has as an image, where no tag means
// latest. What does not parse gives an Image without anything.
func parseLoose(s string) Image {
	ref, err := reference.Parse(s)
	named, ok := ref.(reference.Named)
	if err != nil || !ok {
		return Image{}
	}
	i := split(named.Name())
	if t, ok := ref.(reference.Tagged); ok {
		i.Tag = t.Tag()
	}
	if d, ok := ref.(reference.Digested); ok {
		i.Digest = d.Digest().String()
	}
	return i
}

// ecrHost are the names of ECR registries: ACCOUNT.dkr.ecr.REGION.amazonaws.com,
// the dual-stack ACCOUNT.dkr-ecr.REGION.on.aws, FIPS and China
// (https://docs.aws.amazon.com/general/latest/gr/ecr.html).
var ecrHost = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)$`)

// ecrRegistry returns the account and region of i's registry if that is ECR.
func (i Image) ecrRegistry() (account, region string, ok bool) {
	m := ecrHost.FindStringSubmatch(i.Registry)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}
