package deployer

import (
	"context"
	"time"

	"jumpsuite/ecsstatus"
)

// labelTime is how long asking for the addresses of hosts may take, on our clock.
const labelTime = 3 * time.Second

// labels are what people call hosts: by address, or by instance id where that is
// not known. They are for the eye: what cannot be read is no failed look, and is
// not asked for again, as what is known is not.
type labels struct {
	known                 map[string]string // by container instance ARN
	hostless, addressless bool              // cannot be read
}

// of are the labels of the hosts of tasks, by container instance ARN.
func (l *labels) of(ctx context.Context, r *ecsstatus.Reader, tasks []ecsstatus.Task) map[string]string {
	if l == nil || l.hostless {
		return nil
	}
	hosts, err := r.TaskHosts(ctx, tasks)
	if err != nil {
		l.hostless = ctx.Err() == nil
		return nil
	}
	out := map[string]string{}
	for arn, label := range l.add(ctx, r, hosts) {
		if _, asked := hosts[arn]; asked {
			out[arn] = label
		}
	}
	return out
}

// add labels hosts that have no label yet, with one call for their addresses.
func (l *labels) add(ctx context.Context, r *ecsstatus.Reader, hosts map[string]ecsstatus.Host) map[string]string {
	var fresh []ecsstatus.Host
	for arn, h := range hosts {
		if _, known := l.known[arn]; !known {
			fresh = append(fresh, h)
		}
	}
	l.address(ctx, r, fresh)
	for _, h := range fresh {
		if l.known == nil {
			l.known = map[string]string{}
		}
		l.known[h.Instance] = h.Label()
	}
	return l.known
}

func (l *labels) address(ctx context.Context, r *ecsstatus.Reader, hosts []ecsstatus.Host) {
	if l.addressless || len(hosts) == 0 {
		return
	}
	limited, cancel := context.WithTimeout(ctx, labelTime)
	defer cancel()
	l.addressless = r.Address(limited, hosts) != nil && ctx.Err() == nil
}
