package statefile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

func keyOf(letter string, size int) []byte { return bytes.Repeat([]byte(letter), size) }

func TestHeartbeatKeys(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	if keys, err := ReadHeartbeatKeys(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", keys, err)
	}
	path := filepath.Join(dir, keysName)
	leftover := filepath.Join(dir, "."+keysName+".1.tmp")
	for _, keys := range []announce.HeartbeatKeys{
		{Current: keyOf("a", 32)},
		{Current: keyOf("b", 256), Previous: keyOf("a", 256)},
		{Current: keyOf("c", 32)},
	} {
		if err := WriteHeartbeatKeys(dir, keys); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadHeartbeatKeys(dir); err != nil || !got.Equal(keys) || (got.Previous == nil) != (keys.Previous == nil) {
			t.Errorf("read %v, %v; want %v", got, err, keys)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 || info.Size() > maxKeysFile {
			t.Errorf("%v, %v", info, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("in the directory: %v, %v", entries, err)
		}
		// What a process leaves that is killed while it writes has a key in it.
		if err := os.WriteFile(leftover, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// A failure leaves what was there.
	for _, keys := range []announce.HeartbeatKeys{{}, {Current: keyOf("d", 31)}, {Current: keyOf("d", 257)}, {Current: keyOf("d", 32), Previous: keyOf("d", 1)}} {
		if err := WriteHeartbeatKeys(dir, keys); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("writing %v: %v", keys, err)
		}
	}
	if got, err := ReadHeartbeatKeys(dir); err != nil || !got.Equal(announce.HeartbeatKeys{Current: keyOf("c", 32)}) {
		t.Errorf("read %v, %v", got, err)
	}
	if err := WriteHeartbeatKeys(path, announce.HeartbeatKeys{Current: keyOf("a", 32)}); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file in place of the directory: %v", err)
	}
}

// TestReadHeartbeatKeysRefuses has, in place of the file, what a mistake, a crash
// or somebody hostile leaves there. No text shows any of it.
func TestReadHeartbeatKeysRefuses(t *testing.T) {
	t.Parallel()
	keys := announce.HeartbeatKeys{Current: keyOf("K", 32), Previous: keyOf("P", 32)}
	whole, err := encodeKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, data, 0o600) }
	}
	edit := func(field string, value any) func(string) error {
		var e map[string]any
		if err := json.Unmarshal(whole, &e); err != nil {
			t.Fatal(err)
		}
		e[field] = value
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return write(data)
	}
	signed := func(current, previous []byte) func(string) error {
		k := announce.HeartbeatKeys{Current: current, Previous: previous}
		data, err := json.Marshal(keysEnvelope{Format: formatVersion, Key: current, Previous: previous, SHA256: checksumOfKeys(k)})
		if err != nil {
			t.Fatal(err)
		}
		return write(data)
	}
	for name, c := range map[string]struct {
		make func(path string) error
		want error
		text string
	}{
		"empty":          {write(nil), ErrCorrupt, "not the JSON"},
		"truncated":      {write(whole[:len(whole)/2]), ErrCorrupt, "not the JSON"},
		"two":            {write(append(bytes.Clone(whole), whole...)), ErrCorrupt, "not the JSON"},
		"no JSON":        {write(keys.Current), ErrCorrupt, "not the JSON"},
		"no base64":      {edit("key", "KKKKKKKK!"), ErrCorrupt, "not the JSON"},
		"another field":  {edit("more", "KKKKKKKK"), ErrCorrupt, "not the JSON"},
		"another key":    {edit("key", base64.StdEncoding.EncodeToString(keyOf("L", 32))), ErrCorrupt, "checksum"},
		"no key":         {edit("key", nil), ErrCorrupt, "checksum"},
		"no checksum":    {edit("sha256", ""), ErrCorrupt, "checksum"},
		"short":          {signed(keyOf("K", 31), nil), ErrCorrupt, `"key" has 31 bytes`},
		"long":           {signed(keyOf("K", 257), nil), ErrCorrupt, `"key" has 257 bytes`},
		"short previous": {signed(keyOf("K", 32), keyOf("P", 1)), ErrCorrupt, `"previous-key" has 1 bytes`},
		"newer":          {edit("format", 2), ErrVersion, "2"},
		"too large":      {write(bytes.Repeat([]byte(" "), maxKeysFile+1)), ErrTooLarge, "at most"},
		"huge":           {func(path string) error { return errors.Join(write(whole)(path), os.Truncate(path, 1<<40)) }, ErrTooLarge, "at most"},
		"directory":      {func(path string) error { return os.Mkdir(path, 0o700) }, ErrNotRegular, "d"},
		"named pipe":     {func(path string) error { return syscall.Mkfifo(path, 0o600) }, ErrNotRegular, "p"},
		"link to the truth": {func(path string) error {
			return errors.Join(write(whole)(path+".real"), os.Symlink(path+".real", path))
		}, ErrNotRegular, "symbolic link"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, keysName)
		if err := c.make(path); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := ReadHeartbeatKeys(dir)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
			continue
		}
		for _, text := range []string{path, c.text, "not used"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: the error has no %q: %v", name, text, err)
			}
		}
		if strings.Contains(err.Error(), "KKK") || strings.Contains(err.Error(), "S0tL") { // base64 of KKK
			t.Errorf("%s: the error shows a key: %v", name, err)
		}
		if !got.Equal(announce.HeartbeatKeys{}) {
			t.Errorf("%s: a part of a result", name)
		}
	}
}

// FuzzReadHeartbeatKeys also tries each pair of keys with its checksum corrected:
// what is read is what was written, or nothing.
func FuzzReadHeartbeatKeys(f *testing.F) {
	for _, keys := range []announce.HeartbeatKeys{{Current: keyOf("a", 32)}, {Current: keyOf("b", 256), Previous: keyOf("a", 32)}} {
		data, err := encodeKeys(keys)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"format":1,"key":null,"sha256":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		check := func(data []byte) {
			keys, err := decodeKeys(data)
			if err != nil {
				if !keys.Equal(announce.HeartbeatKeys{}) {
					t.Errorf("a part of a result with %v", err)
				}
				return
			}
			again, err := encodeKeys(keys)
			if err != nil || len(again) > maxKeysFile {
				t.Fatalf("%v, %d bytes", err, len(again))
			}
			if back, err := decodeKeys(again); err != nil || !back.Equal(keys) {
				t.Errorf("read %v again, %v; want %v", back, err, keys)
			}
		}
		check(data)
		var e keysEnvelope
		if json.Unmarshal(data, &e) == nil {
			e.SHA256 = checksumOfKeys(announce.HeartbeatKeys{Current: e.Key, Previous: e.Previous})
			if corrected, err := json.Marshal(e); err == nil {
				check(corrected)
			}
		}
	})
}
