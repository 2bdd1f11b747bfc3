package announce

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestDecodeHeartbeatKeys(t *testing.T) {
	t.Parallel()
	key := func(size int) []byte { return bytes.Repeat([]byte("k"), size) }
	for name, c := range map[string]struct {
		data    map[string][]byte
		want    HeartbeatKeys
		problem string
	}{
		"nothing":  {nil, HeartbeatKeys{}, `no entry "key"`},
		"one":      {map[string][]byte{"key": key(32)}, HeartbeatKeys{Current: key(32)}, ""},
		"two":      {map[string][]byte{"key": key(256), "previous-key": key(33)}, HeartbeatKeys{key(256), key(33)}, ""},
		"more":     {map[string][]byte{"key": key(32), "other": key(1)}, HeartbeatKeys{Current: key(32)}, ""},
		"empty":    {map[string][]byte{"key": {}}, HeartbeatKeys{}, `entry "key" has 0 bytes`},
		"short":    {map[string][]byte{"key": key(31)}, HeartbeatKeys{}, "31 bytes; a key has 32 to 256"},
		"long":     {map[string][]byte{"key": key(257)}, HeartbeatKeys{}, "257 bytes"},
		"previous": {map[string][]byte{"previous-key": key(32)}, HeartbeatKeys{}, `no entry "key"`},
		"short previous": {map[string][]byte{"key": key(32), "previous-key": key(1)},
			HeartbeatKeys{Current: key(32)}, `entry "previous-key" has 1 bytes`},
	} {
		got, err := DecodeHeartbeatKeys(c.data)
		if !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.problem)
		}
	}
}

func TestHeartbeatKeysDoNotPrint(t *testing.T) {
	t.Parallel()
	secret := bytes.Repeat([]byte("s"), MinHeartbeatKey)
	bytesOf := fmt.Sprint(secret)[1:6]
	for _, k := range []HeartbeatKeys{{}, {Current: secret}, {secret, secret}} {
		for _, verb := range []string{"%v", "%s", "%+v", "%q"} {
			if text := fmt.Sprintf(verb, k); strings.Contains(text, "ss") || strings.Contains(text, bytesOf) {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	a, b := HeartbeatKeys{Current: secret}, HeartbeatKeys{secret, secret}
	if a.Equal(b) || !b.Equal(b) || b.Equal(HeartbeatKeys{Previous: secret}) {
		t.Error("Equal is wrong")
	}
}
