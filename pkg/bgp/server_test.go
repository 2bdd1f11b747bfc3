package bgp

import (
	"net/netip"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func TestLooped(t *testing.T) {
	t.Parallel()
	s := &server{routerID: netip.MustParseAddr("192.0.2.1")}
	asPath := func(numbers ...uint32) packet.PathAttributeInterface {
		return packet.NewPathAttributeAsPath([]packet.AsPathParamInterface{
			packet.NewAs4PathParam(packet.BGP_ASPATH_ATTR_TYPE_SEQ, numbers),
		})
	}
	originator := func(text string) packet.PathAttributeInterface {
		a, err := packet.NewPathAttributeOriginatorId(netip.MustParseAddr(text))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for name, test := range map[string]struct {
		attributes []packet.PathAttributeInterface
		want       bool
	}{
		"no AS path":        {nil, false},
		"of another AS":     {[]packet.PathAttributeInterface{asPath(64500, 64501)}, false},
		"of ours":           {[]packet.PathAttributeInterface{asPath(64500, 64512)}, true},
		"reflected":         {[]packet.PathAttributeInterface{asPath(64500), originator("192.0.2.1")}, true},
		"reflected, others": {[]packet.PathAttributeInterface{originator("192.0.2.2")}, false},
	} {
		if got := s.looped(&apiutil.Path{Attrs: test.attributes}, 64512); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
