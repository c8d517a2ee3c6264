package dockerproxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
)

func TestPathsAreDecodedOnceAndPlain(t *testing.T) {
	for _, tt := range []struct{ raw, version, path, refusal string }{
		{"/_ping", "", "_ping", ""},
		{"/v1.41/containers/json", "1.41", "containers json", ""},
		{"/v1.51/images/docker.io/library/x:1/json", "1.51", "images docker.io library x:1 json", ""},
		{"/containers/a%20b/json", "", "containers a b json", ""},
		{"/containers/%25/json", "", "containers % json", ""},
		{"/", "", "", "not found"},
		{"/v1.41", "", "", "not found"},
		{"/v1.40/_ping", "", "", "not spoken"},
		{"/v1.52/_ping", "", "", "not spoken"},
		{"/v1.5/_ping", "", "", "not spoken"},
		{"/v1.0x/_ping", "", "v1.0x _ping", ""},
		{"/a//b", "", "", "plain form"},
		{"/a/./b", "", "", "plain form"},
		{"/a/%2e%2E/b", "", "", "plain form"},
		{"/a/b%2Fc", "", "", "escaped slash"},
		{"/a/b%5cc", "", "", "escaped slash"},
		{"/a/b%", "", "", "escape that is none"},
		{"/a/b%g0", "", "", "escape that is none"},
		{"/a/%0d%0ax", "", "", "control character"},
	} {
		version, path, err := parsePath(tt.raw)
		if tt.refusal != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refusal) {
				t.Errorf("%s: got %q, %v; want %q", tt.raw, path, err, tt.refusal)
			}
			continue
		}
		if err != nil || version != tt.version || strings.Join(path, " ") != tt.path {
			t.Errorf("%s: got %q %q, %v; want %q %q", tt.raw, version, path, err, tt.version, tt.path)
		}
	}
}

func TestARefIsNeverAPath(t *testing.T) {
	for s, want := range map[string]bool{
		"web": true, "a.b-c_d": true, strings.Repeat("a", 64): true, "": false, "-a": false, ".a": false, "a/b": false,
		"a b": false, "a%2f": false, "..": false, "a?b": false, strings.Repeat("a", 256): false, "ä": false,
	} {
		if got := isRef(s); got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
	}
}

// oracle is how an Engine routes a decoded path, in a few lines: the gate must
// have judged the operation that the Engine then runs.
func oracle(method, path string) string {
	_, rest, ok := strings.Cut(path, "/containers/")
	if !ok {
		return ""
	}
	switch {
	case method == "GET" && rest == "json":
		return "ps"
	case method == "POST" && rest == "create":
		return "create"
	case strings.HasSuffix(rest, "/json"):
		return "inspect"
	case strings.HasSuffix(rest, "/kill"):
		return "kill"
	}
	return ""
}

func FuzzThePathThatIsForwardedIsTheOneThatWasJudged(f *testing.F) {
	for _, s := range []string{"/containers/json", "/v1.41/containers/a%2fb/json", "/containers/../x", "//", "/v1.41/%63ontainers/x/kill", "/images/a/b/json"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if !strings.HasPrefix(raw, "/") {
			return
		}
		_, path, err := parsePath(raw)
		if err != nil {
			var r *Refusal
			if !errors.As(err, &r) || !json.Valid(r.body()) {
				t.Fatalf("%q: %v is no refusal", raw, err)
			}
			return
		}
		for _, s := range path {
			if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\\\x00\r\n") {
				t.Fatalf("%q: segment %q", raw, s)
			}
		}
		for _, method := range []string{"GET", "POST", "DELETE", "HEAD"} {
			op, ref, err := route(method, path)
			if err != nil {
				continue
			}
			want := oracle(method, "/"+strings.Join(path, "/"))
			if want != "" && isRef(ref) && op.name != want && op.pattern != "exec/{ref}/json" {
				t.Errorf("%s %q: judged as %s, the Engine runs %s", method, raw, op.name, want)
			}
		}
	})
}

func FuzzQueriesAreKnownKeysOnce(f *testing.F) {
	for _, s := range []string{"all=1&limit=2", "all=1&all=0", "filters=%7B%22name%22%3A%5B%22x%22%5D%7D", "a;b", "%", "limit=-1", "ALL=1"} {
		f.Add(s)
	}
	var ps *operation
	for i := range operations {
		if operations[i].name == "ps" {
			ps = &operations[i]
		}
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := ps.query.parse(raw)
		if err != nil {
			return
		}
		for key, values := range got {
			if ps.query[key] == nil || len(values) != 1 {
				t.Errorf("%q: got %s=%q", raw, key, values)
			}
		}
		again, err := ps.query.parse(got.Encode())
		if err != nil || again.Encode() != got.Encode() {
			t.Errorf("%q: passed on as %q, which reads as %q, %v", raw, got.Encode(), again.Encode(), err)
		}
		if std, err := url.ParseQuery(raw); err == nil && got.Get("limit") != "" && len(std["limit"]) != 1 {
			t.Errorf("%q: limit %v", raw, std["limit"])
		}
	})
}

func FuzzBodiesMeanTheSameToEverybody(f *testing.F) {
	for _, s := range []string{plainCreate, `{"Image":"a","image":"b"}`, `{"Image":"a","Image":"b"}`, `{"HostConfig":{"Privileged":true}} {}`, "\xef\xbb\xbf{}", `{"Labels":{"a":"b","a":"c"}}`, `{"Labels":{"A":"b","a":"c"}}`, `[]`, `null`, `{"Env":["\ud800"]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var c container.CreateRequest
		if err := unmarshal(body, &c); err != nil {
			var r *Refusal
			if !errors.As(err, &r) {
				t.Fatalf("%q: %v is no refusal", body, err)
			}
			return
		}
		// What is passed on must read the same for a decoder that folds keys.
		sent, err := encode(&c)
		if err != nil {
			t.Fatal(err)
		}
		var again container.CreateRequest
		if err := unmarshal(sent, &again); err != nil {
			t.Fatalf("%q is passed on as %q, which is refused: %v", body, sent, err)
		}
		twice, _ := encode(&again)
		if !bytes.Equal(sent, twice) {
			t.Errorf("%q: passed on as %q, which is read as %q", body, sent, twice)
		}
		judge(&c, createVerdicts) // must not panic
	})
}

func FuzzHeadsAreReadAsOneRequest(f *testing.F) {
	for _, s := range []string{get("/_ping"), post("/v1.41/containers/create", "{}"), "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", "GET /x HTTP/1.1\nHost: x\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r request
		br := bufio.NewReaderSize(bytes.NewReader(raw), maxLine)
		if err := readRequest(br, &r); err != nil {
			return
		}
		if _, err := r.readBody(br, 1<<16); err != nil {
			return
		}
		if strings.ContainsAny(r.start, "\r\n") || r.length < 0 || r.chunked && r.length != 0 {
			t.Errorf("%q: read as %+v", raw, r)
		}
	})
}

// chunkedBody is data in chunks of these sizes.
func chunkedBody(data []byte, sizes ...int) []byte {
	var b bytes.Buffer
	w := httputil.NewChunkedWriter(&b)
	for i := 0; len(data) > 0; i++ {
		n := min(max(sizes[i%len(sizes)], 1), len(data))
		w.Write(data[:n])
		data = data[n:]
	}
	w.Close()
	b.WriteString("\r\n")
	return b.Bytes()
}

func FuzzChunksAreTakenOutHoweverTheyAreCut(f *testing.F) {
	f.Add([]byte("hello"), 1, 1)
	f.Add(bytes.Repeat([]byte("0123456789"), 1000), 7, 13)
	f.Fuzz(func(t *testing.T, data []byte, size, cut int) {
		if size < 1 || cut < 1 || cut > 1<<16 {
			return
		}
		var d dechunker
		var got []byte
		finished := false
		for part := range slices.Chunk(chunkedBody(data, size), cut) {
			p, done, err := d.strip(slices.Clone(part))
			if err != nil || finished {
				t.Fatalf("size %d, cut %d: %v, finished %v", size, cut, err, finished)
			}
			got = append(got, p...)
			finished = done
		}
		if !finished || !bytes.Equal(got, data) {
			t.Errorf("size %d, cut %d: got %d bytes, finished %v; want %d", size, cut, len(got), finished, len(data))
		}
	})
}

func TestBrokenChunksAreNoticed(t *testing.T) {
	for _, s := range []string{"x\r\n", "\r\n", "5\nhello", "5\r\nhelloX\r\n", "fffffffff\r\n", "2\r\nab\r\n0\r\n\r\nmore", "5;a=b\nhello", "-5\r\n"} {
		var d dechunker
		if p, _, err := d.strip([]byte(s)); err == nil {
			t.Errorf("%q: got %q, want an error", s, p)
		}
	}
}

func TestPiecesThatAreThereTogetherGoTogether(t *testing.T) {
	in := chunkedBody([]byte(strings.Repeat("x", 1000)), 10)
	src := &source{rest: in, conn: nil}
	w := &writes{}
	n, err := copyChunked(w, src, framing{chunked: true}, nil)
	if err != nil || n != 1000 {
		t.Fatalf("got %d, %v", n, err)
	}
	if w.count != 2 { // all of the payload, and the end
		t.Errorf("got %d writes, want 2", w.count)
	}
	body, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(w.all)))
	if err != nil || len(body) != 1000 {
		t.Errorf("got %d bytes, %v", len(body), err)
	}
}

type writes struct {
	count int
	all   []byte
}

func (w *writes) Write(p []byte) (int, error) {
	w.count++
	w.all = append(w.all, p...)
	return len(p), nil
}

func TestSurrogatesComeInPairs(t *testing.T) {
	for s, ok := range map[string]bool{
		`"\ud83d\ude00"`: true, `"\ud83d"`: false, `"\ude00"`: false, `"\ud83dx"`: false, `"\\ud83d"`: true, `"\u0041"`: true, `"\ud83d\ud83d"`: false,
	} {
		if err := loneSurrogate([]byte(s)); (err == nil) != ok {
			t.Errorf("%s: got %v, want ok %v", s, err, ok)
		}
	}
}

// Who converses over an exec waits for each answer: small pieces are never held.
func TestSmallPiecesOfAConversationAreNoBurst(t *testing.T) {
	var m meter
	for range 10 * burst {
		m.bulk(bulkPiece - 1)
	}
	if m.quick != 0 {
		t.Errorf("after small pieces: got %d quick ones, want none", m.quick)
	}
}

// A busy Engine takes its time between two large pieces: they are a burst all
// the same, until one comes late.
func TestLargePiecesOfAConversationAreABurst(t *testing.T) {
	var m meter
	now := time.Now()
	for i := range burst {
		now = now.Add(4 * lull)
		if got := m.worthIt(bulkPiece, now, bulkLull); got != (i == burst-1) {
			t.Errorf("after %d large pieces: worth waiting %v", i+1, got)
		}
	}
	if m.worthIt(bulkPiece, now.Add(2*bulkLull), bulkLull) {
		t.Error("after a pause: worth waiting, want it passed on at once")
	}
}

func TestABulkStreamIsWaitedForAsLongAsItIsSlow(t *testing.T) {
	var m meter
	for _, tt := range []struct {
		name  string
		bytes int
		want  time.Duration
	}{
		{"at first", 32 << 10, gather},
		{"slow", 32 << 10, 2 * gather},
		{"slower", 32 << 10, longPause},
		{"no longer than that", 32 << 10, longPause},
		{"as it should be", 64 << 10, longPause},
		{"fast", 128 << 10, longPause / 2},
		{"faster", 128 << 10, longPause / 4},
		{"fastest", 128 << 10, shortPause},
		{"no shorter than that", 128 << 10, shortPause},
	} {
		if got := m.adapt(tt.bytes); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
