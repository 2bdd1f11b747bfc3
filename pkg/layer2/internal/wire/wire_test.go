package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

var (
	own   = announce.MAC{0x02, 0x00, 0x5e, 0x00, 0x53, 0x01}
	other = announce.MAC{0x02, 0x00, 0x5e, 0x00, 0x53, 0x02}
	third = announce.MAC{0x02, 0x00, 0x5e, 0x00, 0x53, 0x03}
	group = announce.MAC{0x01, 0x00, 0x5e, 0x00, 0x00, 0x01}

	address4  = netip.MustParseAddr("192.0.2.10")
	neighbor4 = netip.MustParseAddr("192.0.2.99")
	address6  = netip.MustParseAddr("2001:db8::10")
	neighbor6 = netip.MustParseAddr("fe80::99")
	zero4     = netip.IPv4Unspecified()
	zero6     = netip.IPv6Unspecified()

	compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

// request is a broadcast ARP request of another host for address4.
func request() []byte {
	frame := ARPProbe(other, address4)
	copy(frame[28:], neighbor4.AsSlice())
	return frame
}

// solicitation is another host's for address6, to the solicited-node group.
func solicitation(options ...ndp.Option) []byte {
	group, mac := SolicitedNode(address6)
	return ndpFrame(mac, other, neighbor6, group, &ndp.NeighborSolicitation{TargetAddress: address6, Options: options})
}

func sourceOption(mac announce.MAC) ndp.Option {
	return &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac[:]}
}

func targetOption(mac announce.MAC) ndp.Option {
	return &ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac[:]}
}

// change is the frame with other octets from an offset on.
func change(frame []byte, offset int, octets ...byte) []byte {
	frame = slices.Clone(frame)
	copy(frame[offset:], octets)
	return frame
}

// repair writes the checksum that an NDP frame should have.
func repair(frame []byte) []byte {
	const start = ethernetLength + ipv6Length
	if len(frame) < start+ndpLength || etherType(frame) != etherTypeIPv6 {
		return frame
	}
	length := int(binary.BigEndian.Uint16(frame[ethernetLength+4:]))
	if length < 4 || start+length > len(frame) {
		return frame
	}
	frame = slices.Clone(frame)
	frame[start+2], frame[start+3] = 0, 0
	sum := checksum(frame[ethernetLength+8:start+length], uint32(length)+icmpv6)
	binary.BigEndian.PutUint16(frame[start+2:], ^sum)
	return frame
}

// withOptions is the frame of an NDP message with raw options appended.
func withOptions(frame []byte, options ...byte) []byte {
	frame = append(slices.Clone(frame), options...)
	binary.BigEndian.PutUint16(frame[ethernetLength+4:], uint16(len(frame)-ethernetLength-ipv6Length))
	return repair(frame)
}

func TestParseARP(t *testing.T) {
	for name, test := range map[string]struct {
		frame []byte
		want  Message
		err   error
	}{
		"request": {frame: request(), want: Message{
			Kind: ARPRequest, Source: other, Destination: broadcast,
			Sender: neighbor4, SenderMAC: other, Target: address4,
		}},
		"padded to the least length of Ethernet": {frame: append(request(), make([]byte, 18)...), want: Message{
			Kind: ARPRequest, Source: other, Destination: broadcast,
			Sender: neighbor4, SenderMAC: other, Target: address4,
		}},
		"reply from another MAC than that of the frame": {frame: change(ARPAnswer(other, address4, own, neighbor4), 6, third[:]...), want: Message{
			Kind: ARPReply, Source: third, Destination: own,
			Sender: address4, SenderMAC: other, Target: neighbor4,
		}},
		"probe": {frame: ARPProbe(other, address4), want: Message{
			Kind: ARPRequest, Source: other, Destination: broadcast,
			Sender: zero4, SenderMAC: other, Target: address4,
		}},
		"empty":                       {err: errShort},
		"one octet short":             {frame: request()[:41], err: errShort},
		"802.1Q":                      {frame: change(request(), 12, 0x81, 0x00), err: errVLAN},
		"802.1ad":                     {frame: change(request(), 12, 0x88, 0xa8), err: errVLAN},
		"old service tag":             {frame: change(request(), 12, 0x91, 0x00), err: errVLAN},
		"IPv6":                        {frame: solicitation(), err: errEtherType},
		"from a group":                {frame: change(request(), 6, group[:]...), err: errFrameMAC},
		"from MAC zero":               {frame: change(request(), 6, 0, 0, 0, 0, 0, 0), err: errFrameMAC},
		"hardware type":               {frame: change(request(), 15, 6), err: errARPHeader},
		"protocol type":               {frame: change(request(), 16, 0x86, 0xdd), err: errARPHeader},
		"hardware address length":     {frame: change(request(), 18, 8), err: errARPHeader},
		"protocol address length":     {frame: change(request(), 19, 16), err: errARPHeader},
		"operation zero":              {frame: change(request(), 21, 0), err: errARPOperation},
		"RARP":                        {frame: change(request(), 21, 3), err: errARPOperation},
		"operation beyond an octet":   {frame: change(request(), 20, 1, 1), err: errARPOperation},
		"sender MAC is a group":       {frame: change(request(), 22, group[:]...), err: errSenderMAC},
		"sender MAC is broadcast":     {frame: change(request(), 22, broadcast[:]...), err: errSenderMAC},
		"sender MAC is zero":          {frame: change(request(), 22, 0, 0, 0, 0, 0, 0), err: errSenderMAC},
		"sender address is multicast": {frame: change(request(), 28, 224, 0, 0, 1), err: errSenderAddr},
		"sender address is broadcast": {frame: change(request(), 28, 255, 255, 255, 255), err: errSenderAddr},
		"sender address is loopback":  {frame: change(request(), 28, 127, 0, 0, 1), err: errSenderAddr},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseARP(test.frame)
			if err != test.err {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(test.want, got, compareAddr); diff != "" {
				t.Error(diff)
			}
			consistent(t, test.frame)
		})
	}
}

func TestParseNDP(t *testing.T) {
	multicast, multicastMAC := SolicitedNode(address6)
	asked := Message{
		Kind: Solicitation, Source: other, Destination: multicastMAC,
		Sender: neighbor6, SenderMAC: other, Target: address6, To: multicast,
	}
	askedFor := func(mac announce.MAC) Message {
		m := asked
		m.SenderMAC = mac
		return m
	}
	told := Message{
		Kind: Advertisement, Source: other, Destination: allNodesMAC,
		Sender: address6, SenderMAC: other, Target: address6, To: allNodes, Override: true,
	}
	toldBy := func(mac announce.MAC) Message {
		m := told
		m.Source, m.SenderMAC = mac, mac
		return m
	}
	announcement := NDPAnnouncement(other, address6)
	for name, test := range map[string]struct {
		frame []byte
		want  Message
		err   error
	}{
		"solicitation": {frame: solicitation(sourceOption(other)), want: asked},
		// Neighbour unreachability detection may leave the option out.
		"solicitation without an option":     {frame: solicitation(), want: asked},
		"solicitation for another MAC":       {frame: solicitation(sourceOption(third)), want: askedFor(third)},
		"the first of two options":           {frame: solicitation(sourceOption(third), sourceOption(own)), want: askedFor(third)},
		"an option that means nothing here":  {frame: solicitation(targetOption(third)), want: asked},
		"an unknown option before":           {frame: withOptions(solicitation(), 14, 1, 1, 2, 3, 4, 5, 6, 1, 1, 2, 0, 0x5e, 0, 0x53, 3), want: askedFor(third)},
		"padding behind the payload":         {frame: append(solicitation(), 1, 0, 0), want: asked},
		"announcement":                       {frame: announcement, want: told},
		"announcement of a MAC":              {frame: change(announcement, 6, third[:]...), want: func() Message { m := told; m.Source = third; return m }()},
		"announcement without an option":     {frame: ndpFrame(allNodesMAC, third, address6, allNodes, &ndp.NeighborAdvertisement{Override: true, TargetAddress: address6}), want: toldBy(third)},
		"all flags":                          {frame: ndpFrame(own, other, address6, neighbor6, &ndp.NeighborAdvertisement{Router: true, Solicited: true, TargetAddress: address6}), want: Message{Kind: Advertisement, Source: other, Destination: own, Sender: address6, SenderMAC: other, Target: address6, To: neighbor6, Router: true, Solicited: true}},
		"probe":                              {frame: NDPProbe(other, address6), want: func() Message { m := asked; m.Sender = zero6; return m }()},
		"probe with a nonce":                 {frame: withOptions(NDPProbe(other, address6), 14, 1, 1, 2, 3, 4, 5, 6), want: func() Message { m := asked; m.Sender = zero6; return m }()},
		"empty":                              {err: errShort},
		"one octet short":                    {frame: solicitation()[:77], err: errShort},
		"ARP":                                {frame: request(), err: errEtherType},
		"802.1Q":                             {frame: change(solicitation(), 12, 0x81, 0x00), err: errVLAN},
		"from a group":                       {frame: change(solicitation(), 6, group[:]...), err: errFrameMAC},
		"version":                            {frame: change(solicitation(), 14, 0x40), err: errIPv6Header},
		"next header":                        {frame: change(solicitation(), 20, 0), err: errIPv6Header},
		"forwarded":                          {frame: change(solicitation(), 21, 254), err: errIPv6Header},
		"payload beyond the frame":           {frame: change(solicitation(), 19, 25), err: errIPv6Length},
		"payload too short":                  {frame: repair(change(solicitation(), 19, 23)), err: errIPv6Length},
		"checksum":                           {frame: change(solicitation(), 56, 0, 0), err: errChecksum},
		"type":                               {frame: repair(change(solicitation(), 54, 137)), err: errICMPType},
		"code":                               {frame: repair(change(solicitation(), 55, 1)), err: errICMPType},
		"source is multicast":                {frame: repair(change(solicitation(), 22, 0xff)), err: errSenderAddr},
		"source is loopback":                 {frame: ndpFrame(multicastMAC, other, netip.IPv6Loopback(), multicast, &ndp.NeighborSolicitation{TargetAddress: address6}), err: errSenderAddr},
		"source is IPv4-mapped":              {frame: ndpFrame(multicastMAC, other, netip.MustParseAddr("::ffff:192.0.2.1"), multicast, &ndp.NeighborSolicitation{TargetAddress: address6}), err: errSenderAddr},
		"target is multicast":                {frame: repair(change(solicitation(), 62, 0xff)), err: errTarget},
		"target is unspecified":              {frame: repair(change(solicitation(), 62, make([]byte, 16)...)), err: errTarget},
		"target is IPv4-mapped":              {frame: repair(change(solicitation(), 62, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff)), err: errTarget},
		"option of length zero":              {frame: withOptions(solicitation(), 1, 0, 2, 0, 0x5e, 0, 0x53, 3), err: errOption},
		"unknown option of length zero":      {frame: withOptions(solicitation(), 200, 0, 2, 0, 0x5e, 0, 0x53, 3), err: errOption},
		"option beyond the message":          {frame: withOptions(solicitation(), 14, 2, 2, 0, 0x5e, 0, 0x53, 3), err: errOption},
		"octets that are no option":          {frame: withOptions(solicitation(), 1), err: errOption},
		"link-layer address of 14 octets":    {frame: withOptions(solicitation(), 1, 2, 2, 0, 0x5e, 0, 0x53, 3, 0, 0, 0, 0, 0, 0, 0, 0), err: errOption},
		"link-layer address is a group":      {frame: solicitation(sourceOption(group)), err: errSenderMAC},
		"link-layer address is zero":         {frame: solicitation(sourceOption(announce.MAC{})), err: errSenderMAC},
		"probe to a node":                    {frame: ndpFrame(own, other, zero6, address6, &ndp.NeighborSolicitation{TargetAddress: address6}), err: errProbeTo},
		"probe to all nodes":                 {frame: ndpFrame(allNodesMAC, other, zero6, allNodes, &ndp.NeighborSolicitation{TargetAddress: address6}), err: errProbeTo},
		"probe with a source option":         {frame: ndpFrame(multicastMAC, other, zero6, multicast, &ndp.NeighborSolicitation{TargetAddress: address6, Options: []ndp.Option{sourceOption(other)}}), err: errProbeOption},
		"advertisement from nowhere":         {frame: ndpFrame(allNodesMAC, other, zero6, allNodes, &ndp.NeighborAdvertisement{TargetAddress: address6}), err: errSenderAddr},
		"solicited advertisement to a group": {frame: ndpFrame(allNodesMAC, other, address6, allNodes, &ndp.NeighborAdvertisement{Solicited: true, TargetAddress: address6}), err: errGroupSolicited},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseNDP(test.frame)
			if err != test.err {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(test.want, got, compareAddr); diff != "" {
				t.Error(diff)
			}
			consistent(t, test.frame)
		})
	}
}

// consistent holds the parsers against those of mdlayher/arp and mdlayher/ndp:
// what parses here parses there, to the same, and can be written again.
func consistent(t *testing.T, frame []byte) {
	t.Helper()
	m, err := ParseFrame(frame)
	if err != nil {
		if m != (Message{}) {
			t.Errorf("error %v with %+v", err, m)
		}
		return
	}
	var same Message
	switch m.Kind {
	case ARPRequest, ARPReply:
		same, err = ParseARP(frame)
		consistentARP(t, frame, m)
	case Solicitation, Advertisement:
		same, err = ParseNDP(frame)
		consistentNDP(t, frame, m)
	default:
		t.Errorf("no kind: %+v", m)
	}
	if err != nil || same != m {
		t.Errorf("ParseFrame says %+v, the parser of the protocol %+v, %v", m, same, err)
	}
	if addr, by, ok := m.Claims(); ok && (!addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || !isHost(by)) {
		t.Errorf("%+v claims %s by %s", m, addr, by)
	}
	if m.Probe() {
		if _, ok := m.Asks(); !ok && !m.Target.IsUnspecified() {
			t.Errorf("probe %+v asks nothing", m)
		}
	}
}

func consistentARP(t *testing.T, frame []byte, m Message) {
	t.Helper()
	var reference ethernet.Frame
	if err := reference.UnmarshalBinary(frame); err != nil {
		t.Fatalf("ethernet: %v", err)
	}
	var packet arp.Packet
	if err := packet.UnmarshalBinary(reference.Payload); err != nil {
		t.Fatalf("arp: %v", err)
	}
	want := Message{
		Kind:   map[arp.Operation]Kind{arp.OperationRequest: ARPRequest, arp.OperationReply: ARPReply}[packet.Operation],
		Source: announce.MAC(reference.Source), Destination: announce.MAC(reference.Destination),
		Sender: packet.SenderIP, SenderMAC: announce.MAC(packet.SenderHardwareAddr), Target: packet.TargetIP,
	}
	if m != want {
		t.Errorf("got %+v, mdlayher has %+v", m, want)
	}
	again, err := ParseARP(arpFrame(m.Destination, m.SenderMAC, packet.Operation, m.Sender, m.Destination, m.Target))
	m.Source = m.SenderMAC
	if err != nil || again != m {
		t.Errorf("wrote and read %+v, %v, want %+v", again, err, m)
	}
}

func consistentNDP(t *testing.T, frame []byte, m Message) {
	t.Helper()
	length := int(binary.BigEndian.Uint16(frame[ethernetLength+4:]))
	message, err := ndp.ParseMessage(frame[ethernetLength+ipv6Length:][:length])
	if err != nil {
		// It looks into options that mean nothing here.
		return
	}
	var want Message
	var again ndp.Message
	switch reference := message.(type) {
	case *ndp.NeighborSolicitation:
		want = Message{Kind: Solicitation, Target: reference.TargetAddress, SenderMAC: optionMAC(reference.Options, ndp.Source, m.Source)}
		copied := *reference
		copied.Options = nil
		if !m.Sender.IsUnspecified() {
			copied.Options = []ndp.Option{sourceOption(m.SenderMAC)}
		}
		again = &copied
	case *ndp.NeighborAdvertisement:
		want = Message{
			Kind: Advertisement, Target: reference.TargetAddress, SenderMAC: optionMAC(reference.Options, ndp.Target, m.Source),
			Override: reference.Override, Solicited: reference.Solicited, Router: reference.Router,
		}
		copied := *reference
		copied.Options = []ndp.Option{targetOption(m.SenderMAC)}
		again = &copied
	default:
		t.Fatalf("mdlayher has %T", message)
	}
	want.Source, want.Destination, want.Sender, want.To = m.Source, m.Destination, m.Sender, m.To
	if m != want {
		t.Errorf("got %+v, mdlayher has %+v", m, want)
	}
	written, err := ParseNDP(ndpFrame(m.Destination, m.Source, m.Sender, m.To, again))
	if err != nil || written != m {
		t.Errorf("wrote and read %+v, %v, want %+v", written, err, m)
	}
}

// optionMAC is the first link-layer address of that direction.
func optionMAC(options []ndp.Option, direction ndp.Direction, otherwise announce.MAC) announce.MAC {
	for _, option := range options {
		if address, ok := option.(*ndp.LinkLayerAddress); ok && address.Direction == direction {
			return announce.MAC(address.Addr)
		}
	}
	return otherwise
}

// answerFor is an answer that own sends in place of the owner of address4.
func answerFor(owner announce.MAC) []byte {
	frame := ARPAnswer(owner, address4, third, neighbor4)
	SetSource(frame, own)
	return frame
}

// announcementTo is an announcement for one host alone.
func announcementTo(mac announce.MAC) []byte {
	frame := ARPAnnouncement(own, address4)
	SetDestination(frame, mac)
	return frame
}

func TestBuild(t *testing.T) {
	const source, target = "02005e005301", "02005e005302"
	for name, test := range map[string]struct {
		frame []byte
		want  string
	}{
		"ARPAnswer": {
			ARPAnswer(own, address4, other, neighbor4),
			target + source + "0806 0001 0800 06 04 0002" + source + "c000020a" + target + "c0000263",
		},
		// As Linux and arping -D expect it: the target stays unspecified.
		"ARPAnswer to a probe": {
			ARPAnswer(own, address4, other, zero4),
			target + source + "0806 0001 0800 06 04 0002" + source + "c000020a" + target + "00000000",
		},
		"ARPAnnouncement": {
			ARPAnnouncement(own, address4),
			"ffffffffffff" + source + "0806 0001 0800 06 04 0001" + source + "c000020a 000000000000 c000020a",
		},
		"ARPGratuitousReply": {
			ARPGratuitousReply(own, address4),
			"ffffffffffff" + source + "0806 0001 0800 06 04 0002" + source + "c000020a" + source + "c000020a",
		},
		"ARPProbe": {
			ARPProbe(own, address4),
			"ffffffffffff" + source + "0806 0001 0800 06 04 0001" + source + "00000000 000000000000 c000020a",
		},
		"NDPAnswer": {
			NDPAnswer(own, address6, &Message{Sender: neighbor6, SenderMAC: other}),
			target + source + "86dd 60000000 0020 3a ff 20010db8000000000000000000000010 fe800000000000000000000000000099" +
				"88 00 07f6 60000000 20010db8000000000000000000000010 0201" + source,
		},
		"NDPAnswer to a probe": {
			NDPAnswer(own, address6, &Message{Sender: zero6, SenderMAC: other}),
			"333300000001" + source + "86dd 60000000 0020 3a ff 20010db8000000000000000000000010 ff020000000000000000000000000001" +
				"88 00 480c 20000000 20010db8000000000000000000000010 0201" + source,
		},
		"NDPAnnouncement": {
			NDPAnnouncement(own, address6),
			"333300000001" + source + "86dd 60000000 0020 3a ff 20010db8000000000000000000000010 ff020000000000000000000000000001" +
				"88 00 480c 20000000 20010db8000000000000000000000010 0201" + source,
		},
		"NDPProbe": {
			NDPProbe(own, address6),
			"3333ff000010" + source + "86dd 60000000 0018 3a ff 00000000000000000000000000000000 ff0200000000000000000001ff000010" +
				"87 00 4ccf 00000000 20010db8000000000000000000000010",
		},
		"ARPQuestion to a host": {
			ARPQuestion(own, neighbor4, address4, other),
			target + source + "0806 0001 0800 06 04 0001" + source + "c0000263 000000000000 c000020a",
		},
		"ARPQuestion to all": {
			ARPQuestion(own, neighbor4, address4, announce.MAC{}),
			"ffffffffffff" + source + "0806 0001 0800 06 04 0001" + source + "c0000263 000000000000 c000020a",
		},
		"NDPQuestion to a host": {
			NDPQuestion(own, neighbor6, address6, other),
			target + source + "86dd 60000000 0020 3a ff fe800000000000000000000000000099 20010db8000000000000000000000010" +
				"87 00 69f6 00000000 20010db8000000000000000000000010 0101" + source,
		},
		"NDPQuestion to all": {
			NDPQuestion(own, neighbor6, address6, announce.MAC{}),
			"3333ff000010" + source + "86dd 60000000 0020 3a ff fe800000000000000000000000000099 ff0200000000000000000001ff000010" +
				"87 00 99aa 00000000 20010db8000000000000000000000010 0101" + source,
		},
		"an answer in place of its owner": {
			answerFor(other),
			"02005e005303" + source + "0806 0001 0800 06 04 0002" + target + "c000020a 02005e005303 c0000263",
		},
		"an announcement for one host": {
			announcementTo(other),
			target + source + "0806 0001 0800 06 04 0001" + source + "c000020a 000000000000 c000020a",
		},
		"ARPQuestion for IPv6":        {ARPQuestion(own, neighbor4, address6, other), ""},
		"ARPQuestion from IPv6":       {ARPQuestion(own, neighbor6, address4, other), ""},
		"NDPQuestion for IPv4":        {NDPQuestion(own, neighbor6, address4, other), ""},
		"NDPQuestion for nothing":     {NDPQuestion(own, neighbor6, netip.Addr{}, announce.MAC{}), ""},
		"ARPAnswer for IPv6":          {ARPAnswer(own, address6, other, neighbor4), ""},
		"ARPAnswer to IPv6":           {ARPAnswer(own, address4, other, neighbor6), ""},
		"ARPAnnouncement of nothing":  {ARPAnnouncement(own, netip.Addr{}), ""},
		"ARPGratuitousReply for IPv6": {ARPGratuitousReply(own, address6), ""},
		"ARPProbe for IPv6":           {ARPProbe(own, address6), ""},
		"NDPAnswer for IPv4":          {NDPAnswer(own, address4, &Message{Sender: neighbor6}), ""},
		"NDPAnswer of nothing":        {NDPAnswer(own, netip.Addr{}, &Message{}), ""},
		"NDPAnnouncement for IPv4":    {NDPAnnouncement(own, address4), ""},
		"NDPProbe for IPv4":           {NDPProbe(own, address4), ""},
		"NDPProbe for nothing":        {NDPProbe(own, netip.Addr{}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(test.want, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(test.frame, want) {
				t.Errorf("got\n%x, want\n%x", test.frame, want)
			}
			if len(want) > 0 {
				if _, err := ParseFrame(test.frame); err != nil {
					t.Errorf("cannot be read: %v", err)
				}
			}
		})
	}
}

func TestMessage(t *testing.T) {
	for name, test := range map[string]struct {
		frame []byte
		asks  netip.Addr
		claim netip.Addr
		by    announce.MAC
		probe bool
	}{
		"ARP request":                {frame: request(), asks: address4, claim: neighbor4, by: other},
		"ARP probe":                  {frame: ARPProbe(other, address4), asks: address4, probe: true},
		"ARP announcement":           {frame: ARPAnnouncement(other, address4), claim: address4, by: other},
		"ARP reply":                  {frame: ARPAnswer(other, address4, own, neighbor4), claim: address4, by: other},
		"ARP reply in another's MAC": {frame: change(ARPAnswer(other, address4, own, neighbor4), 6, third[:]...), claim: address4, by: other},
		"ARP reply from nowhere":     {frame: ARPAnswer(other, zero4, own, neighbor4)},
		"solicitation":               {frame: solicitation(), asks: address6, claim: neighbor6, by: other},
		"solicitation with a MAC":    {frame: solicitation(sourceOption(third)), asks: address6, claim: neighbor6, by: third},
		"duplicate detection":        {frame: NDPProbe(other, address6), asks: address6, probe: true},
		"advertisement":              {frame: NDPAnnouncement(other, address6), claim: address6, by: other},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ParseFrame(test.frame)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := m.Asks(); got != test.asks || ok != test.asks.IsValid() {
				t.Errorf("asks %s, %t, want %s", got, ok, test.asks)
			}
			if got, by, ok := m.Claims(); got != test.claim || by != test.by || ok != test.claim.IsValid() {
				t.Errorf("claims %s, %s, %t, want %s, %s", got, by, ok, test.claim, test.by)
			}
			if got := m.Probe(); got != test.probe {
				t.Errorf("probe %t, want %t", got, test.probe)
			}
		})
	}
}

func TestSetMACOfNothing(t *testing.T) {
	for _, frame := range [][]byte{nil, make([]byte, ethernetLength-1)} {
		SetSource(frame, own)
		SetDestination(frame, own)
		if !bytes.Equal(frame, make([]byte, len(frame))) {
			t.Errorf("changed to %x", frame)
		}
	}
}

func TestSolicitedNode(t *testing.T) {
	for addr, want := range map[string]string{
		"2001:db8::1":               "ff02::1:ff00:1 33:33:ff:00:00:01",
		"4037::1:800:200e:8c6c":     "ff02::1:ff0e:8c6c 33:33:ff:0e:8c:6c", // of RFC 4291
		"fe80::ffff:ffff:ffff:ffff": "ff02::1:ffff:ffff 33:33:ff:ff:ff:ff",
	} {
		group, mac := SolicitedNode(netip.MustParseAddr(addr))
		if got := group.String() + " " + mac.String(); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}

func TestIsVirtualRouter(t *testing.T) {
	for text, want := range map[string]bool{
		"00:00:5e:00:01:07": true, // VRRP
		"00:00:5e:00:02:ff": true, // VRRP for IPv6
		"00:00:5e:00:03:01": false,
		"00:00:5e:01:01:01": false,
		"02:00:5e:00:01:01": false,
		"00:00:0c:07:ac:0a": true, // HSRP
		"00:00:0c:07:ad:0a": false,
		"00:00:0c:9f:f0:01": true, // HSRP version 2
		"00:00:0c:9f:ff:ff": true,
		"00:00:0c:9f:ef:ff": false,
		"00:05:73:a0:00:01": true, // HSRP version 2 for IPv6
		"00:05:73:a0:0f:ff": true,
		"00:05:73:a0:10:00": false,
		"00:07:b4:00:01:02": true, // GLBP
		"00:00:00:00:00:00": false,
		"ff:ff:ff:ff:ff:ff": false,
	} {
		mac, err := announce.ParseMAC(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := IsVirtualRouter(mac); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	for name, frame := range benchmarkFrames() {
		if allocs := testing.AllocsPerRun(100, func() { _, _ = ParseFrame(frame) }); allocs != 0 {
			t.Errorf("%s: %.0f allocations", name, allocs)
		}
	}
}

func benchmarkFrames() map[string][]byte {
	return map[string][]byte{
		"ARP":      request(),
		"NDP":      solicitation(sourceOption(other)),
		"bad ARP":  change(request(), 28, 127, 0, 0, 1),
		"bad NDP":  change(solicitation(sourceOption(other)), 56, 0, 0),
		"VLAN tag": change(request(), 12, 0x81, 0x00),
	}
}

func BenchmarkParse(b *testing.B) {
	for name, frame := range benchmarkFrames() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = ParseFrame(frame)
			}
		})
	}
}

func BenchmarkAnswer(b *testing.B) {
	b.Run("ARP", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ARPAnswer(own, address4, other, neighbor4)
		}
	})
	b.Run("NDP", func(b *testing.B) {
		asked := &Message{Sender: neighbor6, SenderMAC: other}
		b.ReportAllocs()
		for b.Loop() {
			NDPAnswer(own, address6, asked)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, frame := range [][]byte{
		nil,
		request(), ARPProbe(other, address4), ARPAnnouncement(other, address4), ARPGratuitousReply(other, address4),
		ARPAnswer(other, address4, own, neighbor4), append(request(), make([]byte, 18)...),
		change(request(), 12, 0x81, 0x00),
		solicitation(), solicitation(sourceOption(third)), solicitation(targetOption(third), sourceOption(third)),
		withOptions(solicitation(), 14, 1, 1, 2, 3, 4, 5, 6), withOptions(solicitation(), 1, 0, 0, 0, 0, 0, 0, 0),
		NDPProbe(other, address6), NDPAnnouncement(other, address6),
		NDPAnswer(other, address6, &Message{Sender: neighbor6, SenderMAC: own}),
		change(solicitation(), 20, 0), change(solicitation(), 56, 0, 0),
		ARPQuestion(own, neighbor4, address4, other), NDPQuestion(own, neighbor6, address6, other), answerFor(other),
	} {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		consistent(t, frame)
		// Hardly any guess has the right checksum.
		consistent(t, repair(frame))
	})
}
