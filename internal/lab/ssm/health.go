package ssm

import (
	"context"
	"time"

	"jumpsuite/internal/lab/wire"
)

// UpdateInstanceInformationInput is what an agent says of its host when it starts and every
// five minutes. The operation is the agent's alone: the SDKs do not have it.
type UpdateInstanceInformationInput struct {
	AgentName, AgentStatus, AgentVersion        *string
	AvailabilityZone, AvailabilityZoneId        *string
	ComputerName, IPAddress, InstanceId         *string
	PlatformName, PlatformType, PlatformVersion *string
	SSMConnectionChannel                        *string
}

// UpdateInstanceInformationOutput is empty.
type UpdateInstanceInformationOutput struct{}

// UpdateInstanceInformation takes what a real agent says of its host into the inventory. The
// address stays the world's: all hosts of a lab share this machine's.
func (s *SSM) UpdateInstanceInformation(_ context.Context, in *UpdateInstanceInformationInput) (*UpdateInstanceInformationOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.InstanceId == nil {
		return nil, wire.Errorf("ValidationException", "1 validation error detected: Value at 'instanceId' failed to satisfy constraint: Member must not be null")
	}
	h := s.host(*in.InstanceId)
	if h == nil {
		return nil, wire.Errorf("InvalidInstanceId", "The instance %s is not this account's", *in.InstanceId)
	}
	h.said, h.pinged = *in, s.clock.Now()
	return &UpdateInstanceInformationOutput{}, nil
}

// Commands is the service that agents ask for commands, ec2messages. There are none: the lab
// knows sessions only.
type Commands struct{ Of *SSM }

// pollTime is how long an agent that asks for commands waits for one.
const pollTime = 20 * time.Second

// GetMessagesInput is the question of an agent. The operation is the agent's alone.
type GetMessagesInput struct {
	Destination, MessagesRequestId *string
	VisibilityTimeoutInSeconds     *int64
}

// GetMessagesOutput is the answer.
type GetMessagesOutput struct {
	Destination, MessagesRequestId *string
	Messages                       []struct{}
}

// GetMessages answers after a while that there is nothing to do.
func (c Commands) GetMessages(_ context.Context, in *GetMessagesInput) (*GetMessagesOutput, error) {
	late := time.NewTimer(pollTime)
	defer late.Stop()
	select {
	case <-late.C:
	case <-c.Of.ctx.Done():
	}
	return &GetMessagesOutput{Destination: in.Destination, MessagesRequestId: in.MessagesRequestId, Messages: []struct{}{}}, nil
}
