package awsconfig

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// An answer may begin before net/http has noticed that the request is sent: where both
// ends are on one busy machine, it does.
func TestAnAnswerThatIsQuickerThanTheRequestIsReadToItsEnd(t *testing.T) {
	isolate(t)
	sent := make(chan struct{})
	url, calls := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.Header.Get("X-Amz-Target") == ""
		begin, end := `{"clusterArns":[`, `"c"]}`
		if query {
			begin, end = "<R><DescribeTargetGroupsResult>", "</DescribeTargetGroupsResult></R>"
		}
		fmt.Fprint(w, begin)
		http.NewResponseController(w).Flush()
		<-sent
		time.Sleep(20 * time.Millisecond) // for a connection to be closed in
		fmt.Fprint(w, end)
	}))
	cfg, err := Load(t.Context(), Options{Region: "eu-central-1", Endpoint: url})
	if err != nil {
		t.Fatal(err)
	}
	cfg.HTTPClient = cfg.HTTPClient.(*awshttp.BuildableClient).WithTransportOptions(func(tr *http.Transport) {
		tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			return &slowConn{Conn: c, sent: sent}, err
		}
	})
	out, err := ecs.NewFromConfig(cfg).ListClusters(t.Context(), nil)
	if err != nil || len(out.ClusterArns) != 1 || calls.Swap(0) != 1 {
		t.Errorf("ECS: got %+v, %v, want one cluster at the first try", out, err)
	}
	if _, err := elb.NewFromConfig(cfg).DescribeTargetGroups(t.Context(), nil); err != nil || calls.Load() != 1 {
		t.Errorf("ELB: %v after %d tries, want an answer at the first", err, calls.Load())
	}
}

// slowConn is a connection whose writer goes on late after the body of a request.
type slowConn struct {
	net.Conn
	sent chan<- struct{}
}

func (c *slowConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if !bytes.Contains(p, []byte(" HTTP/1.1\r\n")) {
		time.Sleep(50 * time.Millisecond) // for the answer to begin, and the SDK to close the body in
		c.sent <- struct{}{}
	}
	return n, err
}

// A body of which only Read and Seek are left is measured and sent again all the same.
func TestARetryCarriesTheWholeBodyAgain(t *testing.T) {
	isolate(t)
	type sent struct {
		length int64
		body   string
	}
	var tries []sent
	url, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		tries = append(tries, sent{r.ContentLength, string(body)})
		if len(tries) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"clusterArns":["c"]}`)
	}))
	cfg, err := Load(t.Context(), Options{Region: "eu-central-1", Endpoint: url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ecs.NewFromConfig(cfg).ListClusters(t.Context(), &ecs.ListClustersInput{MaxResults: aws.Int32(7)}); err != nil {
		t.Fatal(err)
	}
	want := sent{16, `{"maxResults":7}`}
	if len(tries) != 3 || tries[0] != want || tries[1] != want || tries[2] != want {
		t.Errorf("got %v, want three times %v", tries, want)
	}
}
