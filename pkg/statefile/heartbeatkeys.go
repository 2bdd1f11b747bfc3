package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// keysName is the file of the keys in the state directory. They are not in that
	// of the program, which is written often and may be shown to others.
	keysName = "heartbeat-keys.json"
	// maxKeysFile bounds it: two keys in base64 and some names.
	maxKeysFile = 2 << 10
)

// keysEnvelope is the content of the file.
type keysEnvelope struct {
	Format   int    `json:"format"`
	Key      []byte `json:"key"`
	Previous []byte `json:"previousKey,omitempty"`
	// SHA256 tells a damaged file: any bytes could be a key.
	SHA256 string `json:"sha256"`
}

// ReadHeartbeatKeys returns the keys that are kept in dir. The error is
// fs.ErrNotExist if there are none. Other errors name the file and why it is not
// used, and have nothing of its content. The keys are no node's own: they are not
// tied to one.
func ReadHeartbeatKeys(dir string) (announce.HeartbeatKeys, error) {
	path := filepath.Join(dir, keysName)
	data, err := readFile(path, maxKeysFile)
	if errors.Is(err, fs.ErrNotExist) {
		return announce.HeartbeatKeys{}, err
	}
	var keys announce.HeartbeatKeys
	if err == nil {
		keys, err = decodeKeys(data)
	}
	if err != nil {
		return announce.HeartbeatKeys{}, fmt.Errorf("%s: %w; not used: there are no heartbeats until Secret %q has been read",
			path, err, announce.HeartbeatSecret)
	}
	return keys, nil
}

// WriteHeartbeatKeys keeps keys in dir, with mode 0600. The file is replaced as a
// whole. It may block for as long as the disk does, and is not to be called twice
// at the same time.
func WriteHeartbeatKeys(dir string, keys announce.HeartbeatKeys) error {
	path := filepath.Join(dir, keysName)
	removeLeftovers(path)
	data, err := encodeKeys(keys)
	if err == nil {
		err = replace(path, data)
	}
	if err != nil {
		return fmt.Errorf("%s: keeping the keys of the heartbeats in --state-dir failed: %w; "+
			"until it succeeds, a restart while the API server is away has those that were kept before, if any", path, err)
	}
	return nil
}

func encodeKeys(keys announce.HeartbeatKeys) ([]byte, error) {
	if err := validateKeys(keys); err != nil {
		return nil, err
	}
	return json.Marshal(keysEnvelope{
		Format:   formatVersion,
		Key:      keys.Current,
		Previous: keys.Previous,
		SHA256:   checksumOfKeys(keys),
	})
}

func decodeKeys(data []byte) (announce.HeartbeatKeys, error) {
	var format struct {
		Format int `json:"format"`
	}
	// The texts of encoding/json may quote what they read.
	if err := json.Unmarshal(data, &format); err != nil {
		return announce.HeartbeatKeys{}, fmt.Errorf("%w: it is not the JSON that a speaker writes", ErrCorrupt)
	}
	if format.Format != formatVersion {
		return announce.HeartbeatKeys{}, fmt.Errorf("%w: %d; this program reads format %d", ErrVersion, format.Format, formatVersion)
	}
	var e keysEnvelope
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&e); err != nil {
		return announce.HeartbeatKeys{}, fmt.Errorf("%w: it is not the JSON that a speaker writes", ErrCorrupt)
	}
	keys := announce.HeartbeatKeys{Current: e.Key, Previous: e.Previous}
	if e.SHA256 != checksumOfKeys(keys) {
		return announce.HeartbeatKeys{}, fmt.Errorf("%w: the checksum of the keys does not match", ErrCorrupt)
	}
	if err := validateKeys(keys); err != nil {
		return announce.HeartbeatKeys{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return keys, nil
}

// validateKeys has keys obey the bounds of those in the Secret.
func validateKeys(keys announce.HeartbeatKeys) error {
	data := map[string][]byte{announce.HeartbeatKey: keys.Current}
	if keys.Previous != nil {
		data[announce.HeartbeatPreviousKey] = keys.Previous
	}
	_, err := announce.DecodeHeartbeatKeys(data)
	return err
}

func checksumOfKeys(keys announce.HeartbeatKeys) string {
	return checksum(fmt.Sprintf("%x %x", keys.Current, keys.Previous))
}
