package ipam

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// book is who has which address, in blocks of 256 neighbours. It costs what is
// entered, not what the pools hold, and a search steps over a full block at
// once. The zero value is not usable; see newBook.
type book struct {
	blocks map[blockKey]*block
	// spare is the last block that was emptied. Searches that go back and forth
	// over the end of a block make no garbage.
	spare *block
}

// blockKey is an address without its last byte, of IPv4 in its mapped form.
type blockKey struct{ high, low uint64 }

// block holds 256 neighbours.
type block struct {
	// busy has a bit for each address that cannot be given out: somebody has it,
	// or it is a node's own.
	busy [4]uint64
	// tenants are sorted by offset. Those of one address are in the order in
	// which they came.
	tenants []tenant
}

// tenant has the address at the offset in its block.
type tenant struct {
	offset uint8
	*holding
}

func newBook() *book {
	return &book{blocks: make(map[blockKey]*block)}
}

func locate(addr netip.Addr) (blockKey, uint8) {
	bytes := addr.As16()
	low := binary.BigEndian.Uint64(bytes[8:])
	return blockKey{high: binary.BigEndian.Uint64(bytes[:8]), low: low >> 8}, uint8(low)
}

// next is the key of the block behind.
func (k blockKey) next() blockKey {
	k.low = (k.low + 1) << 8 >> 8
	if k.low == 0 {
		k.high++
	}
	return k
}

// addr is the address at the offset.
func (k blockKey) addr(offset uint8) netip.Addr {
	var bytes [16]byte
	binary.BigEndian.PutUint64(bytes[:8], k.high)
	binary.BigEndian.PutUint64(bytes[8:], k.low<<8|uint64(offset))
	return netip.AddrFrom16(bytes).Unmap()
}

// tenants are those that have the address. The slice is read-only, and valid
// until the book changes.
func (b *book) tenants(addr netip.Addr) []tenant {
	key, offset := locate(addr)
	block := b.blocks[key]
	if block == nil {
		return nil
	}
	from, to := block.at(offset)
	return block.tenants[from:to]
}

// at is where the tenants of the address at the offset are.
func (b *block) at(offset uint8) (from, to int) {
	from, _ = slices.BinarySearchFunc(b.tenants, offset, func(t tenant, offset uint8) int { return cmp.Compare(t.offset, offset) })
	for to = from; to < len(b.tenants) && b.tenants[to].offset == offset; to++ {
	}
	return from, to
}

// enter makes the holding the last tenant of the address, unless it is one.
func (b *book) enter(addr netip.Addr, h *holding) {
	key, offset := locate(addr)
	block := b.block(key)
	from, to := block.at(offset)
	if slices.ContainsFunc(block.tenants[from:to], func(t tenant) bool { return t.holding == h }) {
		return
	}
	block.tenants = slices.Insert(block.tenants, to, tenant{offset, h})
	block.busy[offset/64] |= 1 << (offset % 64)
}

// strike removes the holding from the tenants of the address. The address stays
// busy until settle.
func (b *book) strike(addr netip.Addr, h *holding) {
	key, offset := locate(addr)
	block := b.blocks[key]
	if block == nil {
		return
	}
	from, to := block.at(offset)
	if i := slices.IndexFunc(block.tenants[from:to], func(t tenant) bool { return t.holding == h }); i >= 0 {
		block.tenants = slices.Delete(block.tenants, from+i, from+i+1)
	}
}

// settle marks the address as busy where it has tenants or is reserved.
func (b *book) settle(addr netip.Addr, reserved bool) {
	key, offset := locate(addr)
	block := b.block(key)
	from, to := block.at(offset)
	if reserved || from < to {
		block.busy[offset/64] |= 1 << (offset % 64)
		return
	}
	block.busy[offset/64] &^= 1 << (offset % 64)
	if block.busy == ([4]uint64{}) {
		delete(b.blocks, key)
		b.spare = block
	}
}

func (b *book) block(key blockKey) *block {
	found := b.blocks[key]
	if found == nil {
		found = b.spare
		if b.spare = nil; found == nil {
			found = &block{}
		}
		b.blocks[key] = found
	}
	return found
}

// free is the first address from from to to that is not busy, or the zero Addr;
// avoid leaves out IPv4 addresses that end in .0 and .255.
func (b *book) free(from, to netip.Addr, avoid bool) netip.Addr {
	var avoided [4]uint64
	if avoid && from.Is4() {
		avoided[0], avoided[3] = 1, 1<<63
	}
	key, offset := locate(from)
	end, last := locate(to)
	for {
		busy := avoided
		if block := b.blocks[key]; block != nil {
			for i := range busy {
				busy[i] |= block.busy[i]
			}
		}
		found, ok := firstZero(busy, offset)
		switch {
		case ok && (key != end || found <= last):
			return key.addr(found)
		case key == end:
			return netip.Addr{}
		}
		key, offset = key.next(), 0
	}
}

// firstZero is the first zero bit that is not before from.
func firstZero(words [4]uint64, from uint8) (uint8, bool) {
	mask := ^uint64(0) << (from % 64)
	for i := int(from / 64); i < len(words); i++ {
		if zeros := ^words[i] & mask; zeros != 0 {
			return uint8(i*64 + bits.TrailingZeros64(zeros)), true
		}
		mask = ^uint64(0)
	}
	return 0, false
}

// occupied calls yield with each address from from to to that has tenants, in
// order, until it returns false. Where few of the addresses have, it is called
// with those of many blocks, so it costs no more than what is entered.
func (b *book) occupied(from, to netip.Addr, yield func(netip.Addr, []tenant) bool) bool {
	key, offset := locate(from)
	end, last := locate(to)
	for _, k := range b.keysBetween(key, end) {
		block := b.blocks[k]
		for i := 0; i < len(block.tenants); {
			at := block.tenants[i].offset
			_, next := block.at(at)
			inside := (k != key || at >= offset) && (k != end || at <= last)
			if inside && !yield(k.addr(at), block.tenants[i:next]) {
				return false
			}
			i = next
		}
	}
	return true
}

// keysBetween are the keys of the blocks from first to last, sorted.
func (b *book) keysBetween(first, last blockKey) []blockKey {
	compare := func(x, y blockKey) int {
		return cmp.Or(cmp.Compare(x.high, y.high), cmp.Compare(x.low, y.low))
	}
	var keys []blockKey
	if first.high == last.high && last.low-first.low < uint64(len(b.blocks)) {
		for key := first; ; key = key.next() {
			if b.blocks[key] != nil {
				keys = append(keys, key)
			}
			if key == last {
				return keys
			}
		}
	}
	for key := range b.blocks {
		if compare(first, key) <= 0 && compare(key, last) <= 0 {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compare)
	return keys
}
