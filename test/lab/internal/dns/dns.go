// Package dns is the lab's cluster DNS: it answers with the ClusterIPs of
// Services for names below cluster.local, from the API server, and says of all
// other names that they do not exist. Headless Services have no names.
package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/kubeapi"
)

const (
	// ClusterDomain is the domain of the cluster's names.
	ClusterDomain = "cluster.local"
	// User may list Services: every cluster has the role bound to it.
	User = "system:serviceaccount:kube-system:kube-dns"
)

// Clients ask again for what they still want after this many seconds.
const ttl = 1

// Main serves DNS over UDP until ctx ends.
func Main(ctx context.Context, kubeconfig, listen string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig of the DNS server: %w", err)
	}
	kubeapi.Patient(config)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client of the DNS server: %w", err)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	services := factory.Core().V1().Services()
	synced := services.Informer().HasSynced
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), synced) {
		return nil
	}
	socket, err := net.ListenPacket("udp", listen)
	if err != nil {
		return fmt.Errorf("DNS server: %w", err)
	}
	s := &server{services: services.Lister()}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := s.serve(socket); ctx.Err() == nil {
			return fmt.Errorf("DNS server: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return socket.Close()
	})
	return g.Wait()
}

type server struct {
	services corelisters.ServiceLister
}

// serve answers until the socket is closed.
func (s *server) serve(socket net.PacketConn) error {
	buffer := make([]byte, 1500)
	for {
		n, client, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		answer, err := s.answer(buffer[:n])
		if err != nil {
			klog.V(2).InfoS("A query that nobody can answer", "client", client, "err", err)
			continue
		}
		_, _ = socket.WriteTo(answer, client) // who gets no answer asks again
	}
}

// answer builds the response to a query.
func (s *server) answer(query []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	addresses, exists := s.find(question.Name.String())
	header.Response, header.Authoritative, header.RecursionAvailable = true, true, true
	header.RCode = dnsmessage.RCodeSuccess
	if !exists {
		header.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, header)
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(question); err != nil {
		return nil, err
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	resource := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	for _, a := range addresses {
		switch {
		case a.Is4() && question.Type == dnsmessage.TypeA:
			err = b.AResource(resource, dnsmessage.AResource{A: a.As4()})
		case a.Is6() && question.Type == dnsmessage.TypeAAAA:
			err = b.AAAAResource(resource, dnsmessage.AAAAResource{AAAA: a.As16()})
		}
		if err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// find returns the addresses of a name, and whether there is such a name.
func (s *server) find(name string) (addresses []netip.Addr, exists bool) {
	rest, ok := strings.CutSuffix(strings.ToLower(name), ".svc."+ClusterDomain+".")
	if !ok {
		return nil, false
	}
	service, namespace, ok := strings.Cut(rest, ".")
	if !ok {
		return nil, false
	}
	svc, err := s.services.Services(namespace).Get(service)
	if err != nil || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil, false
	}
	for _, ip := range svc.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses, true
}
