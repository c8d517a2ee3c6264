// Package otlpmetricgrpc stands where docker's CLI expects the exporter that
// sends its metrics over gRPC. Sudo docker sends none: this one says so, and the
// CLI goes on without. See docs/architecture.md, "What is left out of docker's CLI".
package otlpmetricgrpc

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/sdk/metric"
)

// Option is of no consequence.
type Option struct{}

// WithEndpoint is of no consequence.
func WithEndpoint(string) Option { return Option{} }

// WithInsecure is of no consequence.
func WithInsecure() Option { return Option{} }

var errAbsent = errors.New("no metrics are sent from here")

// New makes no exporter, ever.
func New(context.Context, ...Option) (metric.Exporter, error) { return nil, errAbsent }
