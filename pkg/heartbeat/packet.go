package heartbeat

import (
	"encoding/binary"
	"errors"
	"math"
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
	// runLength is that of what claims of one owner and rank have in common,
	// followLength that of how many addresses follow the first of a range.
	runLength    = 18
	followLength = 4
	// macLength is that of the truncated HMAC-SHA256 (RFC 2104 section 5) at the end.
	macLength = 16
	// maxPacket fits any MTU that IPv6 allows (RFC 8200 section 5), with the headers.
	maxPacket = 1200
	maxViews  = 16
	// maxChunks bounds the parts of a table, and so what a fellow can make this
	// node remember: 27,000 addresses of IPv4 without neighbours, or 11,000 of IPv6.
	maxChunks = 255
)

// Flags of a packet.
const (
	flagStarting   = 1 << iota // the sender has not decided yet what it owns, or does not answer yet
	flagRestarting             // it is about to stop, and to come back
	flagReleasing              // it is to own nothing: others are to claim
	flagDeaf                   // nobody on the link answers it
	knownFlags     = flagStarting | flagRestarting | flagReleasing | flagDeaf
	// unfitBit marks the addresses of a run that the sender has nobody to serve with, in
	// the octet of their length.
	unfitBit = 0x80
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

// claimed is that a node owns a range of addresses. Without an owner it says no more
// than whether the sender is fit for them.
type claimed struct {
	owner     id
	rank      rank
	addresses announce.Range
	// unfit: the sender has nobody to serve the addresses with, whoever owns them.
	unfit bool
}

var (
	errPacketShort   = errors.New("the packet is too short")
	errPacketLong    = errors.New("the packet is too long")
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
	for rest := p.claims; len(rest) > 0; {
		run := 1
		for run < len(rest) && rest[run].joins(&rest[0]) {
			run++
		}
		b = appendRun(b, rest[:run])
		rest = rest[run:]
	}
	return b
}

// appendRun encodes claims that join each other.
func appendRun(b []byte, run []claimed) []byte {
	c := &run[0]
	b = binary.BigEndian.AppendUint64(b, uint64(c.owner))
	b = binary.BigEndian.AppendUint32(b, c.rank.epoch)
	b = binary.BigEndian.AppendUint32(b, c.rank.term)
	length := byte(c.octets())
	if c.unfit {
		length |= unfitBit
	}
	b = append(b, length, byte(len(run)))
	for i := range run {
		addresses := run[i].addresses
		from := addresses.From().As16()
		b = append(b, from[len(from)-c.octets():]...)
		b = binary.BigEndian.AppendUint32(b, low(addresses.To())-low(addresses.From()))
	}
	return b
}

// joins reports whether two claims are of one run.
func (c *claimed) joins(other *claimed) bool {
	return c.owner == other.owner && c.rank == other.rank && c.octets() == other.octets() && c.unfit == other.unfit
}

func (c *claimed) octets() int { return c.addresses.From().BitLen() / 8 }

// low is the last 32 bits of an address.
func low(addr netip.Addr) uint32 {
	octets := addr.As16()
	return binary.BigEndian.Uint32(octets[12:])
}

// parsePacket decodes what append encoded. It refuses all else: there is one
// encoding of each packet.
func parsePacket(b []byte) (p packet, err error) {
	if len(b) < headerLength {
		return packet{}, errPacketShort
	}
	if len(b) > maxPacket-trailerLength {
		return packet{}, errPacketLong
	}
	if binary.BigEndian.Uint16(b) != packetMagic {
		return packet{}, errPacketMagic
	}
	if b[2] != packetVersion {
		return packet{}, errPacketVersion
	}
	p = packet{
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
	if views > 0 {
		p.views = make([]view, 0, views)
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
	if p.claims, err = parseClaims(rest); err != nil {
		return packet{}, err
	}
	return p, nil
}

func parseClaims(b []byte) (claims []claimed, err error) {
	for len(b) > 0 {
		if len(b) < runLength {
			return nil, errPacketShort
		}
		c := claimed{
			owner: id(binary.BigEndian.Uint64(b)),
			rank:  rank{binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])},
			unfit: b[16]&unfitBit != 0,
		}
		octets, run := int(b[16]&^unfitBit), int(b[17])
		if octets != 4 && octets != 16 || run == 0 || c.owner == 0 && (c.rank != rank{} || !c.unfit) {
			return nil, errPacketContent
		}
		if b = b[runLength:]; len(b) < run*(octets+followLength) {
			return nil, errPacketShort
		}
		joined := len(claims) // with the run before
		for range run {
			from, _ := netip.AddrFromSlice(b[:octets])
			var ok bool
			if c.addresses, ok = rangeOf(from, binary.BigEndian.Uint32(b[octets:])); !ok {
				return nil, errPacketContent
			}
			claims = append(claims, c)
			b = b[octets+followLength:]
		}
		if joined > 0 && claims[joined].joins(&claims[joined-1]) {
			return nil, errPacketContent // they would have been one run
		}
	}
	return claims, nil
}

// rangeOf is the range of an address and of so many that follow it.
func rangeOf(from netip.Addr, follow uint32) (r announce.Range, ok bool) {
	octets := from.As16()
	last := uint64(binary.BigEndian.Uint32(octets[12:])) + uint64(follow)
	if last > math.MaxUint32 && from.Is4() {
		return r, false
	}
	binary.BigEndian.PutUint32(octets[12:], uint32(last))
	for i := 11; i >= 0 && last > math.MaxUint32; i-- {
		octets[i]++
		if octets[i] != 0 {
			break
		}
	}
	to := netip.AddrFrom16(octets)
	if from.Is4() {
		to = to.Unmap()
	}
	if from.Is4In6() || to.Is4In6() || to.Less(from) {
		return r, false
	}
	return announce.Range(netipx.IPRangeFrom(from, to)), true
}
