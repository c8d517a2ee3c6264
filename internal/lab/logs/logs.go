// Package logs is the lab's CloudWatch Logs: it has what containers with the log
// driver awslogs have written.
package logs

import (
	"context"
	"time"

	api "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"jumpsuite/internal/lab/wire"
)

// most is the greatest Limit of GetLogEvents (CloudWatch Logs API reference).
const most = 10000

// Logs answers from what Written knows.
type Logs struct {
	// Written returns the lines of a stream and when they were written; found is
	// whether there is one of that name in the group.
	Written func(group, stream string) (lines []string, at time.Time, found bool)
}

// GetLogEvents answers with the first, or by default the last, lines of a stream.
func (l *Logs) GetLogEvents(_ context.Context, in *api.GetLogEventsInput) (*api.GetLogEventsOutput, error) {
	if in.LogGroupName == nil {
		return nil, wire.Errorf("InvalidParameterException", "the lab's log groups are found by logGroupName")
	}
	lines, at, found := l.Written(*in.LogGroupName, *in.LogStreamName)
	if !found {
		return nil, wire.Errorf("ResourceNotFoundException", "The specified log stream does not exist.")
	}
	limit := most
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	if limit < 1 || limit > most {
		return nil, wire.Errorf("InvalidParameterException", "limit is %d: 1 to %d", limit, most)
	}
	if n := len(lines) - limit; n > 0 && (in.StartFromHead == nil || !*in.StartFromHead) {
		lines = lines[n:]
	}
	return answer(lines[:min(len(lines), limit)], at.UnixMilli()), nil
}

func answer(lines []string, at int64) *api.GetLogEventsOutput {
	forward, backward := "f/0", "b/0"
	out := &api.GetLogEventsOutput{NextForwardToken: &forward, NextBackwardToken: &backward}
	for i := range lines {
		out.Events = append(out.Events, types.OutputLogEvent{Message: &lines[i], Timestamp: &at, IngestionTime: &at})
	}
	return out
}
