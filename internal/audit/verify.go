package audit

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
)

// Fault is what is wrong with a line.
type Fault string

// The faults, named after what was done to the line.
const (
	Altered   Fault = "altered"   // its bytes are not what was written
	Replaced  Fault = "replaced"  // it is whole, but the lines after it, or a head, knew another
	Dropped   Fault = "dropped"   // lines before it are missing
	Inserted  Fault = "inserted"  // it does not belong there
	Reordered Fault = "reordered" // it stands in the wrong place
	CutOff    Fault = "cut"       // lines after it are missing
	Partial   Fault = "partial"   // it was not written whole, and nothing has been written since
)

// Finding is one fault in a log.
type Finding struct {
	File  string // empty when it is about the log as a whole
	Line  int    // from 1
	Seq   uint64 // number in the chain, where that is known
	Fault Fault
	Text  string
}

func (f Finding) String() string {
	if f.File == "" {
		return fmt.Sprintf("%s: %s", f.Fault, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Fault, f.Text)
}

// Verifier reads the files of one log, the oldest first, and finds what was
// changed in them since they were written. The zero value is ready.
type Verifier struct {
	// Heads are what was announced outside of the log.
	Heads []Head

	// Notes are things worth knowing that are not faults.
	Notes []string

	// Lines is the number of true lines, First and Last are their outermost
	// numbers in the chain.
	Lines       int
	First, Last uint64

	findings []finding
	heads    map[uint64][]Head
	files    int
	file     string
	hash     string // of line Last
	prev     string // what line Last names as the line before it
	where    place  // of line Last
	gaps     []*gap
	rivals   []rival
	bad      []badLine
	rubbish  []byte // raw bytes of bad
}

// finding is a Finding with the number of its file.
type finding struct {
	Finding
	number int
}

type place struct {
	file   string
	number int
	line   int
}

// gap is a run of numbers that were passed over.
type gap struct {
	from, to uint64
	finding  int
}

// rival is one of several lines that claim the same number.
type rival struct {
	place
	hash string
}

type badLine struct {
	place
	err   error
	whole bool
}

// Read reads one file. name is what findings call it. The error is one of
// reading.
func (v *Verifier) Read(name string, r io.Reader) error {
	v.file, v.files = name, v.files+1
	v.sortHeads()
	before := v.Lines
	err := ReadLines(r, func(l Line) error {
		v.line(l)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if v.Lines == before && len(v.bad) == 0 {
		v.Notes = append(v.Notes, name+": no lines")
	}
	return nil
}

func (v *Verifier) sortHeads() {
	if v.heads != nil {
		return
	}
	v.heads = map[uint64][]Head{}
	for _, h := range v.Heads {
		v.heads[h.Seq] = append(v.heads[h.Seq], h)
	}
}

// Findings ends the verification, and returns what was found in the order of
// the lines.
func (v *Verifier) Findings() []Finding {
	v.settleRivals("")
	v.reportBad(0)
	v.checkHeads()
	slices.SortStableFunc(v.findings, func(a, b finding) int {
		return cmp.Or(a.number-b.number, a.Line-b.Line)
	})
	var out []Finding
	for _, f := range v.findings {
		out = append(out, f.Finding)
	}
	return out
}

func (v *Verifier) line(l Line) {
	if l.Err != nil {
		v.bad = append(v.bad, badLine{place{v.file, v.files, l.Number}, l.Err, l.Whole()})
		v.rubbish = append(v.rubbish, l.Raw...)
		return
	}
	v.Lines++
	e := l.Event
	at := place{v.file, v.files, l.Number}
	switch {
	case v.Lines == 1:
		v.begin(at, e)
	case e.Seq <= v.Last:
		v.late(at, e)
	default:
		v.next(at, e)
	}
	v.checkHead(at, e)
}

// begin takes the first true line of the log.
func (v *Verifier) begin(at place, e Event) {
	switch {
	case e.Kind != fileKind && len(v.bad) == 0:
		v.found(at, e.Seq, Dropped, "the lines before this one are missing: it is not the first of a file")
		v.gaps = append(v.gaps, &gap{1, max(e.Seq, 1) - 1, len(v.findings) - 1})
	case e.Seq == 1 && e.Prev != noHash:
		v.found(at, e.Seq, Replaced, "the first line of the log names a line before it")
	case e.Seq > 1 && len(v.bad) == 0:
		v.Notes = append(v.Notes, fmt.Sprintf("%s begins with line %d of the log (%s); earlier files were not given", at.file, e.Seq, e.Detail))
	}
	v.reportBad(1)
	v.First = e.Seq
	v.accept(at, e)
}

// accept makes e the newest line.
func (v *Verifier) accept(at place, e Event) {
	v.Last, v.hash, v.prev, v.where = e.Seq, e.Hash, e.Prev, at
	v.rivals = nil
}

// next takes a line with a higher number than all before it.
func (v *Verifier) next(at place, e Event) {
	v.settleRivals(e.Prev)
	want := v.Last + 1
	if v.repaired(e) {
		v.bad, v.rubbish = nil, nil
	}
	switch bad := uint64(len(v.bad)); {
	case bad > 0 && e.Seq == want && e.Prev == v.hash:
		v.reportBad(-1)
	case bad > 0:
		v.reportBad(1)
		v.missing(at, want+bad, e.Seq)
	case e.Seq > want:
		v.missing(at, want, e.Seq)
	case e.Prev != v.hash:
		v.found(v.where, v.Last, Replaced, fmt.Sprintf("the line after it (%s:%d) knew another one in its place", at.file, at.line))
	}
	v.accept(at, e)
}

// missing reports the numbers from want to before seq as passed over.
func (v *Verifier) missing(at place, want, seq uint64) {
	if seq <= want {
		return
	}
	v.found(at, seq, Dropped, fmt.Sprintf("%s missing before it", numbers(want, seq-1)))
	v.gaps = append(v.gaps, &gap{want, seq - 1, len(v.findings) - 1})
}

func numbers(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("line %d of the log is", from)
	}
	return fmt.Sprintf("lines %d to %d of the log are", from, to)
}

// late takes a line whose number has been passed: it was moved, or put in.
func (v *Verifier) late(at place, e Event) {
	v.reportBad(1)
	for _, g := range v.gaps {
		if e.Seq >= g.from && e.Seq <= g.to {
			v.moved(g, at, e)
			return
		}
	}
	if e.Seq == v.Last && e.Prev == v.prev && e.Hash != v.hash {
		v.rivals = append(v.rivals, rival{at, e.Hash})
		return
	}
	v.found(at, e.Seq, Inserted, fmt.Sprintf("line %d of the log stands here once more", e.Seq))
}

// moved turns a gap that is filled later into lines in the wrong order.
func (v *Verifier) moved(g *gap, at place, e Event) {
	f := &v.findings[g.finding]
	if f.Fault == Dropped {
		f.Fault = Reordered
		f.Text = fmt.Sprintf("line %d of the log stands before line %d (which is %s:%d)", f.Seq, e.Seq, at.file, at.line)
	}
	if e.Seq > g.from {
		v.gaps = append(v.gaps, &gap{g.from, e.Seq - 1, g.finding})
	}
	g.from = e.Seq + 1
}

// settleRivals decides between lines that claim one number: the one that the
// line after them names is true.
func (v *Verifier) settleRivals(named string) {
	if len(v.rivals) == 0 {
		return
	}
	all := append([]rival{{v.where, v.hash}}, v.rivals...)
	v.rivals = nil
	right := slices.IndexFunc(all, func(r rival) bool { return r.hash == named })
	if right < 0 {
		right = 0
	}
	for i, r := range all {
		if i != right {
			v.found(r.place, v.Last, Inserted, fmt.Sprintf("two lines claim to be line %d of the log; the lines after them do not know this one", v.Last))
		}
	}
	v.hash, v.where = all[right].hash, all[right].place
}

// repaired reports whether e says of the bad lines before it that they are what
// a crash or a full disk left behind: one part of a line, without an end.
func (v *Verifier) repaired(e Event) bool {
	if e.repair == nil || len(v.bad) != 1 {
		return false
	}
	if v.bad[0].whole != (e.Kind == repairKind) {
		return false
	}
	// In one file the newline came with the repair.
	part := bytes.TrimSuffix(v.rubbish, []byte("\n"))
	sum := sha256.Sum256(part)
	if int64(len(part)) != e.repair.Bytes || hex.EncodeToString(sum[:]) != e.repair.Sum {
		return false
	}
	b := v.bad[0]
	v.Notes = append(v.Notes, fmt.Sprintf("%s:%d: part of a line of %d bytes, as a crash or a full disk leaves it; marked by line %d",
		b.file, b.line, e.repair.Bytes, e.Seq))
	return true
}

// reportBad reports the lines that are not true. next is 1 when they stand in
// the place of lines, -1 when they stand between two lines that follow each
// other, 0 at the end of the log.
func (v *Verifier) reportBad(next int) {
	for _, b := range v.bad {
		switch {
		case next < 0:
			v.found(b.place, 0, Inserted, "it is between two lines that follow each other: "+b.err.Error())
		case next == 0 && !b.whole:
			v.found(b.place, 0, Partial, "the log ends in part of a line, cut off or not written whole")
		default:
			v.found(b.place, 0, Altered, b.err.Error())
		}
	}
	v.bad, v.rubbish = nil, nil
}

func (v *Verifier) found(at place, seq uint64, fault Fault, text string) {
	v.findings = append(v.findings, finding{Finding: Finding{File: at.file, Line: at.line, Seq: seq, Fault: fault, Text: text}, number: at.number})
}

// checkHead compares a line with the head that announced it.
func (v *Verifier) checkHead(at place, e Event) {
	for _, h := range v.heads[e.Seq] {
		if h.Hash != e.Hash {
			v.found(at, e.Seq, Replaced, "another line of this number was announced"+h.when())
			return
		}
	}
}

// checkHeads looks for heads of lines that should be there and are not.
func (v *Verifier) checkHeads() {
	var early, late []Head
	for _, h := range v.Heads {
		switch {
		case h.Seq > v.Last:
			late = append(late, h)
		case h.Seq < v.First:
			early = append(early, h)
		}
	}
	if len(early) > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("%d heads are older than the files", len(early)))
	}
	if len(late) == 0 {
		return
	}
	h := slices.MaxFunc(late, func(a, b Head) int { return cmp.Compare(a.Seq, b.Seq) })
	v.found(v.where, v.Last, CutOff, fmt.Sprintf("the log ends here, but line %d was announced%s: %s missing", h.Seq, h.when(), numbers(v.Last+1, h.Seq)))
}

func (h Head) when() string {
	if h.Time.IsZero() {
		return ""
	}
	return " at " + h.Time.UTC().Format(timeLayout[:19]) + "Z"
}
