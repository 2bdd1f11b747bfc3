package announce

import (
	"bytes"
	"fmt"
)

// The Secret with the keys that fellow candidates sign their heartbeats with. It
// is in the speakers' namespace; the planner keeps it.
const (
	// HeartbeatSecret is its name.
	HeartbeatSecret = "baremetal-heartbeat"
	// HeartbeatKey is the entry with the key in force, HeartbeatPreviousKey that
	// with the one before, if there was one.
	HeartbeatKey         = "key"
	HeartbeatPreviousKey = "previous-key"

	// MinHeartbeatKey and MaxHeartbeatKey bound a key, in bytes. A shorter one is
	// weaker than the HMAC-SHA256 that it is for (RFC 2104).
	MinHeartbeatKey = 32
	MaxHeartbeatKey = 256
)

// HeartbeatKeys are the keys of heartbeats. Both are accepted, so that a new key
// may reach one speaker later than another. The bytes are never changed.
type HeartbeatKeys struct {
	// Current is nil if there is none.
	Current []byte
	// Previous is nil if there is none.
	Previous []byte
}

// DecodeHeartbeatKeys reads the data of the Secret. It returns what can be used,
// also with an error, which has none of the keys' bytes: a previous key that is
// malformed takes nothing from the current one.
func DecodeHeartbeatKeys(data map[string][]byte) (HeartbeatKeys, error) {
	current, ok := data[HeartbeatKey]
	if !ok {
		return HeartbeatKeys{}, fmt.Errorf("there is no entry %q", HeartbeatKey)
	}
	if err := checkHeartbeatKey(HeartbeatKey, current); err != nil {
		return HeartbeatKeys{}, err
	}
	keys := HeartbeatKeys{Current: current}
	if previous, ok := data[HeartbeatPreviousKey]; ok {
		if err := checkHeartbeatKey(HeartbeatPreviousKey, previous); err != nil {
			return keys, err
		}
		keys.Previous = previous
	}
	return keys, nil
}

func checkHeartbeatKey(entry string, key []byte) error {
	if len(key) < MinHeartbeatKey || len(key) > MaxHeartbeatKey {
		return fmt.Errorf("entry %q has %d bytes; a key has %d to %d", entry, len(key), MinHeartbeatKey, MaxHeartbeatKey)
	}
	return nil
}

// Equal reports whether the keys are the same.
func (k HeartbeatKeys) Equal(other HeartbeatKeys) bool {
	return bytes.Equal(k.Current, other.Current) && bytes.Equal(k.Previous, other.Previous)
}

// String tells which keys there are and none of their bytes, for logs.
func (k HeartbeatKeys) String() string {
	switch {
	case k.Current == nil:
		return "no key"
	case k.Previous == nil:
		return "a key"
	}
	return "a key and a previous one"
}
