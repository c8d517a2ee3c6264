package ecsstatus

import "time"

// Status is what show-ecs-service-status prints: the keys that people know from
// its forerunner, and what belongs to them.
type Status struct {
	Status  string   `json:"status"` // ACTIVE, DRAINING, INACTIVE
	Desired int      `json:"desired"`
	Running int      `json:"running"`
	Pending int      `json:"pending"` // still starting
	Deploys []Deploy `json:"deploys"` // more than one: a rolling update is in progress
}

// Deploy is a deployment in a Status.
type Deploy struct {
	Status         string    `json:"status"`         // PRIMARY, ACTIVE, INACTIVE
	TaskDefinition string    `json:"taskDefinition"` // ARN
	Desired        int       `json:"desired"`
	Running        int       `json:"running"`
	Pending        int       `json:"pending"`
	Failed         int       `json:"failed"`
	RolloutState   string    `json:"rolloutState"`
	Created        time.Time `json:"created"` // RFC 3339, UTC
	Updated        time.Time `json:"updated"`
}

// StatusOf is the Status of a container type.
func StatusOf(s *Service) Status {
	out := Status{Status: s.Status, Desired: s.Desired, Running: s.Running, Pending: s.Pending, Deploys: []Deploy{}}
	for _, d := range s.Deployments {
		out.Deploys = append(out.Deploys, Deploy{
			Status:         d.Status,
			TaskDefinition: d.TaskDefinition,
			Desired:        d.Desired,
			Running:        d.Running,
			Pending:        d.Pending,
			Failed:         d.Failed,
			RolloutState:   d.RolloutState,
			Created:        d.Created.Truncate(time.Second),
			Updated:        d.Updated.Truncate(time.Second),
		})
	}
	return out
}
