package dns

import (
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

func TestAnswer(t *testing.T) {
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for name, ips := range map[string][]string{"web": {"198.19.0.9", "2001:db8:19::9"}, "headless": {corev1.ClusterIPNone}} {
		err := indexer.Add(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       corev1.ServiceSpec{ClusterIP: ips[0], ClusterIPs: ips},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &server{services: corelisters.NewServiceLister(indexer)}
	for _, test := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		want string
	}{
		{"web.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "dnsmessage.AResource{A: [4]byte{198, 19, 0, 9}}"},
		{"Web.Shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "dnsmessage.AResource{A: [4]byte{198, 19, 0, 9}}"},
		{"web.shop.svc.cluster.local.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess,
			"dnsmessage.AAAAResource{AAAA: [16]byte{32, 1, 13, 184, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}}"},
		{"web.shop.svc.cluster.local.", dnsmessage.TypeMX, dnsmessage.RCodeSuccess, ""},
		{"headless.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"web.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"www.example.org.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
	} {
		t.Run(test.name+" "+test.kind.String(), func(t *testing.T) {
			query := dnsmessage.Message{
				Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
				Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(test.name), Type: test.kind, Class: dnsmessage.ClassINET}},
			}
			packet, err := query.Pack()
			if err != nil {
				t.Fatal(err)
			}
			packet, err = s.answer(packet)
			if err != nil {
				t.Fatal(err)
			}
			var answer dnsmessage.Message
			if err := answer.Unpack(packet); err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, a := range answer.Answers {
				got += a.Body.GoString()
			}
			if answer.ID != 7 || !answer.Response || answer.RCode != test.code || got != test.want {
				t.Errorf("got %s %s, want %s %s", answer.RCode, got, test.code, test.want)
			}
		})
	}
	if _, err := s.answer([]byte("no query")); err == nil {
		t.Error("garbage is answered")
	}
}
