package audit

import (
	"os"
	"path/filepath"
	"testing"
)

// benchLog is a log on a real disk where BENCH_FOLDER names one.
func benchLog(b *testing.B) Options {
	o := options(b)
	if dir := os.Getenv("BENCH_FOLDER"); dir != "" {
		dir, err := os.MkdirTemp(dir, "audit")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
		o.Path = filepath.Join(dir, "log", "audit.log")
	}
	o.Reserve = 0
	o.Burst, o.Rate = 1e18, 1e18
	return o
}

func BenchmarkRecord(b *testing.B) {
	for _, bb := range []struct {
		name, action string
		writers      int
	}{
		{"read", "docker.ps", 1},
		{"read/10writers", "docker.ps", 10},
		{"synced", "docker.exec", 1},
		{"synced/10writers", "docker.exec", 10},
	} {
		b.Run(bb.name, func(b *testing.B) {
			o := benchLog(b)
			logs := make(chan *Log, bb.writers)
			for range bb.writers { // each with files of its own, as processes have
				logs <- openTest(b, o)
			}
			b.ReportAllocs()
			b.SetParallelism(bb.writers)
			b.ResetTimer()
			if bb.writers == 1 {
				l := <-logs
				for range b.N {
					record(b, l, read(bb.action))
				}
				return
			}
			b.RunParallel(func(p *testing.PB) {
				l := <-logs
				defer func() { logs <- l }()
				for p.Next() {
					record(b, l, read(bb.action))
				}
			})
		})
	}
}

// BenchmarkCommand is what one short command pays: open, an open and a close, close.
func BenchmarkCommand(b *testing.B) {
	o := benchLog(b)
	openTest(b, o).Close()
	b.ReportAllocs()
	for range b.N {
		l, err := OpenLog(o)
		if err != nil {
			b.Fatal(err)
		}
		e := read("docker.ps")
		e.Kind = Open
		done := read("docker.ps")
		done.Kind, done.Result = Close, &Result{}
		record(b, l, e, done)
		l.Close()
	}
}

func BenchmarkVerify(b *testing.B) {
	o := benchLog(b)
	l := openTest(b, o)
	for range 1000 {
		record(b, l, read("docker.ps"))
	}
	st, err := os.Stat(o.Path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(st.Size())
	for b.Loop() {
		wantIntact(b, o.Path, 1001)
	}
}

func BenchmarkRecordingOfALineOfOutput(b *testing.B) {
	o := recordingOptions(b)
	o.Limit = -1
	r := startTest(b, o)
	line := []byte("2026-01-31T14:00:00Z a line of a log, as long as such lines are, with \x1b[31mcolour\x1b[m\r\n")
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Write(line); err != nil {
			b.Fatal(err)
		}
	}
}
