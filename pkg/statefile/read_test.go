package statefile

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReadRefuses has, in place of the file, what a mistake, a crash or somebody
// hostile leaves there.
func TestReadRefuses(t *testing.T) {
	t.Parallel()
	whole, err := encode(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, data, 0o600) }
	}
	for name, c := range map[string]struct {
		make func(path string) error
		want error
		text string
	}{
		"empty":         {write(nil), ErrCorrupt, "unexpected end"},
		"truncated":     {write(whole[:len(whole)/2]), ErrCorrupt, "damaged"},
		"too large":     {write(bytes.Repeat([]byte(" "), maxFile+1)), ErrTooLarge, "at most"},
		"huge":          {func(path string) error { return errors.Join(write(whole)(path), os.Truncate(path, 1<<40)) }, ErrTooLarge, "at most"},
		"another node":  {write(edited(t, map[string]any{"node": "n2"})), ErrForeign, `"n2"`},
		"no program":    {write(withProgram(t, "{}")), ErrProgram, "version 0"},
		"newer":         {write(edited(t, map[string]any{"format": 2})), ErrVersion, "2"},
		"directory":     {func(path string) error { return os.Mkdir(path, 0o700) }, ErrNotRegular, "d"},
		"fifo":          {func(path string) error { return syscall.Mkfifo(path, 0o600) }, ErrNotRegular, "p"},
		"device":        {func(path string) error { return os.Symlink("/dev/zero", path) }, ErrNotRegular, "symbolic link"},
		"dangling link": {func(path string) error { return os.Symlink("nowhere", path) }, ErrNotRegular, "symbolic link"},
		"link": {func(path string) error {
			return errors.Join(write(whole)(path+".real"), os.Symlink(path+".real", path))
		}, ErrNotRegular, "symbolic link"},
		"socket": {func(path string) error {
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
			if err == nil {
				t.Cleanup(func() { _ = l.Close() })
			}
			return err
		}, ErrNotRegular, "socket"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, fileName)
		if err := c.make(path); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s, p, err := Read(dir, known)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
			continue
		}
		for _, text := range []string{path, c.text, "not used"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: the error has no %q: %v", name, text, err)
			}
		}
		if s != (State{}) || p.Version != 0 {
			t.Errorf("%s: a part of a result", name)
		}
	}
}

func TestReadNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Join(dir, "missing")} {
		if _, _, err := Read(d, known); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", d, err)
		}
	}
	// --state-dir names a file.
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(file, known); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file in place of the directory: %v", err)
	}
}

func TestReadNotPermitted(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := t.TempDir()
	if err := replace(filepath.Join(dir, fileName), edited(t, nil)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, fileName), 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(dir, known); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "not used") {
		t.Errorf("got %v", err)
	}
}
