package together

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var patience = Patience{Most: 10 * time.Second, Least: 3 * time.Second, Times: 5}

const hangs = time.Hour

var errOffline = errors.New("offline")

func TestWhoHangsIsWaitedForAsTheOthersMakeItReasonable(t *testing.T) {
	for _, tt := range []struct {
		name string
		take []time.Duration // negative: it fails after that
		want time.Duration   // for all of it
		late []int
	}{
		{"all are quick", []time.Duration{time.Millisecond, 2 * time.Millisecond}, 2 * time.Millisecond, nil},
		{"one of three hangs", []time.Duration{time.Millisecond, hangs, time.Millisecond}, 3 * time.Second, []int{1}},
		{"one of two hangs", []time.Duration{time.Millisecond, hangs}, 3 * time.Second, []int{1}},
		{"the others are slow, too", []time.Duration{time.Second, 1200 * time.Millisecond, 5 * time.Second, hangs}, 6 * time.Second, []int{3}},
		{"half are quick, and then one is not", []time.Duration{time.Millisecond, -2 * time.Millisecond, 2900 * time.Millisecond, 9 * time.Second}, 9 * time.Second, nil},
		{"the only one hangs", []time.Duration{hangs}, 10 * time.Second, []int{0}},
		{"most hang", []time.Duration{time.Millisecond, hangs, hangs}, 10 * time.Second, []int{1, 2}},
		{"who fails is no measure", []time.Duration{-time.Millisecond, -time.Millisecond, hangs}, 10 * time.Second, []int{2}},
		{"who fails has said something", []time.Duration{-time.Millisecond, time.Millisecond, hangs}, 3 * time.Second, []int{2}},
		{"a slow one is waited for", []time.Duration{time.Millisecond, time.Millisecond, 2 * time.Second}, 2 * time.Second, nil},
		{"nobody", nil, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				answers, errs := Ask(t.Context(), len(tt.take), patience, func(ctx context.Context, i int) (int, error) {
					select {
					case <-time.After(tt.take[i].Abs()):
					case <-ctx.Done():
						return 0, ctx.Err()
					}
					if tt.take[i] < 0 {
						return 0, errOffline
					}
					return i + 1, nil
				})
				if got := time.Since(began); got != tt.want {
					t.Errorf("it took %v, want %v", got, tt.want)
				}
				for i, err := range errs {
					var late *LateError
					switch {
					case slices.Contains(tt.late, i) != errors.As(err, &late):
						t.Errorf("%d: got %v", i, err)
					case err == nil && answers[i] != i+1:
						t.Errorf("%d: got %d", i, answers[i])
					}
				}
			})
		})
	}
}

func TestWhatEndsTheAskingIsWhyNobodyAnswered(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errOffline)
	_, errs := Ask(ctx, 1, patience, func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	if !errors.Is(errs[0], errOffline) && !errors.Is(errs[0], context.Canceled) {
		t.Errorf("got %v", errs)
	}
}
