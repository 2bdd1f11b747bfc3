package heartbeat

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

func testKey(n byte) []byte { return bytes.Repeat([]byte{n}, announce.MinHeartbeatKey) }

// ringOf has the key of the first number, and that of the second as the previous
// one.
func ringOf(numbers ...byte) keyring {
	keys := announce.HeartbeatKeys{Current: testKey(numbers[0])}
	if len(numbers) > 1 {
		keys.Previous = testKey(numbers[1])
	}
	return newKeyring(keys)
}

func TestKeyring(t *testing.T) {
	ids := make(map[byte]keyID)
	for n := range byte(4) {
		ids[n] = ringOf(n).current.id
	}
	for name, test := range map[string]struct {
		by     keyring
		shown  keyID // of the receiver, to the sender
		with   keyring
		newest keyID
		want   error
	}{
		"one key":                          {ringOf(1), 0, ringOf(1), ids[1], nil},
		"the receiver has another":         {ringOf(1), 0, ringOf(2), 0, errNoKey},
		"the receiver has none":            {ringOf(1), 0, keyring{}, 0, errNoKey},
		"the sender has a newer one":       {ringOf(2, 1), ids[1], ringOf(1), ids[1], nil},
		"the sender knows nothing yet":     {ringOf(2, 1), 0, ringOf(1), ids[1], nil},
		"the receiver has a newer one":     {ringOf(1), ids[1], ringOf(2, 1), ids[1], nil},
		"both have it and do not know":     {ringOf(2, 1), ids[1], ringOf(2, 1), ids[2], nil},
		"both have it and know":            {ringOf(2, 1), ids[2], ringOf(2, 1), ids[2], nil},
		"the receiver has the new one":     {ringOf(2, 1), ids[2], ringOf(2), ids[2], nil},
		"the receiver forgot too early":    {ringOf(2, 1), ids[1], ringOf(2), 0, errNoKey},
		"the sender is a rotation further": {ringOf(3, 2), ids[2], ringOf(2, 1), ids[2], nil},
		"the sender is a rotation behind":  {ringOf(2, 1), ids[2], ringOf(3, 2), ids[2], nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := samplePacket(t)
			plain := p.append(nil)
			data, newest, err := test.with.verify(test.by.sign(p.append(nil), test.shown))
			if !errors.Is(err, test.want) || newest != test.newest {
				t.Fatalf("%v, newest %x; want %v, %x", err, newest, test.want, test.newest)
			}
			if err == nil && !bytes.Equal(data, plain) {
				t.Error("not what was signed")
			}
		})
	}
}

// TestKeyringTampering: no byte of a packet can be changed, and none cut off.
func TestKeyringTampering(t *testing.T) {
	ring := ringOf(2, 1)
	p := samplePacket(t)
	for _, shown := range []keyID{0, ring.current.id} {
		signed := ring.sign(p.append(nil), shown)
		if _, _, err := ring.verify(signed); err != nil {
			t.Fatal(err)
		}
		for i := range signed {
			for bit := range 8 {
				b := bytes.Clone(signed)
				b[i] ^= 1 << bit
				if _, _, err := ring.verify(b); err == nil {
					t.Fatalf("byte %d, bit %d: not noticed", i, bit)
				}
			}
		}
		for n := range signed {
			if _, _, err := ring.verify(signed[:n]); err == nil {
				t.Fatalf("cut to %d bytes: not noticed", n)
			}
		}
		if _, _, err := ring.verify(append(bytes.Clone(signed), 0)); err == nil {
			t.Error("a byte more: not noticed")
		}
		// One that is signed with the one key must not pass as signed with the other.
		swapped := bytes.Clone(signed)
		other := ring.current.id ^ ring.previous.id
		for i := range 4 {
			swapped[len(swapped)-trailerLength+i] ^= byte(other >> (24 - 8*i))
		}
		if _, _, err := ring.verify(swapped); !errors.Is(err, errUnsigned) {
			t.Errorf("with the name of the other key: %v", err)
		}
	}
}

// TestRotation lets two nodes learn of two rotations in all orders that leave them
// a key in common, and exchange packets in between: each is understood, also after
// either process has begun anew.
func TestRotation(t *testing.T) {
	keys := [][]byte{{1}, {2, 1}, {3, 2}}
	type node struct {
		at    int // in keys
		ring  keyring
		shown keyID // by the other
	}
	paths := 0
	var step func(a, b node, path string)
	step = func(a, b node, path string) {
		send := func(from, to *node) {
			_, newest, err := to.ring.verify(from.ring.sign((&packet{life: 1, seq: 1}).append(nil), from.shown))
			if err != nil {
				t.Errorf("%s: %v to %v: %v", path, keys[from.at], keys[to.at], err)
			}
			to.shown = newest
		}
		for range 3 {
			send(&a, &b)
			send(&b, &a)
		}
		paths++
		if a.at == len(keys)-1 && b.at == len(keys)-1 {
			if a.shown != a.ring.current.id || b.shown != b.ring.current.id {
				t.Errorf("%s: the old key is still in use", path)
			}
			return
		}
		learn := func(n node) node {
			n.at++
			n.ring = ringOf(keys[n.at]...)
			return n
		}
		if a.at < len(keys)-1 && a.at <= b.at {
			step(learn(a), b, path+" a")
			restarted := learn(a)
			restarted.shown = 0
			step(restarted, b, path+" a'")
		}
		if b.at < len(keys)-1 && b.at <= a.at {
			step(a, learn(b), path+" b")
			restarted := learn(b)
			restarted.shown = 0
			step(a, restarted, path+" b'")
		}
	}
	first := node{ring: ringOf(keys[0]...)}
	step(first, first, "")
	if paths < 20 {
		t.Errorf("%d paths only", paths)
	}
}

func TestKeyIDs(t *testing.T) {
	seen := make(map[keyID]string)
	for n := range byte(100) {
		id := ringOf(n).current.id
		if seen[id] != "" {
			t.Errorf("key %d is named like key %s", n, seen[id])
		}
		seen[id] = fmt.Sprint(n)
	}
}
