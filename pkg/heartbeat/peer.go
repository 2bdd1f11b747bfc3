package heartbeat

import (
	"net/netip"
	"slices"
	"time"
)

// peer is a fellow, on whatever links.
type peer struct {
	id          id
	name        string
	adjacencies []*adjacency
	// life of the process that was accepted; 0 before the first. former are those
	// before, seq is the last number on whatever link: what an earlier packet says
	// is out of date.
	life   uint64
	former []uint64
	seq    uint64
	flags  uint8

	// What it claims: told is the version that its packets tell, known the one
	// that is in claims; parts is what has come of another one.
	told, known uint32
	parts       *parts
	claims      []claimed
	// says are its claims that concern addresses of this node's.
	says map[netip.Addr]holding
	// unfit are the addresses of this node's that it has nobody to serve with.
	unfit map[netip.Addr]bool
	// What this node claims towards it: the whole, its parts, and how much has no
	// room in these; version, and the one it has acknowledged.
	table        []claimed
	chunks       [][]claimed
	untold       int
	version, has uint32
}

// parts is a table that has not arrived wholly.
type parts struct {
	version uint32
	chunks  [][]claimed
	missing int
}

// maxFormer bounds the processes of a fellow that are remembered: those whose packets
// could still be taken for recent ones.
const maxFormer = 8

// begin is that another process of the fellow's speaks, by that packet.
func (p *peer) begin(s stamp) {
	if p.life != 0 {
		p.former = append(p.former[max(0, len(p.former)+1-maxFormer):], p.life)
	}
	p.life, p.seq, p.flags = s.life, s.seq-1, 0
	p.told, p.known, p.parts, p.claims, p.says, p.unfit = 0, 0, nil, nil, nil, nil
	p.has = 0
	for _, a := range p.adjacencies {
		a.seq = p.seq // nor is what it said before on other links to be heard
		a.deaf, a.told = false, 0
	}
}

// synced reports whether the fellow's claims are known.
func (p *peer) synced() bool { return p.life != 0 && p.told == p.known }

// unread reports whether no table of the fellow's process is known yet; one that is out
// of date for a moment is.
func (p *peer) unread() bool { return p.life == 0 || p.known == 0 && p.told != 0 }

func (p *peer) starting() bool   { return p.flags&flagStarting != 0 || p.unread() }
func (p *peer) restarting() bool { return p.flags&flagRestarting != 0 }
func (p *peer) releasing() bool  { return p.flags&flagReleasing != 0 }

// decidedUp reports whether it was heard on any link when decisions were made last.
func (p *peer) decidedUp() bool {
	return slices.ContainsFunc(p.adjacencies, func(a *adjacency) bool { return a.last == Up })
}

// heard is when it was heard last, on any link; if it was not, since when it could
// have been.
func (p *peer) heard() (at time.Time) {
	for _, a := range p.adjacencies {
		at = latest(at, a.since, a.heard)
	}
	return at
}

// evidence is the last sign of life of it, on any link.
func (p *peer) evidence() (at time.Time) {
	for _, a := range p.adjacencies {
		at = latest(at, a.evidence())
	}
	return at
}

// back is when there were signs of life of it again, on any link.
func (p *peer) back() (at time.Time) {
	for _, a := range p.adjacencies {
		at = latest(at, a.back)
	}
	return at
}

// collect takes a part of the fellow's table and returns the whole when it is
// complete.
func (p *peer) collect(m *packet) (table []claimed, complete bool) {
	p.told = m.table
	if m.chunks == 0 || m.table == p.known {
		return nil, false
	}
	if p.parts == nil || p.parts.version != m.table || len(p.parts.chunks) != int(m.chunks) {
		p.parts = &parts{version: m.table, chunks: make([][]claimed, m.chunks), missing: int(m.chunks)}
	}
	if p.parts.chunks[m.chunk] == nil {
		p.parts.chunks[m.chunk] = slices.Concat(make([]claimed, 0), m.claims)
		p.parts.missing--
	}
	if p.parts.missing > 0 {
		return nil, false
	}
	table = slices.Concat(p.parts.chunks...)
	p.known, p.parts = m.table, nil
	return table, true
}

// chunksOf cuts a table so that each part fits into a packet. There is one part at
// least, for an empty table has to be told, too. left is what is beyond maxChunks.
func chunksOf(table []claimed) (chunks [][]claimed, left []claimed) {
	const room = maxPacket - headerLength - maxViews*viewLength - trailerLength
	begin, size := 0, 0
	for i := range table {
		if begin == i || !table[i].joins(&table[i-1]) {
			size += runLength
		}
		if size += table[i].octets() + followLength; size > room {
			chunks = append(chunks, table[begin:i])
			begin, size = i, runLength+table[i].octets()+followLength
		}
		if len(chunks) == maxChunks {
			return chunks, table[i:]
		}
	}
	return append(chunks, table[begin:]), nil
}
