package session_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/session"
)

// clock is AWS's, an hour ahead of ours, as its answers tell.
type clock struct{ ahead time.Duration }

func (c clock) Do(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultClient.Do(r)
	if err == nil {
		res.Header.Set("Date", time.Now().Add(c.ahead).UTC().Format(http.TimeFormat))
	}
	return res, err
}

// dates keeps when requests say that they were signed.
type dates struct {
	mu  sync.Mutex
	all []string
}

func (d *dates) RoundTrip(r *http.Request) (*http.Response, error) {
	d.mu.Lock()
	d.all = append(d.all, r.Header.Get("X-Amz-Date"))
	d.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

// AWS refuses what was signed more than five minutes ago, or will be: a machine
// whose clock is off by an hour reaches its hosts all the same, and again when its
// websocket was lost.
func TestASessionIsSignedByAWSsClock(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour} {
		l := start(t, "")
		if err := l.Listen(host, 2376, echo); err != nil {
			t.Fatal(err)
		}
		c, signed := config(l), &dates{}
		url := l.URL()
		c.API = ssm.NewFromConfig(aws.Config{Region: c.Region, APIOptions: awsconfig.PlainBodies(), BaseEndpoint: &url, Credentials: c.Credentials, HTTPClient: clock{ahead}})
		c.HTTP = &http.Client{Transport: signed}
		s, err := session.Start(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		signed.mu.Lock()
		defer signed.mu.Unlock()
		if len(signed.all) == 0 {
			t.Fatal("nothing was signed")
		}
		for _, text := range signed.all {
			at, err := time.Parse("20060102T150405Z", text)
			if off := time.Until(at) - ahead; err != nil || off.Abs() > 2*time.Minute {
				t.Errorf("AWS's clock is %v ahead: signed %v off it (%v)", ahead, off, err)
			}
		}
	}
}
