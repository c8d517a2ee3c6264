package deployer

import (
	"context"
	"errors"
	"os"
	"time"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
)

const (
	// labelTime is how long asking for the addresses of hosts may take, on our clock.
	labelTime = 3 * time.Second
	// labelTries is how many looks may ask in vain for what hosts are called by.
	labelTries = 3
)

// labels are what people call hosts: by address, or by instance id where that is
// not known. They are for the eye: what cannot be read is no failed look, and what
// is known is not asked for again.
type labels struct {
	known            map[string]string // by container instance ARN: what will not change
	hosts, addresses tries
}

// of are the labels of the hosts of tasks, by container instance ARN.
func (l *labels) of(ctx context.Context, r *ecsstatus.Reader, tasks []ecsstatus.Task) map[string]string {
	if l == nil || l.hosts.over() {
		return nil
	}
	hosts, err := r.TaskHosts(ctx, tasks)
	if err != nil {
		l.hosts.failed(ctx, err)
		return nil
	}
	var fresh []ecsstatus.Host
	out := map[string]string{}
	for arn, h := range hosts {
		if label, known := l.known[arn]; known {
			out[arn] = label
		} else {
			fresh = append(fresh, h)
		}
	}
	settled := l.address(ctx, r, fresh)
	for _, h := range fresh {
		out[h.Instance] = h.Label()
		if settled {
			l.keep(h)
		}
	}
	return out
}

func (l *labels) keep(h ecsstatus.Host) {
	if l.known == nil {
		l.known = map[string]string{}
	}
	l.known[h.Instance] = h.Label()
}

// address gives hosts their addresses, with one call. It reports whether it is not
// to be asked again.
func (l *labels) address(ctx context.Context, r *ecsstatus.Reader, hosts []ecsstatus.Host) (settled bool) {
	if l.addresses.over() || len(hosts) == 0 {
		return true
	}
	limited, cancel := context.WithTimeout(ctx, labelTime)
	defer cancel()
	if err := r.Address(limited, hosts); err != nil {
		l.addresses.failed(ctx, err)
		return l.addresses.over()
	}
	return true
}

// tries counts what was asked in vain.
type tries int

func (t tries) over() bool { return t >= labelTries }

// failed counts a failure. What AWS refuses, it would refuse again; and what does not
// answer in time would hold up one look after the other.
func (t *tries) failed(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil: // it was we who ended it
	case refuses(awsconfig.Explain(err)), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		*t = labelTries
	default:
		*t++
	}
}
