package statefile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// minPause and maxPause bound the pause after a write that failed. A disk
	// that is full is not helped by trying often.
	minPause = time.Second
	maxPause = time.Minute

	// writeInterval is the least time between two writes. Each flushes the disk
	// twice, which the node may share with etcd. What is a moment old serves as
	// well: where the API server tells newer programs, it is asked first.
	writeInterval = 250 * time.Millisecond
)

// Writer keeps the newest state on disk. The file is replaced as a whole: at
// each instant, also of a crash, it is the state before or the one after.
type Writer struct {
	dir     string
	changed func()
	wake    chan struct{}
	wrote   time.Time // only Run uses it

	mu sync.Mutex
	// wanted is what the file should hold, nil if nobody has said so yet.
	wanted *content
	// written is what the file holds, nil if that is not known.
	written *content
	err     error
}

// content of the file; none means that there shall be no file.
type content struct {
	state State
	none  bool
}

// NewWriter returns a Writer of the file in dir. changed is called, from Run,
// when Err has changed; it may be nil.
func NewWriter(dir string, changed func()) *Writer {
	if changed == nil {
		changed = func() {}
	}
	return &Writer{dir: dir, changed: changed, wake: make(chan struct{}, 1)}
}

// Put has the state written. It does not wait for that; of several states that
// are put meanwhile, only the newest is written. The program is one that
// announce.Decode has read.
func (w *Writer) Put(s State) { w.want(content{state: s}) }

// Forget has the file removed, for the node was abandoned: what is in the file
// is nothing to announce any more.
func (w *Writer) Forget() { w.want(content{none: true}) }

func (w *Writer) want(c content) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = &c
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Err says why the file is not as it should be, nil if it is as far as is known.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Run writes what was put until ctx ends. What is pending then, it tries once
// more to write before it returns nil. It may block for as long as the disk
// does.
func (w *Writer) Run(ctx context.Context) error {
	removeLeftovers(filepath.Join(w.dir, fileName))
	pause := minPause
	for ctx.Err() == nil {
		wait := writeInterval
		if w.flush() {
			pause = minPause
			select {
			case <-ctx.Done():
			case <-w.wake:
			}
			wait -= time.Since(w.wrote)
		} else {
			wait, pause = pause, min(2*pause, maxPause)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	w.flush()
	return nil
}

// flush makes the file what it should be. It reports whether it is.
func (w *Writer) flush() (ok bool) {
	w.mu.Lock()
	wanted := w.wanted
	due := wanted != nil && (w.written == nil || *w.written != *wanted)
	if due {
		w.written = nil // a failure may leave either state
	}
	w.mu.Unlock()
	if !due {
		return true
	}
	err := w.carryOut(*wanted)
	w.wrote = time.Now()
	w.mu.Lock()
	if err == nil {
		w.written = wanted
	}
	changed := (err == nil) != (w.err == nil) || err != nil && err.Error() != w.err.Error()
	w.err = err
	w.mu.Unlock()
	if changed {
		w.changed()
	}
	return err == nil
}

func (w *Writer) carryOut(c content) error {
	path := filepath.Join(w.dir, fileName)
	if c.none {
		if err := remove(path); err != nil {
			return fmt.Errorf("%s: removing the program from --state-dir failed: %w; "+
				"a restart while the API server is away announces it again", path, err)
		}
		return nil
	}
	data, err := encode(c.state)
	if err == nil {
		err = replace(path, data)
	}
	if err != nil {
		return fmt.Errorf("%s: keeping the program in --state-dir failed: %w; "+
			"until it succeeds, a restart while the API server is away announces what was kept before, if anything", path, err)
	}
	return nil
}

// replace makes data the content of the file, at once or not at all.
func replace(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating the directory: %w", cause(err))
	}
	temp, err := os.CreateTemp(dir, tempPattern(path)) // mode 0600
	if err != nil {
		return fmt.Errorf("creating a temporary file: %w", cause(err))
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	_, err = temp.Write(data)
	// Flushed before the rename: otherwise a power failure may leave the new
	// name with the content missing.
	if err == nil {
		err = temp.Sync()
	}
	if closed := temp.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("writing: %w", cause(err))
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return fmt.Errorf("replacing the file: %w", cause(err))
	}
	return syncDir(dir)
}

// remove makes sure that there is no file.
func remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return cause(err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes changes of names in the directory survive a power failure.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening the directory: %w", cause(err))
	}
	defer func() { _ = dir.Close() }()
	err = dir.Sync()
	// Some file systems have nothing to flush for a directory, and say so.
	if err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("flushing the directory: %w", cause(err))
	}
	return nil
}

// tempPattern is that of temporary files for path, for os.CreateTemp and Match.
func tempPattern(path string) string { return "." + filepath.Base(path) + ".*.tmp" }

// removeLeftovers removes temporary files of a process that was killed while it
// wrote path. What cannot be removed does no harm.
func removeLeftovers(path string) {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if left, _ := filepath.Match(tempPattern(path), e.Name()); left && e.Type().IsRegular() {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
