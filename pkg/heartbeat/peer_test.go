package heartbeat

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// told are the packets of a table.
func told(version uint32, table []claimed) []packet {
	chunks, _ := chunksOf(table)
	packets := make([]packet, len(chunks))
	for i, chunk := range chunks {
		packets[i] = packet{table: version, chunk: uint8(i), chunks: uint8(len(chunks)), claims: chunk}
	}
	return packets
}

// TestParts: who does not acknowledge a table is not sent all of it all the time.
func TestParts(t *testing.T) {
	const all = 2*slowParts + 1
	a := &adjacency{peer: &peer{version: 1, chunks: make([][]claimed, all)}}
	want := func(first, n int) {
		t.Helper()
		if gotFirst, gotN := a.nextParts(); gotFirst != first || gotN != n {
			t.Errorf("%d parts from %d, want %d from %d", gotN, gotFirst, n, first)
		}
	}
	for range wholeTables {
		want(0, all)
	}
	want(0, slowParts)
	want(slowParts, slowParts)
	want(2*slowParts, slowParts) // the last one, and the first ones again
	want(slowParts-1, slowParts)
	a.peer.version++
	want(0, all)
	a.peer.chunks = make([][]claimed, 1)
	for range 2 * wholeTables {
		want(0, 1)
	}
}

func TestCollect(t *testing.T) {
	table := scattered(2000, true, rank{})
	// The packets arrive out of order, some twice, among those of the version
	// before and packets without a part.
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		packets := told(2, table)
		parts := len(packets)
		packets = append(packets, packets[random.IntN(len(packets))], packets[0], packet{table: 2})
		random.Shuffle(len(packets), func(i, j int) { packets[i], packets[j] = packets[j], packets[i] })
		p := peer{life: 1, told: 1, known: 1}
		for _, old := range told(1, scattered(100, true, rank{})) {
			if _, complete := p.collect(&old); complete {
				t.Fatal("a table that is known is complete again")
			}
		}
		seen := make(map[uint8]bool)
		done := false
		for _, m := range packets {
			if m.chunks > 0 {
				seen[m.chunk] = true
			}
			got, complete := p.collect(&m)
			if want := !done && len(seen) == parts; complete != want {
				t.Fatalf("after %d parts: complete %v, want %v", len(seen), complete, want)
			}
			if complete && !slices.Equal(got, table) {
				t.Fatal("not the table that was told")
			}
			if done = done || complete; p.synced() != done {
				t.Fatalf("synced %v, want %v", p.synced(), done)
			}
		}
		if !done || p.parts != nil {
			t.Errorf("complete %v; still waiting: %v", done, p.parts)
		}
	}
}

func TestCollectEmpty(t *testing.T) {
	p := peer{life: 1, told: 1, known: 1, claims: scattered(1, true, rank{})}
	packets := told(2, nil)
	if table, complete := p.collect(&packets[0]); len(packets) != 1 || len(table) != 0 || !complete {
		t.Errorf("an empty table of %d parts: %v, %v", len(packets), table, complete)
	}
}

// TestCollectVersions: parts of two versions, or of another number of parts, are
// never put together.
func TestCollectVersions(t *testing.T) {
	old, table := scattered(200, true, rank{}), scattered(200, true, rank{1, 1})
	before, after := told(1, old), told(2, table)
	p := peer{life: 1}
	for _, m := range []packet{before[0], after[1], before[1], after[0]} {
		if _, complete := p.collect(&m); complete {
			t.Fatal("parts of two versions make a table")
		}
	}
	if got, complete := p.collect(&after[1]); !complete || !slices.Equal(got, table) {
		t.Errorf("complete %v", complete)
	}

	p = peer{life: 1}
	for _, m := range []packet{{chunk: 0, chunks: 2}, {chunk: 1, chunks: 3}, {chunk: 1, chunks: 2}} {
		m.table = 1
		if _, complete := p.collect(&m); complete {
			t.Fatal("parts of tables of different length make one")
		}
	}
}

// TestCollectHostile: a fellow that has the key makes this node remember one table at
// most, however it numbers the parts.
func TestCollectHostile(t *testing.T) {
	p := peer{life: 1}
	claims := scattered(136, true, rank{}) // as many as a packet has room for
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		chunks := 1 + random.IntN(maxChunks)
		m := packet{table: random.Uint32N(3), chunk: uint8(random.IntN(chunks)), chunks: uint8(chunks), claims: claims}
		p.collect(&m)
		if p.parts != nil && (len(p.parts.chunks) > maxChunks || p.parts.missing < 1) {
			t.Fatalf("%d parts, %d missing", len(p.parts.chunks), p.parts.missing)
		}
	}
}
