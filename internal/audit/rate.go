package audit

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"time"
)

// Each caller has a bucket of bytes that fills at Options.Rate up to
// Options.Burst, and each of their lines takes its length out. The buckets are
// in a file, since every `sudo docker …` is a process of its own; it is a table
// of fixed size that is read and written in one place under the lock that the
// line needs anyway. (Counting the caller's lines in the log would cost more the
// longer the log is; a bucket in memory would limit nothing.)
//
// A bucket that is full says nothing, so its slot can be given to another
// caller without anybody noticing.

const (
	slotSize  = 32 // key, tokens, time, refused; 8 bytes each
	slotCount = 4096
	slotReach = 8 // how many slots a caller may be in
)

type bucket struct {
	key     uint64
	tokens  float64
	at      int64 // Unix nanoseconds
	refused uint64
}

// charge takes what e will cost from its caller's bucket. New work that finds
// the bucket empty is refused: the first time in a row with a line that says
// so, then with a count in the line that says it is over.
func (l *Log) charge(e *Event) error {
	slots, base := l.readBuckets(e.Principal)
	i := pick(slots, bucketKey(e.Principal), l.o, l.o.Now())
	b := &slots[i]
	defer func() { l.writeBucket(base+i, *b) }()
	if b.tokens <= 0 && !e.underWay() {
		b.refused++
		if b.refused == 1 {
			l.pending = append(l.pending, l.tooMuch(e, "the caller wrote too much and is refused for now"))
		} else {
			l.pending = nil
		}
		return &RateError{Name: e.Principal.Name, Wait: l.refill(*b)}
	}
	if b.refused > 0 && !e.underWay() {
		l.pending = append(l.pending, l.tooMuch(e, fmt.Sprintf("%d requests of this caller were refused", b.refused)))
		b.refused = 0
	}
	line, _ := appendLine(l.buf[:0], e)
	b.tokens -= float64(len(line) + 2*hashLen)
	l.buf = line
	return nil
}

// enough is how much of the bucket must be there for somebody who was refused
// to go on, so that they do not go on and off with every line.
const enough = 8 << 10

func (l *Log) refill(b bucket) time.Duration {
	seconds := (min(enough, l.o.Burst) - b.tokens) / l.o.Rate
	return time.Duration(math.Ceil(seconds)) * time.Second
}

func (l *Log) tooMuch(e *Event, detail string) Event {
	m := l.about(rateKind, detail, nil)
	m.Principal, m.Action = e.Principal, e.Action
	return m
}

func bucketKey(p Principal) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d\x00%s\x00%s", p.UID, p.Name, p.Key)
	return h.Sum64() | 1 // zero is an empty slot
}

// pick finds key's bucket among slots, or makes one in place of the fullest, and
// fills it for the time that has passed.
func pick(slots []bucket, key uint64, o Options, now time.Time) int {
	best := 0
	for i := range slots {
		slots[i].fill(o, now)
		if slots[i].key == key {
			return i
		}
		if slots[i].tokens > slots[best].tokens {
			best = i
		}
	}
	slots[best] = bucket{key: key, tokens: o.Burst, at: now.UnixNano()}
	return best
}

func (b *bucket) fill(o Options, now time.Time) {
	if b.key == 0 {
		b.tokens = math.Inf(1) // nobody's: fuller than any
		return
	}
	b.at = min(b.at, now.UnixNano()) // the clock was set back
	passed := time.Duration(now.UnixNano() - b.at)
	grown := b.tokens + passed.Seconds()*o.Rate
	if b.refused > 0 && grown < min(enough, o.Burst) {
		return // keeps its time, so nothing is lost
	}
	b.tokens = min(grown, o.Burst)
	b.at = now.UnixNano()
}

func (l *Log) readBuckets(p Principal) (slots []bucket, base int) {
	base = int(bucketKey(p) >> 32 % (slotCount - slotReach))
	raw := make([]byte, slotReach*slotSize)
	n, err := l.rate.ReadAt(raw, int64(base)*slotSize)
	if err != nil && err != io.EOF {
		n = 0
	}
	clear(raw[n:])
	slots = make([]bucket, slotReach)
	for i := range slots {
		slots[i] = decodeBucket(raw[i*slotSize:])
	}
	return slots, base
}

func decodeBucket(raw []byte) bucket {
	b := bucket{
		key:     binary.LittleEndian.Uint64(raw),
		tokens:  math.Float64frombits(binary.LittleEndian.Uint64(raw[8:])),
		at:      int64(binary.LittleEndian.Uint64(raw[16:])),
		refused: binary.LittleEndian.Uint64(raw[24:]),
	}
	if math.IsNaN(b.tokens) || math.IsInf(b.tokens, 0) {
		return bucket{}
	}
	return b
}

func (l *Log) writeBucket(slot int, b bucket) {
	raw := binary.LittleEndian.AppendUint64(nil, b.key)
	raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(b.tokens))
	raw = binary.LittleEndian.AppendUint64(raw, uint64(b.at))
	raw = binary.LittleEndian.AppendUint64(raw, b.refused)
	if _, err := l.rate.WriteAt(raw, int64(slot)*slotSize); err != nil {
		l.o.Errors.Warn("note what a caller has written", "file", l.rate.Name(), "error", err)
	}
}
