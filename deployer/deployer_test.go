package deployer

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"jumpsuite/internal/awsconfig"
)

// strictClock is an AWS whose clock is hours ahead of ours, and that refuses what
// was signed by another one, as AWS does beyond five minutes; then it fails.
func strictClock(t *testing.T, answered *int) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(3 * time.Hour).UTC()
		w.Header().Set("Date", now.Format(http.TimeFormat))
		w.Header().Set("X-Amzn-RequestId", "1")
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil || now.Sub(signed).Abs() > 5*time.Minute {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"__type":"InvalidSignatureException","message":"Signature expired"}`)
			return
		}
		*answered++
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, `{"__type":"ServerException","message":"try again"}`)
	}))
	t.Cleanup(s.Close)
	return s
}

// What was refused for the time of its signature was not done and is signed
// anew, by AWS's time; nothing else is repeated.
func TestOurClockMayBeHoursOff(t *testing.T) {
	answered := 0
	s := strictClock(t, &answered)
	d := New(aws.Config{Region: "eu-central-1", APIOptions: awsconfig.PlainBodies(), BaseEndpoint: &s.URL, Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", "")}, "prod")
	_, err := d.ecs.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: aws.String("web")})
	if err == nil || answered != 1 || fateOf(err) != unknown {
		t.Errorf("answered %d times, want 1; error %v", answered, err)
	}
	if ahead := time.Until(d.clock.Now()); ahead < 2*time.Hour {
		t.Errorf("AWS's clock is %s ahead, want 3h", ahead)
	}
}

// What stands between us and AWS has a clock too: it is not AWS's, and would let
// a deployment time out, or a task look proven, at once.
func TestTheClockIsAWSsAndNotThatOfAProxy(t *testing.T) {
	var requestID string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(3*time.Hour).UTC().Format(http.TimeFormat))
		if requestID != "" {
			w.Header().Set("X-Amzn-RequestId", requestID)
		}
		http.Error(w, "<h1>bad gateway</h1>", http.StatusBadGateway)
	}))
	t.Cleanup(s.Close)
	d := New(aws.Config{Region: "eu-central-1", APIOptions: awsconfig.PlainBodies(), BaseEndpoint: &s.URL, Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", "")}, "prod")
	for _, tt := range []struct {
		name, id string
		ahead    bool
	}{{"a proxy", "", false}, {"AWS", "dde9dfbc", true}} {
		requestID = tt.id
		if _, err := d.ecs.DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: []string{"web"}}); err == nil {
			t.Fatal("no error")
		}
		if got := time.Until(d.clock.Now()) > time.Hour; got != tt.ahead {
			t.Errorf("an answer of %s: heard its clock: %v, want %v", tt.name, got, tt.ahead)
		}
	}
}
