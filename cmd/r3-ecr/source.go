package main

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/ecrlogin"
)

// source gets logins from AWS.
type source struct {
	places places
	log    *slog.Logger
}

// fetch asks ECR for a login, in the registry's region. It is good for every
// registry there that our credentials may use: the account cannot be asked for
// any more (ECR API reference, GetAuthorizationToken: registryIds is deprecated).
func (s *source) fetch(ctx context.Context, r ecrlogin.Registry) (ecrlogin.Login, time.Duration, error) {
	l, life, err := s.ask(ctx, r)
	if err != nil {
		err = awsconfig.Explain(err)
		s.log.Error("AWS gave no login", "registry", r.Host(), "err", err)
		return ecrlogin.Login{}, 0, err
	}
	s.log.Info("AWS gave a login", "registry", r.Host(), "life", life.Round(time.Second))
	return l, life, nil
}

func (s *source) ask(ctx context.Context, r ecrlogin.Registry) (ecrlogin.Login, time.Duration, error) {
	cfg, err := awsconfig.Load(ctx, awsconfig.Options{Region: r.Region, Endpoint: s.places[r], Name: "r3-ecr"})
	if err != nil {
		return ecrlogin.Login{}, 0, err
	}
	out, err := ecr.NewFromConfig(cfg).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return ecrlogin.Login{}, 0, err
	}
	// The end is on AWS's clock, which ours need not agree with.
	now, ok := awsmiddleware.GetServerTime(out.ResultMetadata)
	if !ok {
		now = time.Now()
	}
	return login(out, now)
}

// errToken does not quote the answer, which is a secret.
var errToken = errors.New("ecr:GetAuthorizationToken did not answer with a token that is good for a while")

// login is the login in an answer, and for how long from now, AWS's time, it is good.
func login(out *ecr.GetAuthorizationTokenOutput, now time.Time) (ecrlogin.Login, time.Duration, error) {
	if len(out.AuthorizationData) == 0 {
		return ecrlogin.Login{}, 0, errToken
	}
	data := out.AuthorizationData[0]
	if data.AuthorizationToken == nil || data.ExpiresAt == nil || !data.ExpiresAt.After(now) {
		return ecrlogin.Login{}, 0, errToken
	}
	text, err := base64.StdEncoding.DecodeString(*data.AuthorizationToken)
	user, password, ok := strings.Cut(string(text), ":")
	if err != nil || !ok || user == "" || password == "" {
		return ecrlogin.Login{}, 0, errToken
	}
	return ecrlogin.Login{User: user, Password: ecrlogin.Secret(password)}, data.ExpiresAt.Sub(now), nil
}
