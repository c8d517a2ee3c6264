package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"
)

// headText is what a head looks like in a line of syslog, or of a plain file.
var headText = regexp.MustCompile(`seq=([0-9]{1,20}) hash=([0-9a-f]{64})(?: log=(\S+))?`)

// ReadHeads reads heads from the output of journalctl -o json, or from any text
// whose lines hold seq=NUMBER hash=HASH. Of the journal's only those count that
// came from uid owner, since anyone may write to the journal; foreign is how
// many others there were. If log is not empty, heads that name another log are
// left out.
func ReadHeads(r io.Reader, owner int, log string) (heads []Head, foreign int, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), 1<<20)
	for n := 1; s.Scan(); n++ {
		h, path, uid, ok, err := parseHead(s.Bytes())
		switch {
		case err != nil:
			return nil, 0, fmt.Errorf("line %d of the heads: %w", n, err)
		case !ok || log != "" && path != "" && path != log:
		case uid >= 0 && uid != owner:
			foreign++
		default:
			heads = append(heads, h)
		}
	}
	return heads, foreign, s.Err()
}

// parseHead reads one line; uid is -1 where the line does not vouch for one.
func parseHead(b []byte) (h Head, log string, uid int, ok bool, err error) {
	if len(b) > 0 && b[0] == '{' {
		return parseJournal(b)
	}
	m := headText.FindSubmatch(b)
	if m == nil {
		return Head{}, "", -1, false, nil
	}
	seq, err := strconv.ParseUint(string(m[1]), 10, 64)
	return Head{Seq: seq, Hash: string(m[2])}, string(m[3]), -1, err == nil, err
}

// parseJournal reads an entry of journalctl -o json. Entries without a head are
// passed over. A value may be a list, where the entry has the field twice: then
// it is not one of ours.
func parseJournal(b []byte) (h Head, log string, uid int, ok bool, err error) {
	var raw map[string]json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&raw); err != nil {
		return Head{}, "", 0, false, fmt.Errorf("not journalctl's JSON: %w", err)
	}
	get := func(name string) string {
		var s string
		if json.Unmarshal(raw[name], &s) != nil {
			return ""
		}
		return s
	}
	uid, err = strconv.Atoi(get("_UID"))
	seq, seqErr := strconv.ParseUint(get("JUMPSUITE_SEQ"), 10, 64)
	if err != nil || seqErr != nil || len(get("JUMPSUITE_HASH")) != hashLen {
		return Head{}, "", 0, false, nil
	}
	h = Head{Seq: seq, Hash: get("JUMPSUITE_HASH")}
	if us, err := strconv.ParseInt(get("__REALTIME_TIMESTAMP"), 10, 64); err == nil {
		h.Time = time.UnixMicro(us)
	}
	return h, get("JUMPSUITE_LOG"), uid, true, nil
}
