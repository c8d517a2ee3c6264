// Package awsconfig is how AWS is reached. Nothing else in jumpsuite knows
// credentials, endpoints, time-outs, retries or rate limits.
//
// Called by a user who is not under sudo, it takes what every AWS tool takes:
// the SDK's default chain. Under sudo it takes nothing that a caller could have
// planted: the shared files at fixed root-owned paths below Dir, else the role
// of the instance.
//
// Every client made from a Config paces itself within AWS's token buckets
// (shared by all clients made from it), gives up on a dead endpoint within
// seconds, and returns errors that say what to check: see Error.
package awsconfig

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"

	"jumpsuite/internal/cli"
)

// Dir holds the shared AWS files of the privileged commands: config and
// credentials, in the format of ~/.aws.
const Dir = "/etc/jumpsuite/aws"

const (
	dialTimeout = 5 * time.Second  // of a TCP connection, and again of its TLS handshake
	callTimeout = 10 * time.Second // of one attempt, its answer read to the end: AWS takes one or two
	imdsTimeout = 2 * time.Second  // of one question to the instance metadata service
)

// Options say how AWS is to be reached. The zero value is the default chain.
type Options struct {
	Region   string // empty: what the chain says, else the instance's own
	Endpoint string // URL that all services answer on (a lab, a VPC endpoint); empty: AWS's
	Sudo     bool   // the caller is under sudo: see the package doc
	Name     string // the command, for the user agent; empty: jumpsuite
	// Speed is how many of AWS's seconds pass in one of ours, where AWS is a lab
	// whose clock runs faster: its buckets refill by that. Zero means 1.
	Speed float64

	// dir and callTimeout replace Dir and callTimeout in tests.
	dir         string
	callTimeout time.Duration
}

// Load finds credentials, region and endpoint. It does not ask AWS anything,
// but for the region: where nobody says one, the instance metadata service is
// asked, briefly.
func Load(ctx context.Context, o Options) (aws.Config, error) {
	var zero aws.Config
	load := []func(*config.LoadOptions) error{
		config.WithHTTPClient(o.httpClient()),
		config.WithRetryer(newRetryer),
		config.WithAPIOptions(PlainBodies()), // here, so that the chain's own clients have it
		// The SDK would write warnings of its own to our standard error.
		config.WithLogger(logging.Nop{}),
		config.WithEC2RoleCredentialOptions(func(r *ec2rolecreds.Options) { r.Client = metadata() }),
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.Sudo {
		sudo, err := o.sudo()
		if err != nil {
			return zero, err
		}
		load = append(load, sudo...)
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return zero, cli.Errorf(cli.ExitConfig, "check AWS_PROFILE, AWS_CA_BUNDLE and ~/.aws/config", "load the AWS configuration: %w", err)
	}
	if err := o.place(ctx, &cfg); err != nil {
		return zero, err
	}
	cfg.Credentials = &provider{cfg.Credentials}
	cfg.APIOptions = append(cfg.APIOptions, explain, newBuckets(o.Speed).limit, userAgent(o.Name))
	return cfg, nil
}

// place sets the endpoint and makes sure of a region.
func (o Options) place(ctx context.Context, cfg *aws.Config) error {
	if o.Endpoint != "" {
		cfg.BaseEndpoint = aws.String(o.Endpoint)
		cfg.ConfigSources = append([]any{onlyOurEndpoint{}}, cfg.ConfigSources...)
	}
	if cfg.Region != "" {
		return checkRegion(cfg.Region)
	}
	ctx, cancel := context.WithTimeout(ctx, imdsTimeout)
	defer cancel()
	out, err := metadata().GetRegion(ctx, nil)
	if err != nil {
		return cli.Errorf(cli.ExitConfig, "give --region, set AWS_REGION, or have an administrator write a region for this environment into the policy file",
			"no AWS region is configured, and this machine has no instance metadata to take one from")
	}
	cfg.Region = out.Region
	return nil
}

// regionName is what can be part of a host's name: the SDK takes nothing else.
var regionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)

func checkRegion(region string) error {
	if regionName.MatchString(region) {
		return nil
	}
	return cli.Errorf(cli.ExitConfig, "a region is a name such as eu-central-1; it comes from --region, the policy file, AWS_REGION or ~/.aws/config", "%q is no AWS region", region)
}

// onlyOurEndpoint makes the SDK look no further for an endpoint: without it,
// AWS_ENDPOINT_URL_ECS would win over the one that was asked for.
type onlyOurEndpoint struct{}

// GetIgnoreConfiguredEndpoints is what the SDK asks its sources for.
func (onlyOurEndpoint) GetIgnoreConfiguredEndpoints(context.Context) (value, found bool, err error) {
	return true, true, nil
}

// sudo limits the SDK to root's own files and the instance role.
func (o Options) sudo() ([]func(*config.LoadOptions) error, error) {
	if err := cleanEnvironment(os.Environ()); err != nil {
		return nil, err
	}
	dir := o.dir
	if dir == "" {
		dir = Dir
	}
	configs, err := rootOwned(filepath.Join(dir, "config"), 0o022)
	if err != nil {
		return nil, err
	}
	credentials, err := rootOwned(filepath.Join(dir, "credentials"), 0o077)
	if err != nil {
		return nil, err
	}
	return []func(*config.LoadOptions) error{
		config.WithSharedConfigFiles(configs),
		config.WithSharedCredentialsFiles(credentials),
	}, nil
}

// cleanEnvironment refuses to go on with what the SDK would read: internal/caller
// has to have cleared it before.
func cleanEnvironment(env []string) error {
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if name == "HOME" || strings.HasPrefix(name, "AWS_") {
			return fmt.Errorf("load the AWS configuration: %s is still set, although the caller is under sudo", name)
		}
	}
	return nil
}

// rootOwned is the one-element list of path, or the empty list if there is no
// such file. It, its folder and its folder's folder must be root's, and nobody
// else's to write; the file must have none of the bits in mask.
//
// The SDK opens the file by name later. That is no race: in a folder that only
// root may write, nobody else can put another file in its place.
func rootOwned(path string, mask os.FileMode) ([]string, error) {
	dir := filepath.Dir(path)
	for _, p := range []string{filepath.Dir(dir), dir} {
		if err := ownedByRoot(p, 0o022); os.IsNotExist(err) {
			return []string{}, nil
		} else if err != nil {
			return nil, err
		}
	}
	switch err := ownedByRoot(path, mask); {
	case os.IsNotExist(err):
		return []string{}, nil
	case err != nil:
		return nil, err
	}
	return []string{path}, nil
}

func (o Options) httpClient() *awshttp.BuildableClient {
	timeout := callTimeout
	if o.callTimeout != 0 {
		timeout = o.callTimeout
	}
	return awshttp.NewBuildableClient().
		WithTimeout(timeout).
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.TLSHandshakeTimeout = dialTimeout
			t.MaxIdleConnsPerHost = 64
		})
}

// metadata asks the instance metadata service and takes no for an answer: off
// EC2 its address leads nowhere, and the SDK's own client waits for half a minute.
func metadata() *imds.Client {
	return imds.New(imds.Options{
		HTTPClient: awshttp.NewBuildableClient().
			WithTimeout(imdsTimeout).
			WithDialerOptions(func(d *net.Dialer) { d.Timeout = imdsTimeout / 2 }),
		Retryer:        aws.NopRetryer{},
		EnableFallback: aws.FalseTernary,
	})
}

func userAgent(name string) apiOption {
	if name == "" {
		name = "jumpsuite"
	}
	return awsmiddleware.AddUserAgentKeyValue("jumpsuite", name)
}
