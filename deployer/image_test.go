package deployer

import (
	"strings"
	"testing"

	"jumpsuite/internal/cli"
)

const digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
const digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
const ecrHostA = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"

func TestParseImageTakesWhatDockerTakes(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Image
	}{
		{ecrHostA + "/web:1.2", Image{ecrHostA, "web", "1.2", ""}},
		{ecrHostA + "/team/web@" + digestA, Image{ecrHostA, "team/web", "", digestA}},
		{ecrHostA + "/team/web:1@" + digestA, Image{ecrHostA, "team/web", "1", digestA}},
		{"localhost:5000/web:1", Image{"localhost:5000", "web", "1", ""}},
		{"registry:5000/web:1", Image{"registry:5000", "web", "1", ""}},
		{"localhost/web:1", Image{"localhost", "web", "1", ""}},
		{"web:1", Image{"", "web", "1", ""}},
		{"team/web:1", Image{"", "team/web", "1", ""}},
		{"quay.io/a/b/c:v1_2-3.4", Image{"quay.io", "a/b/c", "v1_2-3.4", ""}},
	} {
		got, err := ParseImage(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseImage(%q) = %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
		if got.String() != tt.in {
			t.Errorf("ParseImage(%q).String() = %q", tt.in, got)
		}
	}
}

func TestParseImageSaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", `bad image URL "": it is empty`},
		{"https://reg.example.com/web:1", `bad image URL "https://reg.example.com/web:1": it must not begin with https://`},
		{"web", `image URL "web" has no tag and no digest`},
		{"localhost:5000/web", `image URL "localhost:5000/web" has no tag and no digest`},
		{"Web:1", `bad image URL "Web:1": a repository's name has no capital letters`},
		{"web: 1", `bad image URL "web: 1": there is a space in it`},
		{"web:", `bad image URL "web:": the tag is empty`},
		{"web@", `bad image URL "web@": the digest is empty`},
		{"reg.example.com/", `bad image URL "reg.example.com/": it has no repository`},
		{"web@sha512:" + strings.Repeat("0", 128), "bad image URL \"web@sha512:" + strings.Repeat("0", 128) + "\": what follows @ must be sha256: and 64 hexadecimal digits"},
		{"web@sha256:abc", `bad image URL "web@sha256:abc": what follows @ must be sha256: and 64 hexadecimal digits`},
		{"web:1:2", `bad image URL "web:1:2": it is not of the form REGISTRY/REPOSITORY:TAG`},
		{"web:-1", `bad image URL "web:-1": it is not of the form REGISTRY/REPOSITORY:TAG`},
		{"web:" + strings.Repeat("1", 129), `bad image URL "web:` + strings.Repeat("1", 129) + `": it is not of the form REGISTRY/REPOSITORY:TAG`},
	} {
		got, err := ParseImage(tt.in)
		if err == nil || err.Error() != tt.want || cli.ExitCode(err) != cli.ExitUsage {
			t.Errorf("ParseImage(%q) = %+v, %v (code %d), want %s", tt.in, got, err, cli.ExitCode(err), tt.want)
		}
	}
}

func TestImageWithoutRegistryTakesTheOneOfTheContainer(t *testing.T) {
	for _, tt := range []struct {
		given, now, want string
		ok               bool
	}{
		{"web:2", ecrHostA + "/web:1", ecrHostA + "/web:2", true},
		{"web:2", ecrHostA + "/team/web:1", ecrHostA + "/team/web:2", true},
		{"team/web:2", ecrHostA + "/team/web:1", ecrHostA + "/team/web:2", true},
		{"web@" + digestA, ecrHostA + "/web:1", ecrHostA + "/web@" + digestA, true},
		{"nginx:2", "nginx:1", "nginx:2", true},
		{"other/web:2", ecrHostA + "/team/web:1", "other/web:2", false},
		{"api:2", ecrHostA + "/web:1", "api:2", false},
		{"quay.io/web:2", ecrHostA + "/web:1", "quay.io/web:2", true},
	} {
		given, err := ParseImage(tt.given)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := given.complete(parseLoose(tt.now))
		if got.String() != tt.want || ok != tt.ok {
			t.Errorf("%s beside %s = %s, %v, want %s, %v", tt.given, tt.now, got, ok, tt.want, tt.ok)
		}
	}
}

func TestRegistryHostsOfECR(t *testing.T) {
	for _, tt := range []struct {
		host, account, region string
		ok                    bool
	}{
		{ecrHostA, "123456789012", "eu-central-1", true},
		{"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com", "123456789012", "us-gov-west-1", true},
		{"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "123456789012", "us-east-1", true},
		{"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "123456789012", "cn-north-1", true},
		{"123456789012.dkr-ecr.eu-west-1.on.aws", "123456789012", "eu-west-1", true},
		{"12345.dkr.ecr.eu-west-1.amazonaws.com", "", "", false},
		{"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", "", "", false},
		{"public.ecr.aws", "", "", false},
		{"", "", "", false},
	} {
		account, region, ok := Image{Registry: tt.host}.ecrRegistry()
		if account != tt.account || region != tt.region || ok != tt.ok {
			t.Errorf("%q: got %q %q %v, want %q %q %v", tt.host, account, region, ok, tt.account, tt.region, tt.ok)
		}
	}
}
