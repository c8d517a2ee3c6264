package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"jumpsuite/deployer"
	"jumpsuite/internal/access"
	"jumpsuite/internal/audit"
	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// record is what the audit log gets of one deployment: the decision; an open
// with the plan, before anything changes; a change before each change; a close
// with the result. All have one id. Not under sudo it records nothing.
type record struct {
	way           *access.Access
	containerType string
	stderr        io.Writer

	decided audit.Event
	opened  time.Time      // zero: not yet
	last    deployer.Event // that names a deployment and its definition
	outcome deployer.Kind  // the last event that was an outcome
}

// allow asks the policy with the whole image URL: what the caller left out has
// been completed by then.
func (r *record) allow(i deployer.Image) (err error) {
	r.decided, err = r.way.Decide(deployAction, policy.Resource{ContainerType: r.containerType, Image: i.String()})
	return err
}

// line is a further line about what was decided.
func (r *record) line(kind audit.Kind, detail string) *audit.Event {
	e := r.decided
	e.Kind, e.Time, e.Detail = kind, time.Time{}, detail
	return &e
}

// step records a step before it is taken, and before the first one that there is a
// deployment at all.
func (r *record) step(p *deployer.Plan, what string) error {
	if r.way.Log == nil {
		return nil
	}
	if r.opened.IsZero() {
		if err := r.way.Log.Record(r.line(audit.Open, planned(p))); err != nil {
			return err
		}
		r.opened = time.Now()
	}
	return r.way.Log.Record(r.line(audit.Change, what))
}

// planned is a plan in one line.
func planned(p *deployer.Plan) string {
	text := fmt.Sprintf("cluster %s, container %s of %s: %s to %s", p.Cluster, p.Container, p.Base, p.From, p.To)
	if p.Digest != "" {
		text += ", digest " + p.Digest
	}
	text += fmt.Sprintf(", strategy %s, %d desired", p.Strategy, p.Desired)
	if p.Back != "" {
		text += ", roll-back to " + p.Back
	}
	return text
}

// watch passes events on, and keeps what the close will tell.
func (r *record) watch(tell func(deployer.Event)) func(deployer.Event) {
	return func(e deployer.Event) {
		if e.Deployment != "" && e.TaskDefinition != "" {
			r.last = e
		}
		switch e.Kind {
		case deployer.Done, deployer.Broke, deployer.RolledBack, deployer.NotRolledBack, deployer.Overtaken, deployer.Interrupted, deployer.NotBegun:
			r.outcome = e.Kind
		}
		tell(e)
	}
}

// end records how it ended, if it began. That it could not be recorded changes
// nothing about the result.
func (r *record) end(err error) {
	if !r.opened.IsZero() {
		e := r.line(audit.Close, r.result())
		e.Result = &audit.Result{Exit: cli.ExitCode(err), Duration: time.Since(r.opened)}
		if err != nil {
			e.Result.Error = err.Error()
		}
		if err := r.way.Log.Record(e); err != nil {
			fmt.Fprintf(r.stderr, "note: the end is not in the audit log: %s\n", cli.Printable(err.Error()))
		}
	}
}

// result is the outcome and the deployment that it is about.
func (r *record) result() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", r.outcome, r.last.Deployment, r.last.TaskDefinition))
}
