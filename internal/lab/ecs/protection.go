package ecs

import (
	"context"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// GetTaskProtection tells which tasks are protected from scale-in.
func (p *Plane) GetTaskProtection(ctx context.Context, in *sdk.GetTaskProtectionInput) (*sdk.GetTaskProtectionOutput, error) {
	if len(in.Tasks) > 100 {
		return nil, invalid("Tasks can have at most 100 elements.")
	}
	out := &sdk.GetTaskProtectionOutput{ProtectedTasks: []types.ProtectedTask{}, Failures: []types.Failure{}}
	err := p.read(ctx, func(st *state) error {
		c, err := st.find(in.Cluster)
		if err != nil {
			return err
		}
		for _, name := range in.Tasks {
			t, failure := p.protectable(c, name)
			if failure != nil {
				out.Failures = append(out.Failures, *failure)
				continue
			}
			out.ProtectedTasks = append(out.ProtectedTasks, t.protection(p.now()))
		}
		return nil
	})
	return answer(out, err)
}

// UpdateTaskProtection protects up to ten tasks from scale-in, for two hours
// unless told otherwise, or ends it.
func (p *Plane) UpdateTaskProtection(_ context.Context, in *sdk.UpdateTaskProtectionInput) (*sdk.UpdateTaskProtectionOutput, error) {
	if len(in.Tasks) == 0 || len(in.Tasks) > 10 {
		return nil, invalid("Tasks must have between 1 and 10 elements.")
	}
	minutes := int32(120)
	if in.ExpiresInMinutes != nil {
		minutes = *in.ExpiresInMinutes
	}
	if minutes < 1 || minutes > 2880 {
		return nil, invalid("expiresInMinutes must be between 1 and 2880.")
	}
	out := &sdk.UpdateTaskProtectionOutput{ProtectedTasks: []types.ProtectedTask{}, Failures: []types.Failure{}}
	err := errClosed
	p.mutate(func() {
		var c *cluster
		if c, err = p.state.find(in.Cluster); err != nil {
			return
		}
		for _, name := range in.Tasks {
			t, failure := p.protectable(c, name)
			if failure != nil {
				out.Failures = append(out.Failures, *failure)
				continue
			}
			p.protect(t, in.ProtectionEnabled, p.now().Add(time.Duration(minutes)*time.Minute))
			out.ProtectedTasks = append(out.ProtectedTasks, t.protection(p.now()))
		}
	})
	return answer(out, err)
}

// protect switches a task's protection; until zero is for ever.
func (p *Plane) protect(t *task, on bool, until time.Time) {
	t.protected, t.until = on, until
	t.version++
	p.kick(t.service, timeStep)
	if on && !until.IsZero() {
		s := t.service
		p.after(until.Sub(p.now()), func() { p.kick(s, 0) })
	}
}

// protectable finds a task that runs and belongs to a service.
func (p *Plane) protectable(c *cluster, name string) (*task, *types.Failure) {
	t := c.task(name)
	if t == nil || !t.alive() {
		failure := missing(p.taskARN(c, name))
		return nil, &failure
	}
	if t.service == nil {
		return nil, &types.Failure{Arn: ptr(t.arn), Reason: ptr("TASK_NOT_VALID"), Detail: ptr("The task is not part of a service.")}
	}
	return t, nil
}

func (t *task) protection(now time.Time) types.ProtectedTask {
	out := types.ProtectedTask{TaskArn: ptr(t.arn), ProtectionEnabled: t.shielded(now)}
	if out.ProtectionEnabled {
		out.ExpirationDate = when(t.until)
	}
	return out
}
