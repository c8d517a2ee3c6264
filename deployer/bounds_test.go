package deployer

import (
	"testing"
	"testing/quick"
)

// The table is the one of the rolling scheduler's rules.
func TestBoundsWithinWhichADeploymentCanMove(t *testing.T) {
	for _, tt := range []struct {
		desired, min, max, lo, hi int
		moves                     bool
	}{
		{0, 100, 100, 0, 0, true},
		{1, 0, 100, 0, 1, true},
		{1, 50, 100, 1, 1, false},
		{1, 100, 150, 1, 1, false},
		{1, 75, 125, 1, 1, false},
		{1, 100, 100, 1, 1, false},
		{1, 50, 200, 1, 2, true},
		{1, 100, 200, 1, 2, true},
		{2, 50, 100, 1, 2, true},
		{2, 75, 125, 2, 2, false},
		{2, 100, 100, 2, 2, false},
		{3, 100, 150, 3, 4, true},
		{3, 75, 125, 3, 3, false},
		{4, 50, 200, 2, 8, true},
		{5, 75, 125, 4, 6, true},
		{10, 75, 125, 8, 12, true},
	} {
		lo, hi := bounds(tt.desired, tt.min, tt.max)
		if moves := canMove(tt.desired, tt.min, tt.max); lo != tt.lo || hi != tt.hi || moves != tt.moves {
			t.Errorf("%d at %d/%d: keep %d, total %d, moves %v, want %d, %d, %v", tt.desired, tt.min, tt.max, lo, hi, moves, tt.lo, tt.hi, tt.moves)
		}
	}
}

// simulate plays the scheduler with tasks that become healthy at once: it
// reports whether all old tasks are replaced in the end.
func simulate(desired, minPercent, maxPercent int) bool {
	lo, hi := bounds(desired, minPercent, maxPercent)
	old, fresh := desired, 0
	for range 4 * (desired + 1) {
		start := max(min(desired-fresh, hi-old-fresh), 0)
		fresh += start
		old -= max(min(old, old+fresh-lo), 0)
	}
	return old == 0 && fresh == desired
}

func TestCanMoveAgreesWithAScheduler(t *testing.T) {
	agree := func(d, low, high uint8) bool {
		desired, minPercent, maxPercent := int(d%40), int(low)%101, 100+int(high)%101
		return canMove(desired, minPercent, maxPercent) == simulate(desired, minPercent, maxPercent)
	}
	if err := quick.Check(agree, &quick.Config{MaxCount: 20000}); err != nil {
		t.Error(err)
	}
}

func TestSuggestedBoundsMoveAndTheirNeighboursDoNot(t *testing.T) {
	for desired := 1; desired <= 200; desired++ {
		low, high := wouldMove(desired)
		if !canMove(desired, low, 100) || !canMove(desired, 100, high) {
			t.Errorf("%d desired: suggested %d or %d do not move", desired, low, high)
		}
		if canMove(desired, low+1, 100) || canMove(desired, 100, high-1) {
			t.Errorf("%d desired: %d and %d are not the nearest", desired, low, high)
		}
	}
}
