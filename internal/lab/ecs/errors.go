package ecs

import (
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab/wire"
)

// refuse is an error of AWS's for a request that is the caller's fault.
func refuse(code, message string) error {
	return &wire.Error{Status: http.StatusBadRequest, Code: code, Message: message}
}

func invalid(message string) error { return refuse("InvalidParameterException", message) }
func clientError(message string) error {
	return refuse("ClientException", message)
}

func noCluster() error { return refuse("ClusterNotFoundException", "Cluster not found.") }
func noService() error { return refuse("ServiceNotFoundException", "Service not found.") }
func notActive() error { return refuse("ServiceNotActiveException", "Service was not ACTIVE.") }

func missing(arn string) types.Failure {
	reason := "MISSING"
	return types.Failure{Arn: &arn, Reason: &reason}
}
