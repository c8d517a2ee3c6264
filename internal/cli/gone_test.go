package cli_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab/sudoer"
)

// noticed waits for a watched context to end by itself: nothing is written.
func noticed(t *testing.T, ctx context.Context, want error) {
	t.Helper()
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("nobody noticed")
	}
	cause := context.Cause(ctx)
	if g, ok := errors.AsType[*cli.Gone](cause); !ok || !errors.Is(g.Err, want) {
		t.Errorf("ended with %v, want %v", cause, want)
	}
}

func TestAReaderThatGoesAwayIsNoticedWithoutAWrite(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, _ := cli.Watched(t.Context(), w)
	if ctx.Err() != nil {
		t.Error("it has ended with a reader there")
	}
	r.Close()
	noticed(t, ctx, syscall.EPIPE)
}

func TestATerminalThatIsClosedIsNoticedWithoutAWrite(t *testing.T) {
	person, programs, err := sudoer.Terminal(24, 80)
	if err != nil {
		t.Skip(err)
	}
	defer programs.Close()
	ctx, _ := cli.Watched(t.Context(), programs)
	person.Close()
	noticed(t, ctx, syscall.EIO)
}

func TestWhatCannotGoAwayIsLeftAlone(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	watched, _ := cli.Watched(ctx, f)
	done := make(chan struct{})
	go func() {
		cli.UntilGone(ctx, f, func(err error) { t.Errorf("a file is gone: %v", err) })
		close(done)
	}()
	if watched.Err() != nil {
		t.Error("it has ended")
	}
	cancel()
	<-done
}
