package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// trusting is a client that trusts a lab's certificate and nobody else's.
func trusting(t *testing.T, certificate []byte) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(certificate) {
		t.Fatalf("%q is no certificate", certificate)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
}

func TestTheLabsAddressAnswersWithTLSToo(t *testing.T) {
	l := start(t, "clusters: [{name: prod, hosts: [{instance: "+instance+"}]}]")
	certificate, err := l.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, scheme string }{{"plain", "http"}, {"with TLS", "https"}} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(l)
			c.BaseEndpoint, c.HTTPClient = aws.String(strings.Replace(l.URL(), "http", tt.scheme, 1)), trusting(t, certificate)
			out, err := ssm.NewFromConfig(c).DescribeInstanceInformation(t.Context(), &ssm.DescribeInstanceInformationInput{})
			if err != nil || len(out.InstanceInformationList) != 1 {
				t.Errorf("got %+v, %v", out, err)
			}
		})
	}
}

func TestAnotherLabsCertificateIsNotThisOnes(t *testing.T) {
	l, other := start(t, ""), start(t, "")
	certificate, err := other.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	_, err = trusting(t, certificate).Get(strings.Replace(l.URL(), "http", "https", 1))
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestWhoSaysNothingHoldsUpNobody(t *testing.T) {
	l := start(t, "")
	silent, err := net.Dial("tcp", strings.TrimPrefix(l.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URL()+"/lab/env", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("got %s, %v", answer.Status, err)
	}
}
