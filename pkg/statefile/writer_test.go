package statefile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// booted is the sample with another boot ID, to tell states apart.
func booted(t testing.TB, boot string) State {
	s := sample(t)
	s.BootID = boot
	return s
}

// start runs the Writer in the bubble of the test; stop ends it.
func start(t *testing.T, w *Writer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	return stop
}

// kept is the boot ID in the file, or why there is none.
func kept(dir string) string {
	s, _, err := Read(dir, known)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "none"
	case err != nil:
		return err.Error()
	}
	return s.BootID
}

func TestWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "a", "b")
		w := NewWriter(dir, func() { t.Error("Err changed") })
		stop := start(t, w)
		expect := func(want string) {
			t.Helper()
			time.Sleep(writeInterval)
			synctest.Wait()
			if got := kept(dir); got != want {
				t.Errorf("kept %s, want %s", got, want)
			}
		}
		expect("none")
		w.Put(booted(t, "b1"))
		expect("b1")
		w.Put(booted(t, "b2"))
		expect("b2")

		for path, mode := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, filepath.Join(dir, fileName): 0o600} {
			if info, err := os.Stat(path); err != nil || info.Mode() != mode {
				t.Errorf("%s: %v, %v; want mode %v", path, info.Mode(), err, mode)
			}
		}

		// An equal state is not written again.
		before, err := os.Stat(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		w.Put(booted(t, "b2"))
		synctest.Wait()
		if after, err := os.Stat(filepath.Join(dir, fileName)); err != nil || !os.SameFile(before, after) {
			t.Errorf("an equal state was written: %v", err)
		}

		w.Forget()
		expect("none")
		w.Forget()
		expect("none")
		w.Put(booted(t, "b2"))
		expect("b2")
		w.Forget()
		w.Put(booted(t, "b3"))
		expect("b3")
		stop()
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("in the directory: %v, %v", entries, err)
		}
	})
}

// TestWriterSparesTheDisk: the first state is written at once, later ones not more
// often than each writeInterval.
func TestWriterSparesTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := NewWriter(dir, nil)
		stop := start(t, w)
		for _, step := range []struct {
			put  string
			wait time.Duration
			want string
		}{
			{"b1", 0, "b1"},
			{"b2", 0, "b1"},
			{"b3", writeInterval - 1, "b1"},
			{"b3", 1, "b3"},
			{"b4", 2 * writeInterval, "b4"},
			{"b5", 0, "b5"},
		} {
			w.Put(booted(t, step.put))
			time.Sleep(step.wait)
			synctest.Wait()
			if got := kept(dir); got != step.want {
				t.Errorf("after %s: kept %s, want %s", step.put, got, step.want)
			}
		}
		stop()
	})
}

func TestWriterWritesWhatIsPendingAtTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := NewWriter(dir, nil)
	w.Put(booted(t, "b1"))
	w.Put(booted(t, "b2"))
	if err := w.Run(ctx); err != nil || kept(dir) != "b2" {
		t.Errorf("kept %s, %v", kept(dir), err)
	}
	w.Forget()
	if err := w.Run(ctx); err != nil || kept(dir) != "none" {
		t.Errorf("kept %s, %v", kept(dir), err)
	}
	if err := w.Err(); err != nil {
		t.Error(err)
	}
}

func TestWriterForgetsNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "missing")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := NewWriter(dir, nil)
	w.Forget()
	if err := w.Run(ctx); err != nil || w.Err() != nil {
		t.Errorf("%v, %v", err, w.Err())
	}
}

func TestWriterTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "dir")
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the way
			t.Fatal(err)
		}
		var changes atomic.Int32
		w := NewWriter(dir, func() { changes.Add(1) })
		stop := start(t, w)
		synctest.Wait()
		if err := w.Err(); err != nil || changes.Load() != 0 {
			t.Errorf("before anything was put: %v, %d changes", err, changes.Load())
		}
		w.Put(booted(t, "b1"))
		synctest.Wait()
		err := w.Err()
		if err == nil || changes.Load() != 1 {
			t.Fatalf("%v, %d changes", err, changes.Load())
		}
		for _, text := range []string{filepath.Join(dir, fileName), "--state-dir", "not a directory", "while the API server is away"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("the error has no %q: %v", text, err)
			}
		}

		// The same failure again is no change, and neither is a newer state.
		time.Sleep(30 * time.Minute)
		w.Put(booted(t, "b2"))
		time.Sleep(30 * time.Minute)
		if changes.Load() != 1 {
			t.Errorf("%d changes: %v", changes.Load(), w.Err())
		}

		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(maxPause)
		synctest.Wait()
		if w.Err() != nil || changes.Load() != 2 || kept(dir) != "b2" {
			t.Errorf("%v, %d changes, kept %s", w.Err(), changes.Load(), kept(dir))
		}

		// After a success the pauses are short again.
		if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		w.Put(booted(t, "b3"))
		synctest.Wait()
		if w.Err() == nil {
			t.Error("no error")
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(minPause)
		synctest.Wait()
		if w.Err() != nil || changes.Load() != 4 || kept(dir) != "b3" {
			t.Errorf("%v, %d changes, kept %s", w.Err(), changes.Load(), kept(dir))
		}

		// One that cannot be removed; the end does not wait for the pause.
		path := filepath.Join(dir, fileName)
		if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "full"), 0o700)); err != nil {
			t.Fatal(err)
		}
		w.Forget()
		time.Sleep(writeInterval)
		synctest.Wait()
		if err := w.Err(); err == nil || !strings.Contains(err.Error(), "announces it again") {
			t.Errorf("got %v", err)
		}
		w.Put(booted(t, "b4"))
		stop()
		if err := w.Err(); err == nil || !strings.Contains(err.Error(), "replacing the file") {
			t.Errorf("got %v", err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("a failure left %v, %v", entries, err)
		}
	})
}

// TestWriterPauses takes each error away, to see when there is the next.
func TestWriterPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWriter(t.TempDir(), nil)
		bad := sample(t)
		bad.Node = ""
		began := time.Now()
		stop := start(t, w)
		w.Put(bad)
		var attempts []time.Duration
		for range 300 {
			synctest.Wait()
			w.mu.Lock()
			if w.err != nil {
				attempts = append(attempts, time.Since(began))
				w.err = nil
			}
			w.mu.Unlock()
			time.Sleep(time.Second)
		}
		stop()
		want := []time.Duration{0, 1, 3, 7, 15, 31, 63, 123, 183, 243}
		for i := range want {
			want[i] *= time.Second
		}
		if fmt.Sprint(attempts) != fmt.Sprint(want) {
			t.Errorf("attempts after %v, want %v", attempts, want)
		}
	})
}

func TestWriterReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := NewWriter(dir, nil)
	w.Put(booted(t, "b1"))
	_ = w.Run(ctx)
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) }) // for the removal of dir
	w.Put(booted(t, "b2"))
	_ = w.Run(ctx)
	if err := w.Err(); !errors.Is(err, fs.ErrPermission) || kept(dir) != "b1" {
		t.Errorf("%v, kept %s", err, kept(dir))
	}
	w.Forget()
	_ = w.Run(ctx)
	if err := w.Err(); !errors.Is(err, fs.ErrPermission) || kept(dir) != "b1" {
		t.Errorf("%v, kept %s", err, kept(dir))
	}
}

// TestWriterReplacesWhatIsNotItsOwn has the next state put right what Read
// refuses, without touching what a link names.
func TestWriterReplacesWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, other := filepath.Join(dir, fileName), filepath.Join(dir, "other")
	if err := errors.Join(os.WriteFile(other, []byte("precious"), 0o600), os.Symlink(other, path)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := NewWriter(dir, nil)
	w.Put(booted(t, "b1"))
	if err := w.Run(ctx); err != nil || kept(dir) != "b1" {
		t.Errorf("%v, kept %s", err, kept(dir))
	}
	if data, err := os.ReadFile(other); err != nil || string(data) != "precious" {
		t.Errorf("the link's target: %q, %v", data, err)
	}
}

// TestWriterAfterCrash starts in directories that a crash at each step of a
// write may leave.
func TestWriterAfterCrash(t *testing.T) {
	t.Parallel()
	before, err := encode(booted(t, "before"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := encode(booted(t, "after"))
	if err != nil {
		t.Fatal(err)
	}
	const temp = "." + fileName + ".1234.tmp"
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string // kept, before anything is written
	}{
		"first write, temporary file empty":     {map[string][]byte{temp: nil}, "none"},
		"first write, temporary file truncated": {map[string][]byte{temp: after[:40]}, "none"},
		"first write, temporary file whole":     {map[string][]byte{temp: after}, "none"},
		"temporary file empty":                  {map[string][]byte{fileName: before, temp: nil}, "before"},
		"temporary file truncated":              {map[string][]byte{fileName: before, temp: after[:40]}, "before"},
		"temporary file whole":                  {map[string][]byte{fileName: before, temp: after}, "before"},
		"renamed":                               {map[string][]byte{fileName: after}, "after"},
		"several crashes":                       {map[string][]byte{fileName: before, temp: after, "." + fileName + ".9.tmp": nil}, "before"},
	} {
		dir := t.TempDir()
		c.files["theirs.tmp"] = nil
		for file, data := range c.files {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := kept(dir); got != c.want {
			t.Errorf("%s: kept %s, want %s", name, got, c.want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := NewWriter(dir, nil).Run(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := kept(dir); got != c.want {
			t.Errorf("%s: kept %s after the start, want %s", name, got, c.want)
		}
		left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
		if err != nil || len(left) != 1 || filepath.Base(left[0]) != "theirs.tmp" {
			t.Errorf("%s: temporary files %q, %v", name, left, err)
		}
	}
}

// writerVariable makes the test program a Writer in the named directory.
const writerVariable = "STATEFILE_TEST_WRITER"

// TestWriterKilled kills a process that writes all the time, over and over:
// what is kept is whole, and at least as new as what was known to be kept.
func TestWriterKilled(t *testing.T) {
	if dir := os.Getenv(writerVariable); dir != "" {
		writeForever(t, dir)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	rounds, last := 8, 0
	for range rounds {
		command := exec.Command(os.Args[0], "-test.run=^TestWriterKilled$")
		command.Env = append(os.Environ(), writerVariable+"="+dir)
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + rand.IntN(10) {
			if !lines.Scan() {
				t.Error("the writer ended by itself")
				break
			}
			if last, err = strconv.Atoi(lines.Text()); err != nil {
				t.Errorf("the writer says %q", lines.Text())
			}
		}
		_ = command.Process.Kill()
		_ = command.Wait()
		s, _, err := Read(dir, known)
		n, _ := strconv.Atoi(s.BootID)
		if err != nil || n < last {
			t.Fatalf("kept %d, %v; the last that was written is %d", n, err, last)
		}
	}
}

// writeForever writes states of various sizes with ascending boot IDs, and
// prints those that are kept.
func writeForever(t *testing.T, dir string) {
	programs := []string{encoded(t, scattered(3)), encoded(t, scattered(900)), encoded(t, announce.Program{Cluster: "c1"})}
	s, _, err := Read(dir, known)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(s.BootID)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := NewWriter(dir, nil)
	for {
		n++
		s = booted(t, strconv.Itoa(n))
		s.Program = programs[n%len(programs)]
		w.Put(s)
		if err := w.Run(ctx); err != nil || w.Err() != nil {
			t.Fatal(err, w.Err())
		}
		fmt.Println(n)
	}
}

func TestWriterConcurrentPuts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	w := NewWriter(dir, nil)
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var puts sync.WaitGroup
	s := sample(t)
	for i := range 8 {
		puts.Go(func() {
			for n := range 20 {
				s := s
				s.BootID = fmt.Sprint(i, "-", n)
				w.Put(s)
				if i == 0 && n%5 == 0 {
					w.Forget()
				}
				_ = w.Err()
				// A reader sees a whole file or none at all.
				if _, _, err := Read(dir, known); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}
		})
	}
	puts.Wait()
	s.BootID = "last"
	w.Put(s)
	cancel()
	if err := <-done; err != nil || kept(dir) != "last" {
		t.Errorf("%v, kept %s", err, kept(dir))
	}
}
