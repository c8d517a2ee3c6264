package deployer

import "fmt"

// bounds are the numbers of tasks that ECS keeps within while it deploys: at
// least lo running and healthy, at most hi not stopped
// (https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html:
// the minimum is rounded up, the maximum down).
func bounds(desired, minPercent, maxPercent int) (lo, hi int) {
	return (desired*minPercent + 99) / 100, desired * maxPercent / 100
}

// canMove reports whether a rolling deployment can begin at all: ECS may stop
// an old task first, or start a new one first. Nothing has to move at desired 0.
func canMove(desired, minPercent, maxPercent int) bool {
	lo, hi := bounds(desired, minPercent, maxPercent)
	return desired == 0 || lo < desired || hi > desired
}

// wouldMove are the highest minimumHealthyPercent and the lowest maximumPercent
// with which a deployment of desired (> 0) tasks can move.
func wouldMove(desired int) (minPercent, maxPercent int) {
	return 100 * (desired - 1) / desired, (100*(desired+1) + desired - 1) / desired
}

// stuck is the finding for bounds within which nothing can move.
func stuck(s situation) []error {
	if canMove(s.desired, s.minPercent, s.maxPercent) {
		return nil
	}
	low, high := wouldMove(s.desired)
	would := fmt.Sprintf("minimumHealthyPercent %d or less, or maximumPercent %d or more, would work", low, high)
	if s.daemon {
		would = fmt.Sprintf("minimumHealthyPercent %d or less would work", low)
	}
	return []error{refusal(would+"; or deploy with --strategy replacing, which stops the old tasks first",
		"ECS could neither stop nor start a task: with %d desired, minimumHealthyPercent %d and maximumPercent %d allow exactly %d",
		s.desired, s.minPercent, s.maxPercent, s.desired)}
}
