package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/cli"
)

func auditCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:  "audit",
		Usage: "the audit log: check it, read it, see recordings",
		Subcommands: []*urfave.Command{
			verifyCommand(stdio),
			listCommand(stdio),
			replayCommand(stdio),
		},
	}
}

func logFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "log", Usage: "the log's `FILE`; rotated ones beside it belong to it", Value: audit.DefaultPath}
}

func verifyCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:      "verify",
		Usage:     "find lines that were altered, dropped, added, moved or cut off",
		ArgsUsage: "[FILE…]",
		Args:      true,
		Description: "Without FILE, the log and its rotated files. A cut tail shows only with heads:\n" +
			"journalctl -o json MESSAGE_ID=" + audit.HeadMessageID + " | r3-admin audit verify --heads -",
		Flags: []urfave.Flag{
			logFlag(),
			&urfave.StringFlag{Name: "heads", Usage: "heads from journalctl -o json, or lines with seq=… hash=…, in `FILE` (- is stdin)"},
			&urfave.IntFlag{Name: "heads-uid", Usage: "the `UID` whose heads count"},
		},
		Action: func(c *urfave.Context) error {
			files, err := operands(c)
			if err != nil {
				return err
			}
			return verify(c, stdio, files)
		},
	}
}

func verify(c *urfave.Context, stdio cli.Stdio, files []string) error {
	var v audit.Verifier
	if err := readHeads(c, stdio, &v); err != nil {
		return err
	}
	opened, err := openLog(c.String("log"), files)
	if err != nil {
		return err
	}
	defer closeAll(opened)
	for _, f := range opened {
		if err := v.Read(f.name, f); err != nil {
			return &audit.DamagedError{What: "verify", Err: err}
		}
	}
	findings := v.Findings()
	if len(v.Heads) == 0 {
		v.Notes = append(v.Notes, "no heads were given: a tail that was cut off would not show (--heads)")
	}
	return renderFindings(stdio, &v, findings, len(opened))
}

func renderFindings(stdio cli.Stdio, v *audit.Verifier, findings []audit.Finding, files int) error {
	for _, n := range v.Notes {
		fmt.Fprintf(stdio.Err, "note: %s\n", visible(n))
	}
	for _, f := range findings {
		fmt.Fprintln(stdio.Out, visible(f.String()))
	}
	if len(findings) > 0 {
		return cli.Errorf(cli.ExitDamaged, "", "the log is not as it was written: %s in %s of %s",
			count(len(findings), "finding"), count(v.Lines, "true line"), count(files, "file"))
	}
	_, err := fmt.Fprintf(stdio.Out, "intact: %s in %s, %d to %d\n", count(v.Lines, "line"), count(files, "file"), v.First, v.Last)
	return err
}

func readHeads(c *urfave.Context, stdio cli.Stdio, v *audit.Verifier) error {
	name := c.String("heads")
	if name == "" {
		return nil
	}
	r := stdio.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return unreadable(err)
		}
		defer f.Close()
		r = f
	}
	heads, foreign, err := audit.ReadHeads(r, c.Int("heads-uid"), c.String("log"))
	if err != nil {
		return cli.Errorf(cli.ExitUsage, "journalctl -o json MESSAGE_ID="+audit.HeadMessageID, "read heads from %s: %w", name, err)
	}
	if foreign > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("%d heads were left out: not uid %d wrote them", foreign, c.Int("heads-uid")))
	}
	if len(heads) == 0 {
		return cli.Errorf(cli.ExitUsage, "journalctl -o json MESSAGE_ID="+audit.HeadMessageID, "there are no heads of %s in %s", c.String("log"), name)
	}
	v.Heads = heads
	return nil
}

// opened is one file of a log.
type opened struct {
	io.ReadCloser
	name string
}

func closeAll(files []opened) {
	for _, f := range files {
		f.Close()
	}
}

// openLog opens the files given, or those of the log at path, in their order and
// at one moment.
func openLog(path string, names []string) ([]opened, error) {
	release := audit.Hold(path)
	defer release()
	if len(names) == 0 {
		found, err := audit.Files(path)
		if err != nil {
			return nil, unreadable(err)
		}
		if len(found) == 0 {
			return nil, cli.Errorf(cli.ExitNotFound, "name it: --log FILE", "there is no log %s", path)
		}
		names = found
	} else {
		audit.SortFiles(names)
	}
	var files []opened
	for _, name := range names {
		f, err := audit.OpenNow(name)
		if err != nil {
			closeAll(files)
			return nil, unreadable(err)
		}
		files = append(files, opened{f, name})
	}
	return files, nil
}

// unreadable gives err the exit code and the hint that belong to it.
func unreadable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cli.Errorf(cli.ExitNotFound, "", "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return cli.Errorf(cli.ExitNotAllowed, "the log is readable by root and the group adm, recordings by root", "%w", err)
	}
	return err
}

func listCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:      "list",
		Usage:     "show what was done and what was refused",
		ArgsUsage: "[FILE…]",
		Args:      true,
		Flags: []urfave.Flag{
			logFlag(),
			&urfave.StringFlag{Name: "user", Usage: "of this user, by `NAME` or uid"},
			&urfave.StringFlag{Name: "action", Usage: "of this `ACTION`: docker.exec, or docker for all of docker's"},
			&urfave.StringFlag{Name: "id", Usage: "with this audit `ID`, here or on the other side"},
			&urfave.StringFlag{Name: "since", Usage: "from `TIME` on: 2026-01-31, 2026-01-31T14:00, …T14:00:00Z, or 2h ago as 2h"},
			&urfave.StringFlag{Name: "until", Usage: "before `TIME`"},
			&urfave.StringFlag{Name: "verdict", Usage: "`VERDICT`: allow or deny"},
			&urfave.StringFlag{Name: "output", Usage: "`FORMAT`: table, or json, the lines as they are", Value: "table"},
		},
		Action: func(c *urfave.Context) error {
			files, err := operands(c)
			if err != nil {
				return err
			}
			f, err := parseFilter(c, time.Now())
			if err != nil {
				return err
			}
			return list(c, stdio, files, f)
		},
	}
}

// filter says which events are listed; what is zero does not matter.
type filter struct {
	user, action, id, verdict string
	since, until              time.Time
}

func parseFilter(c *urfave.Context, now time.Time) (f filter, err error) {
	f = filter{user: c.String("user"), action: c.String("action"), id: c.String("id"), verdict: c.String("verdict")}
	if !slices.Contains([]string{"", "allow", "deny"}, f.verdict) {
		return f, cli.Usage("--verdict allow, or --verdict deny", "unknown verdict %q", f.verdict)
	}
	if !slices.Contains([]string{"table", "json"}, c.String("output")) {
		return f, cli.Usage("--output table, or --output json", "unknown output %q", c.String("output"))
	}
	if f.since, err = parseTime(c.String("since"), now); err != nil {
		return f, err
	}
	f.until, err = parseTime(c.String("until"), now)
	return f, err
}

// parseTime reads a time as people write it, local unless it says otherwise, or
// how long ago it was.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, cli.Usage("2026-01-31, 2026-01-31T14:00, 2026-01-31T14:00:00Z, or 2h for two hours ago", "%q is not a time", s)
}

func (f filter) has(e audit.Event) bool {
	switch {
	case f.user != "" && f.user != e.Principal.Name && (e.Principal.Name == "" || f.user != strconv.Itoa(e.Principal.UID)):
		return false
	case f.action != "" && f.action != e.Action && !strings.HasPrefix(e.Action, f.action+"."):
		return false
	case f.id != "" && f.id != e.ID && f.id != e.Far:
		return false
	case f.verdict != "" && (!e.Decides() || f.verdict != e.Verdict.String()):
		return false
	case !f.since.IsZero() && e.Time.Before(f.since):
		return false
	}
	return f.until.IsZero() || e.Time.Before(f.until)
}

func list(c *urfave.Context, stdio cli.Stdio, names []string, f filter) error {
	files, err := openLog(c.String("log"), names)
	if err != nil {
		return err
	}
	defer closeAll(files)
	out := bufio.NewWriter(stdio.Out)
	show, flush := tableOutput(out)
	if c.String("output") == "json" {
		show, flush = jsonOutput(out)
	}
	bad := 0
	for _, file := range files {
		err := audit.ReadLines(file, func(l audit.Line) error {
			if l.Err != nil {
				bad++
				return nil
			}
			if !f.has(l.Event) {
				return nil
			}
			return show(l)
		})
		if err != nil {
			return fmt.Errorf("read %s: %w", file.name, err)
		}
	}
	if err := errors.Join(flush(), out.Flush()); err != nil {
		return err
	}
	if bad > 0 {
		return cli.Errorf(cli.ExitDamaged, "r3-admin audit verify", "%s not to be trusted and left out", count(bad, "line"))
	}
	return nil
}

func jsonOutput(w io.Writer) (show func(audit.Line) error, flush func() error) {
	show = func(l audit.Line) error {
		_, err := w.Write(l.Raw)
		return err
	}
	return show, func() error { return nil }
}

func tableOutput(w io.Writer) (show func(audit.Line) error, flush func() error) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "TIME\tID\tKIND\tUSER\tENVIRONMENT\tACTION\tWHAT\tVERDICT\tNOTE")
	show = func(l audit.Line) error {
		cells := row(l.Event)
		for i := range cells {
			cells[i] = or(visible(cells[i]), "-")
		}
		_, err := fmt.Fprintln(t, strings.Join(cells, "\t"))
		return err
	}
	return show, t.Flush
}

func row(e audit.Event) []string {
	verdict := ""
	if e.Decides() {
		verdict = e.Verdict.String()
	}
	return []string{e.Time.Local().Format("2006-01-02 15:04:05"), e.ID, string(e.Kind), e.Principal.Name, e.Environment,
		e.Action, what(e.Resource), verdict, note(e)}
}

// what is the most telling name of a resource.
func what(r audit.Resource) string {
	container := r.Container
	if len(container) > 12 {
		container = container[:12]
	}
	return or(or(or(r.Name, r.ContainerType), container), or(r.Image, r.Host))
}

// note is what belongs to the kind of an event.
func note(e audit.Event) string {
	switch {
	case e.Result != nil:
		return ending(e.Result)
	case e.Decides() && e.Verdict == audit.Deny:
		return strings.TrimSpace("rule " + e.Rule + " " + e.Detail)
	case e.Kind == audit.Change && e.Detail != "": // which command it is about the decision says
		return e.Detail
	case len(e.Argv) > 0:
		return strings.Join(e.Argv, " ")
	}
	return or(e.Detail, e.Reason)
}

func ending(r *audit.Result) string {
	s := fmt.Sprintf("exit %d after %v", r.Exit, r.Duration.Round(time.Millisecond))
	if r.Signal != "" {
		s += ", signal " + r.Signal
	}
	if r.Recording != "" {
		s += ", recorded"
	}
	if r.Error != "" {
		s += ": " + r.Error
	}
	return s
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// visible escapes all that does not print, newlines and tabs too.
func visible(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

func replayCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:      "replay",
		Usage:     "show the recording of a session",
		ArgsUsage: "ID",
		Args:      true,
		Description: "On a terminal the session is replayed in its time, without what could attack the\n" +
			"terminal; elsewhere, and with --plain, its text is printed at once.",
		Flags: []urfave.Flag{
			logFlag(),
			&urfave.StringFlag{Name: "folder", Usage: "the `FOLDER` that holds recordings/", Value: audit.DefaultFolder},
			&urfave.Float64Flag{Name: "speed", Usage: "`TIMES` as fast", Value: 1},
			&urfave.DurationFlag{Name: "max-idle", Usage: "the longest pause, a `DURATION`", Value: 2 * time.Second},
			&urfave.BoolFlag{Name: "plain", Usage: "only the text, at once"},
		},
		Action: func(c *urfave.Context) error {
			ids, err := operands(c)
			if err != nil {
				return err
			}
			if len(ids) != 1 {
				return cli.Usage("r3-admin audit list shows the ids", "audit replay needs one id")
			}
			return replay(c, stdio, ids[0])
		},
	}
}

func replay(c *urfave.Context, stdio cli.Stdio, id string) error {
	path, err := audit.RecordingPath(c.String("folder"), id)
	if err != nil {
		return cli.Usage("r3-admin audit list shows the ids", "%w", err)
	}
	if c.Float64("speed") <= 0 || c.Duration("max-idle") < 0 {
		return cli.Usage("--speed 2 is twice as fast, --max-idle 1s", "speed and max-idle must be more than nothing")
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cli.Errorf(cli.ExitNotFound, "it was not recorded, or its recording was removed", "there is no recording %s", path)
	}
	if err != nil {
		return unreadable(err)
	}
	defer f.Close()
	damage := compare(c.String("log"), id, f, stdio.Err)
	p := newPlayer(c, stdio)
	return errors.Join(p.play(c.Context, f), damage)
}

// compare holds a recording against the sum that the log has of it, and rewinds it.
func compare(log, id string, f *os.File, warnings io.Writer) error {
	want, err := recordedSum(log, id)
	if err != nil || want == "" {
		fmt.Fprintf(warnings, "note: the log %s does not say what the recording was\n", visible(log))
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		fmt.Fprintln(warnings, "note: the recording is not what was recorded")
		return &audit.DamagedError{What: "the recording", Err: errors.New("its sum is not the one in the log")}
	}
	return nil
}

// recordedSum finds the sum in the event that closed the session.
func recordedSum(log, id string) (sum string, err error) {
	files, err := openLog(log, nil)
	if err != nil {
		return "", err
	}
	defer closeAll(files)
	for _, file := range files {
		err := audit.ReadLines(file, func(l audit.Line) error {
			if l.Err == nil && l.Event.ID == id && l.Event.Result != nil {
				sum = or(l.Event.Result.Recording, sum)
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return sum, nil
}

// player shows a recording.
type player struct {
	out, notes io.Writer
	screen     audit.Screen
	timed      bool
	speed      float64
	idle       time.Duration
	at         time.Duration
}

func newPlayer(c *urfave.Context, stdio cli.Stdio) *player {
	_, terminal := cli.Terminal(stdio.Out)
	timed := terminal && !c.Bool("plain")
	return &player{out: stdio.Out, notes: stdio.Err, screen: audit.Screen{Plain: !timed}, timed: timed,
		speed: c.Float64("speed"), idle: c.Duration("max-idle")}
}

func (p *player) play(ctx context.Context, r io.Reader) error {
	err := audit.ReadRecording(r, p.header, func(m audit.Moment) error { return p.moment(ctx, m) })
	_, last := io.WriteString(p.out, p.screen.Rest())
	if p.screen.Left > 0 {
		fmt.Fprintf(p.notes, "note: %s left out\n", count(p.screen.Left, "control sequence"))
	}
	return errors.Join(err, last)
}

func (p *player) header(h audit.RecordingHeader) error {
	columns, terminal := cli.Terminal(p.out)
	if terminal && p.timed && columns < h.Width {
		fmt.Fprintf(p.notes, "note: recorded on %d columns, this terminal has %d\n", h.Width, columns)
	}
	return nil
}

func (p *player) moment(ctx context.Context, m audit.Moment) error {
	if m.Code != "o" {
		return nil
	}
	if err := p.wait(ctx, m.At); err != nil {
		return err
	}
	_, err := p.out.Write(p.screen.Filter([]byte(m.Data)))
	return err
}

func (p *player) wait(ctx context.Context, at time.Duration) error {
	pause := min(at-p.at, p.idle)
	p.at = at
	if !p.timed || pause <= 0 {
		return context.Cause(ctx)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Duration(float64(pause) / p.speed)):
		return nil
	}
}

// operands returns what is not an option, and sets the options that come after
// it: urfave takes those for operands.
func operands(c *urfave.Context) ([]string, error) {
	var out []string
	args := c.Args().Slice()
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			return append(out, args[i+1:]...), nil
		}
		if len(a) < 2 || a[0] != '-' {
			out = append(out, a)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(a, "-"), "=")
		boolean, known := option(c, name)
		switch {
		case !known:
			return nil, cli.Usage(fmt.Sprintf("see '%s --help'", c.Command.HelpName), "unknown option %s", a)
		case given:
		case boolean:
			value = "true"
		case i+1 == len(args):
			return nil, cli.Usage(fmt.Sprintf("see '%s --help'", c.Command.HelpName), "flag needs an argument: %s", a)
		default:
			i++
			value = args[i]
		}
		if err := c.Set(name, value); err != nil {
			return nil, cli.Usage(fmt.Sprintf("see '%s --help'", c.Command.HelpName), "invalid value %q for %s: %w", value, a, err)
		}
	}
	return out, nil
}

func option(c *urfave.Context, name string) (boolean, known bool) {
	for _, f := range c.Command.Flags {
		if slices.Contains(f.Names(), name) {
			_, boolean := f.(*urfave.BoolFlag)
			return boolean, true
		}
	}
	return false, false
}
