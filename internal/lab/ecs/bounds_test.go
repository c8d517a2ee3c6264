package ecs

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// The table of the rolling scheduler's limits: minimumHealthyPercent is rounded
// up, maximumPercent down.
func TestMinAndMaxPercentBoundADeployment(t *testing.T) {
	for _, tt := range []struct {
		desired, min, max       int
		keep, total             int
		stopsFirst, startsFirst int
	}{
		{1, 0, 100, 0, 1, 1, 0},
		{1, 50, 100, 1, 1, 0, 0},
		{1, 100, 150, 1, 1, 0, 0},
		{1, 75, 125, 1, 1, 0, 0},
		{1, 100, 100, 1, 1, 0, 0},
		{1, 50, 200, 1, 2, 0, 1},
		{1, 100, 200, 1, 2, 0, 1},
		{2, 50, 100, 1, 2, 1, 0},
		{2, 75, 125, 2, 2, 0, 0},
		{2, 100, 100, 2, 2, 0, 0},
		{3, 100, 150, 3, 4, 0, 1},
		{3, 75, 125, 3, 3, 0, 0},
		{4, 50, 200, 2, 8, 2, 4},
		{5, 75, 125, 4, 6, 1, 1},
		{10, 75, 125, 8, 12, 2, 2},
	} {
		t.Run(fmt.Sprintf("%d with %d/%d", tt.desired, tt.min, tt.max), func(t *testing.T) {
			c := types.DeploymentConfiguration{MinimumHealthyPercent: ptr(int32(tt.min)), MaximumPercent: ptr(int32(tt.max))}
			b := boundsOf(tt.desired, c)
			if b.low != tt.keep || b.high != tt.total {
				t.Errorf("keeps %d of at most %d, want %d of %d", b.low, b.high, tt.keep, tt.total)
			}
			if stops, starts := b.desired-b.low, b.high-b.desired; stops != tt.stopsFirst || starts != tt.startsFirst {
				t.Errorf("stops %d and starts %d first, want %d and %d", stops, starts, tt.stopsFirst, tt.startsFirst)
			}
			if want := tt.stopsFirst == 0 && tt.startsFirst == 0; b.stuck() != want {
				t.Errorf("stuck is %t, want %t", b.stuck(), want)
			}
		})
	}
}

func TestTheCircuitBreakersThreshold(t *testing.T) {
	configured := func(kind types.ThresholdType, value int32) *types.DeploymentCircuitBreaker {
		return &types.DeploymentCircuitBreaker{Enable: true, ThresholdConfiguration: &types.ThresholdConfiguration{Type: kind, Value: value}}
	}
	for _, tt := range []struct {
		name    string
		breaker *types.DeploymentCircuitBreaker
		desired int
		want    int
	}{
		{"default, one task", &types.DeploymentCircuitBreaker{Enable: true}, 1, 3},
		{"default, 25 tasks", &types.DeploymentCircuitBreaker{Enable: true}, 25, 13},
		{"default, 400 tasks", &types.DeploymentCircuitBreaker{Enable: true}, 400, 200},
		{"default, 800 tasks", &types.DeploymentCircuitBreaker{Enable: true}, 800, 200},
		{"bounded, 20 percent", configured(types.ThresholdTypeBoundedPercent, 20), 10, 3},
		{"unbounded, 50 percent", configured(types.ThresholdTypeUnboundedPercent, 50), 2, 1},
		{"unbounded, 800 tasks", configured(types.ThresholdTypeUnboundedPercent, 50), 800, 400},
		{"count", configured(types.ThresholdTypeCount, 7), 1, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := threshold(tt.breaker, tt.desired); got != tt.want {
				t.Errorf("threshold for %d is %d, want %d", tt.desired, got, tt.want)
			}
		})
	}
}
