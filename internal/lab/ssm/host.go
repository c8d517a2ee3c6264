package ssm

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"jumpsuite/internal/lab/agent"
)

// play plays the agent's end of a session, in this process or one of its own.
func (s *SSM) play(one *session, address string) {
	c := agent.Config{Session: one.id, Instance: one.instance, Service: s.Service(), Region: s.World.Region, Key: s.Key, Secret: s.Secret,
		Kind: one.document.Kind, Properties: one.properties, Address: address, Exact: s.World.Link.Exact}
	run := s.workerOf
	if s.Worker == "" {
		run = s.workHere
	}
	output, err := run(one, c)
	if err != nil {
		output = agent.CrashText
		s.crashed(one, err)
	}
	s.completed(one, output)
}

// workHere plays the worker of one session in this process.
func (s *SSM) workHere(one *session, c agent.Config) (string, error) {
	defer s.note(one, os.Getpid())()
	return agent.Run(one.over, c)
}

// crashed waits, as the agent does before it tells of a worker that has crashed.
func (s *SSM) crashed(one *session, err error) {
	if one.over.Err() != nil {
		return // it was ended
	}
	s.Log.Info("a session's worker has crashed", "session", one.id, "error", err)
	select {
	case <-time.After(cmp.Or(time.Duration(s.World.Link.Crash), agent.CrashTime)):
	case <-one.over.Done():
	}
}

// completed is what the agent tells the service, if it can.
func (s *SSM) completed(one *session, output string) {
	if s.reachable(one.instance) {
		one.finish(output)
	}
}

// workerOf runs the worker of one session: its configuration is its input, what
// the service is told is its output.
func (s *SSM) workerOf(one *session, c agent.Config) (string, error) {
	in, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(one.over, s.Worker, one.id)
	cmd.Args[0] = "ssm-session-worker"
	cmd.Stdin, cmd.Stdout = bytes.NewReader(in), &out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer s.note(one, cmd.Process.Pid)()
	err = cmd.Wait()
	return out.String(), err
}

// note writes the file in which the agent keeps what it knows of a session
// that runs (agent/contracts/document.go), and returns what removes it.
func (s *SSM) note(one *session, pid int) (forget func()) {
	if s.State == "" {
		return func() {}
	}
	dir := filepath.Join(s.State, one.instance, "document", "state", "current")
	name := filepath.Join(dir, one.id)
	text, err := json.MarshalIndent(one.state(pid), "", "  ")
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(name, text, 0o600)
	}
	if err != nil {
		s.Log.Error("the state of a session cannot be written", "session", one.id, "error", err)
	}
	return func() { os.Remove(name) }
}

// state is the part of the agent's DocumentState that is about who and what.
func (o *session) state(pid int) any {
	type process struct {
		Pid       int
		StartTime time.Time
	}
	type information struct {
		DocumentID, CommandID, InstanceID, MessageID, DocumentName, DocumentStatus string
		ProcInfo                                                                   process
		SessionOwner                                                               string
	}
	type document struct {
		DocumentInformation information
		DocumentType        string
		SchemaVersion       string
	}
	return document{information{DocumentID: o.id, CommandID: o.id, MessageID: o.id, InstanceID: o.instance, DocumentName: o.document.name,
		DocumentStatus: "InProgress", ProcInfo: process{pid, time.Now()}, SessionOwner: o.owner}, "StartSession", "1.0"}
}
