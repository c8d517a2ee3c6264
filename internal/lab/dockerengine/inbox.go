package dockerengine

import "sync"

// inbox runs what is posted to it, in order and one at a time, in goroutines
// of its own. Its zero value is ready.
type inbox struct {
	mu      sync.Mutex
	waiting []func()
	busy    bool
}

func (i *inbox) post(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waiting = append(i.waiting, f)
	if !i.busy {
		i.busy = true
		go i.work()
	}
}

func (i *inbox) work() {
	for f := i.next(); f != nil; f = i.next() {
		f()
	}
}

func (i *inbox) next() func() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.waiting) == 0 {
		i.busy = false
		return nil
	}
	f := i.waiting[0]
	i.waiting = i.waiting[1:]
	return f
}
