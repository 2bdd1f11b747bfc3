package heartbeat

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// The format is in docs/reference/heartbeat.md. All numbers are big-endian.
const (
	packetMagic   = 0x424c // "BL"
	packetVersion = 1
	// headerLength is that of what each packet has, viewLength that of one view.
	headerLength = 68
	viewLength   = 14
	claimLength  = 18 // of the part before the ranges
	// macLength is that of the truncated HMAC-SHA256 (RFC 2104 section 5) at the end.
	macLength = 16
	// maxPacket fits any MTU that IPv6 allows (RFC 8200 section 5), with the headers.
	maxPacket = 1200
	maxViews  = 16
	// maxChunks bounds the parts of a table, and so what a fellow can make this
	// node remember: some 15,000 addresses of IPv4 without neighbours.
	maxChunks = 128
)

// Flags of a packet.
const (
	flagStarting   = 1 << iota // the sender has not decided yet what it owns
	flagRestarting             // it is about to stop, and to come back
	flagReleasing              // it is to own nothing: others are to claim
	knownFlags     = flagStarting | flagRestarting | flagReleasing
)

// id identifies a node of a cluster, and linkID a segment, by parts of hashes.
type (
	id     uint64
	linkID uint32
)

// packet is a heartbeat, without its authentication.
type packet struct {
	flags    uint8
	from, to id
	link     linkID
	// life is a random number of the sender's process; seq grows with each packet
	// of it.
	life, seq uint64
	// echoLife and echoSeq are those of the last packet that the sender accepted
	// from the receiver, or, before it has accepted one, that it has seen.
	echoLife, echoSeq uint64
	// table is the version of what the sender claims, ack that of the receiver's
	// table that it has.
	table, ack uint32
	// checks is how many checks of the receiver's have arrived, modulo 256.
	checks uint8
	views  []view
	// chunk is one of so many parts of the table; chunks is 0 in a packet without
	// one.
	chunk, chunks uint8
	claims        []claimed
}

// view is how long ago the sender had a sign of life of another node on a link.
type view struct {
	of   id
	link linkID
	age  time.Duration // whole milliseconds, 65,535 at most
}

// claimed is that a node owns a range of addresses.
type claimed struct {
	owner     id
	rank      rank
	addresses announce.Range
}

var (
	errPacketShort   = errors.New("the packet is too short")
	errPacketMagic   = errors.New("the packet is no heartbeat")
	errPacketVersion = errors.New("the heartbeat is of another version")
	errPacketContent = errors.New("the heartbeat is malformed")
)

// append encodes the packet behind b.
func (p *packet) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, packetMagic)
	b = append(b, packetVersion, p.flags)
	b = binary.BigEndian.AppendUint64(b, uint64(p.from))
	b = binary.BigEndian.AppendUint64(b, uint64(p.to))
	b = binary.BigEndian.AppendUint32(b, uint32(p.link))
	b = binary.BigEndian.AppendUint64(b, p.life)
	b = binary.BigEndian.AppendUint64(b, p.seq)
	b = binary.BigEndian.AppendUint64(b, p.echoLife)
	b = binary.BigEndian.AppendUint64(b, p.echoSeq)
	b = binary.BigEndian.AppendUint32(b, p.table)
	b = binary.BigEndian.AppendUint32(b, p.ack)
	b = append(b, byte(len(p.views)), p.chunk, p.chunks, p.checks)
	for _, v := range p.views {
		b = binary.BigEndian.AppendUint64(b, uint64(v.of))
		b = binary.BigEndian.AppendUint32(b, uint32(v.link))
		b = binary.BigEndian.AppendUint16(b, uint16(min(v.age/time.Millisecond, 0xffff)))
	}
	for _, c := range p.claims {
		b = binary.BigEndian.AppendUint64(b, uint64(c.owner))
		b = binary.BigEndian.AppendUint32(b, c.rank.epoch)
		b = binary.BigEndian.AppendUint32(b, c.rank.term)
		from, to := c.addresses.From().AsSlice(), c.addresses.To().AsSlice()
		b = append(b, byte(len(from)), 0)
		b = append(b, from...)
		b = append(b, to...)
	}
	return b
}

// size is the length of a claim in a packet.
func (c *claimed) size() int { return claimLength + 2*c.addresses.From().BitLen()/8 }

// parsePacket decodes what append encoded. It refuses all else: there is one
// encoding of each packet.
func parsePacket(b []byte) (packet, error) {
	if len(b) < headerLength {
		return packet{}, errPacketShort
	}
	if binary.BigEndian.Uint16(b) != packetMagic {
		return packet{}, errPacketMagic
	}
	if b[2] != packetVersion {
		return packet{}, errPacketVersion
	}
	p := packet{
		flags:    b[3],
		from:     id(binary.BigEndian.Uint64(b[4:])),
		to:       id(binary.BigEndian.Uint64(b[12:])),
		link:     linkID(binary.BigEndian.Uint32(b[20:])),
		life:     binary.BigEndian.Uint64(b[24:]),
		seq:      binary.BigEndian.Uint64(b[32:]),
		echoLife: binary.BigEndian.Uint64(b[40:]),
		echoSeq:  binary.BigEndian.Uint64(b[48:]),
		table:    binary.BigEndian.Uint32(b[56:]),
		ack:      binary.BigEndian.Uint32(b[60:]),
		chunk:    b[65],
		chunks:   b[66],
		checks:   b[67],
	}
	views := int(b[64])
	if p.flags&^knownFlags != 0 || views > maxViews || p.chunks > maxChunks ||
		p.chunks == 0 && p.chunk != 0 || p.chunks > 0 && p.chunk >= p.chunks || p.life == 0 || p.seq == 0 {
		return packet{}, errPacketContent
	}
	rest := b[headerLength:]
	if len(rest) < views*viewLength {
		return packet{}, errPacketShort
	}
	for ; views > 0; views-- {
		p.views = append(p.views, view{
			of:   id(binary.BigEndian.Uint64(rest)),
			link: linkID(binary.BigEndian.Uint32(rest[8:])),
			age:  time.Duration(binary.BigEndian.Uint16(rest[12:])) * time.Millisecond,
		})
		rest = rest[viewLength:]
	}
	if len(rest) > 0 && p.chunks == 0 {
		return packet{}, errPacketContent
	}
	for len(rest) > 0 {
		c, length, err := parseClaim(rest)
		if err != nil {
			return packet{}, err
		}
		p.claims = append(p.claims, c)
		rest = rest[length:]
	}
	return p, nil
}

func parseClaim(b []byte) (c claimed, length int, err error) {
	if len(b) < claimLength {
		return c, 0, errPacketShort
	}
	c.owner = id(binary.BigEndian.Uint64(b))
	c.rank = rank{binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])}
	octets := int(b[16])
	if octets != 4 && octets != 16 || b[17] != 0 {
		return c, 0, errPacketContent
	}
	if length = claimLength + 2*octets; len(b) < length {
		return c, 0, errPacketShort
	}
	from, _ := netip.AddrFromSlice(b[claimLength : claimLength+octets])
	to, _ := netip.AddrFromSlice(b[claimLength+octets : length])
	if from.Is4In6() || to.Is4In6() || to.Less(from) {
		return c, 0, errPacketContent
	}
	c.addresses = announce.Range(netipx.IPRangeFrom(from, to))
	return c, length, nil
}
