package scripttest_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/scripttest"
)

func TestMain(m *testing.M) {
	scripttest.Main(m, map[string]func(){"clusters": clusters, "desired": desired, "both": func() { clusters(); desired() }})
}

func TestScripts(t *testing.T) { scripttest.Run(t, "testdata/script") }

// clusters prints the clusters' ARNs.
func clusters() {
	client := open()
	out, err := client.ListClusters(context.Background(), &ecs.ListClustersInput{})
	if err != nil {
		fail(err)
	}
	for _, arn := range out.ClusterArns {
		fmt.Println(arn)
	}
}

// desired succeeds when service $1 of the only cluster has as many tasks running as are desired, $2.
func desired() {
	client := open()
	out, err := client.DescribeServices(context.Background(), &ecs.DescribeServicesInput{Cluster: &os.Args[1], Services: os.Args[2:3]})
	if err != nil {
		fail(err)
	}
	s := out.Services[0]
	fmt.Printf("%d of %d\n", s.RunningCount, s.DesiredCount)
	if fmt.Sprint(s.DesiredCount) != os.Args[3] || s.RunningCount != s.DesiredCount {
		os.Exit(1)
	}
}

func open() *ecs.Client {
	c, err := config.LoadDefaultConfig(context.Background(), config.WithAPIOptions(awsconfig.PlainBodies()))
	if err != nil {
		fail(err)
	}
	return ecs.NewFromConfig(c)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
