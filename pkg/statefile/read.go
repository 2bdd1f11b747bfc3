package statefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// Read returns the state that is kept in dir, and its program. The error is
// fs.ErrNotExist if there is none. Other errors name the file and why it is not
// used; see the errors of this package. With an error there is no state at all,
// not even a part of one.
func Read(dir string, who Identity) (State, announce.Program, error) {
	path := filepath.Join(dir, fileName)
	data, err := readFile(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, announce.Program{}, err
	}
	var s State
	var p announce.Program
	if err == nil {
		s, p, err = decode(data, who)
	}
	if err != nil {
		return State{}, announce.Program{}, fmt.Errorf("%s: %w; not used: nothing is announced until the Node has been read", path, err)
	}
	return s, p, nil
}

// readFile reads a regular file of at most limit bytes. It neither follows a
// symbolic link nor waits for the other end of a named pipe.
func readFile(path string, limit int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case errors.Is(err, syscall.ELOOP):
		return nil, fmt.Errorf("%w: a symbolic link", ErrNotRegular)
	case errors.Is(err, syscall.ENXIO):
		return nil, fmt.Errorf("%w: a socket or a device", ErrNotRegular)
	case err != nil:
		return nil, fmt.Errorf("opening: %w", cause(err))
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("opening: %w", cause(err))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %v", ErrNotRegular, info.Mode())
	case info.Size() > limit:
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, info.Size(), limit)
	}
	// It may grow meanwhile.
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading: %w", cause(err))
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return data, nil
}

// cause is the error of a file operation without paths. The path of the state
// file is told once, and that of a temporary file would be another one in each
// text, though nothing changed.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
