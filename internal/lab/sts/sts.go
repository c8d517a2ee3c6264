// Package sts is the lab's AWS STS: it says who a caller is.
package sts

import (
	"context"

	api "github.com/aws/aws-sdk-go-v2/service/sts"
)

// STS knows one caller.
type STS struct {
	Account string // 12 digits
	User    string // name of the IAM user that all keys belong to
}

// GetCallerIdentity answers with the account and the user.
func (s *STS) GetCallerIdentity(context.Context, *api.GetCallerIdentityInput) (*api.GetCallerIdentityOutput, error) {
	arn, id := "arn:aws:iam::"+s.Account+":user/"+s.User, "AIDALABLABLABLABLABL"
	return &api.GetCallerIdentityOutput{Account: &s.Account, Arn: &arn, UserId: &id}, nil
}
