package heartbeat

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// keyID tells which key a packet is signed with, without telling the key.
type keyID uint32

// signer is one key. It belongs to one goroutine.
type signer struct {
	id     keyID
	hash   hash.Hash
	digest [sha256.Size]byte
}

// keyring signs and verifies packets. It belongs to one goroutine.
//
// Both keys are accepted. A packet is signed with the current one once the fellow
// has shown that it has that, by signing with it or by naming it as its newest, and
// with the previous one until then, so that a rotation leaves no gap whatever the
// order in which nodes learn of it.
//
// A signed packet ends with the ID of its key (4 bytes), the ID of the newest key
// of the sender (4 bytes), and the truncated HMAC of all that is before.
type keyring struct{ current, previous *signer }

const trailerLength = 8 + macLength

var (
	errNoKey    = errors.New("the heartbeat is signed with an unknown key")
	errUnsigned = errors.New("the heartbeat has a wrong signature")
)

func newKeyring(keys announce.HeartbeatKeys) keyring {
	return keyring{newSigner(keys.Current), newSigner(keys.Previous)}
}

func newSigner(key []byte) *signer {
	if len(key) == 0 {
		return nil
	}
	s := &signer{hash: hmac.New(sha256.New, key)}
	// What the ID is made of is signed by nothing else: no packet begins so.
	sum := s.sum([]byte("key id"))
	s.id = keyID(binary.BigEndian.Uint32(sum))
	return s
}

// sum is good until the next call.
func (s *signer) sum(data []byte) []byte {
	s.hash.Reset()
	s.hash.Write(data) // never fails
	return s.hash.Sum(s.digest[:0])[:macLength]
}

// ready reports whether there is a key at all.
func (k keyring) ready() bool { return k.current != nil }

// sign appends the trailer to a packet for a fellow that has shown to have that
// key, the newest so far.
func (k keyring) sign(b []byte, newest keyID) []byte {
	by := k.current
	if k.previous != nil && newest != k.current.id {
		by = k.previous
	}
	b = binary.BigEndian.AppendUint32(b, uint32(by.id))
	b = binary.BigEndian.AppendUint32(b, uint32(k.current.id))
	return append(b, by.sum(b)...)
}

// verify returns the packet without its trailer, and the newest of the ring's keys
// that its sender has shown to have.
func (k keyring) verify(b []byte) (data []byte, newest keyID, err error) {
	if len(b) < headerLength+trailerLength {
		return nil, 0, errPacketShort
	}
	end := len(b) - macLength
	data, by := b[:end-8], keyID(binary.BigEndian.Uint32(b[end-8:]))
	newest = keyID(binary.BigEndian.Uint32(b[end-4:]))
	s := k.current
	if k.previous != nil && by == k.previous.id {
		s = k.previous
	}
	if s == nil || s.id != by {
		return nil, 0, errNoKey
	}
	if !hmac.Equal(s.sum(b[:end]), b[end:]) {
		return nil, 0, errUnsigned
	}
	if newest != k.current.id {
		newest = by
	}
	return data, newest, nil
}
