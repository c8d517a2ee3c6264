package ssm_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/ssm"
	"jumpsuite/internal/lab/world"
)

func start(t *testing.T) *ssm.SSM {
	t.Helper()
	w, err := world.Parse([]byte("clusters: [{name: prod, hosts: [{count: 20, instance: i-0first}, {offline: true}]}, {name: test, hosts: [{}]}]"), "world")
	if err != nil {
		t.Fatal(err)
	}
	return ssm.New(ssm.Config{World: w, Clock: clock.New(1)})
}

func addresses(t *testing.T, s *ssm.SSM, in *api.DescribeInstanceInformationInput) (all []string, pages int) {
	t.Helper()
	for {
		out, err := s.DescribeInstanceInformation(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range out.InstanceInformationList {
			all = append(all, *i.IPAddress)
		}
		pages++
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return all, pages
		}
	}
}

func TestTheInventoryComesInPages(t *testing.T) {
	s := start(t)
	for _, tt := range []struct {
		name  string
		size  *int32
		pages int
	}{{"by default", nil, 3}, {"the smallest", aws.Int32(5), 5}, {"the largest", aws.Int32(50), 1}} {
		t.Run(tt.name, func(t *testing.T) {
			all, pages := addresses(t, s, &api.DescribeInstanceInformationInput{MaxResults: tt.size})
			if len(all) != 22 || pages != tt.pages {
				t.Errorf("got %d hosts on %d pages, want 22 on %d", len(all), pages, tt.pages)
			}
		})
	}
}

func filter(key string, values ...string) *api.DescribeInstanceInformationInput {
	return &api.DescribeInstanceInformationInput{Filters: []types.InstanceInformationStringFilter{{Key: &key, Values: values}}}
}

func TestFilters(t *testing.T) {
	s := start(t)
	for _, tt := range []struct {
		name string
		in   *api.DescribeInstanceInformationInput
		want string
	}{
		{"offline", filter("PingStatus", "ConnectionLost"), "10.0.0.30"},
		{"by id", filter("InstanceIds", "i-0first", "i-0nobody"), "10.0.0.10"},
		{"no match", filter("PlatformTypes", "Windows"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := addresses(t, s, tt.in); strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func TestHostsGoAndComeBack(t *testing.T) {
	s := start(t)
	lost := func() string {
		got, _ := addresses(t, s, filter("PingStatus", "ConnectionLost"))
		return strings.Join(got, " ")
	}
	s.Lose("10.0.0.11")
	s.Lose("i-0first")
	if got := lost(); got != "10.0.0.10 10.0.0.11 10.0.0.30" {
		t.Errorf("got %s", got)
	}
	s.Back("10.0.0.10")
	s.Back("10.0.0.30") // never was reachable
	s.Lose("test")
	if got := lost(); got != "10.0.0.11 10.0.0.30 10.0.0.31" {
		t.Errorf("got %s", got)
	}
}

func TestWrongRequestsAreRefused(t *testing.T) {
	s := start(t)
	for _, tt := range []struct {
		name string
		in   *api.DescribeInstanceInformationInput
		want string
	}{
		{"a page too small", &api.DescribeInstanceInformationInput{MaxResults: aws.Int32(4)}, "ValidationException: "},
		{"a page too large", &api.DescribeInstanceInformationInput{MaxResults: aws.Int32(51)}, "ValidationException: "},
		{"a made-up token", &api.DescribeInstanceInformationInput{NextToken: aws.String("x")}, "InvalidNextToken: "},
		{"an unknown filter", filter("Colour", "red"), "InvalidFilterKey: "},
		{"no values", filter("PingStatus"), "InvalidInstanceInformationFilterValue: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := s.DescribeInstanceInformation(t.Context(), tt.in); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
