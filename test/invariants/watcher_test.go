package invariants_test

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/apiserver"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/invariants"
)

// TestChecker watches a real API server, which is killed in between: what was
// wrong before is not forgotten, and what came while it was away is seen.
func TestChecker(t *testing.T) {
	server := apiserver.Start(t)
	client := kubernetes.NewForConfigOrDie(server.Config)
	checker, err := invariants.NewChecker(server.Config, invariants.Options{
		NoLeases: true, Grace: 300 * time.Millisecond, AfterOutage: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- checker.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if err := checker.WaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}

	show(t, client, "a", "203.0.113.1")
	show(t, client, "b", "203.0.113.2")
	// Longer than the grace, by the clock of the checker.
	waitFor(t, "clocks run", func() bool {
		allocation, _ := checker.Judged()
		return allocation > time.Second
	})
	if got := checker.Violations(); len(got) > 0 {
		t.Fatalf("violations of nothing: %v", got)
	}
	server.Kill()
	server.Restart(t)
	show(t, client, "b", "203.0.113.1")
	waitFor(t, "the violations", func() bool { return len(checker.Violations()) == 2 })
	for _, v := range checker.Violations() {
		if v.Kind != invariants.Duplicate && v.Kind != invariants.Moved || !strings.Contains(v.String(), "default/b") {
			t.Errorf("violation %s", v)
		}
	}
	if err := client.CoreV1().Services("default").Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "no finding is left", func() bool { return len(checker.Open()) == 0 })
}

// show creates a Service, or changes the address that it shows.
func show(t *testing.T, client kubernetes.Interface, name, address string) {
	t.Helper()
	services := client.CoreV1().Services("default")
	svc, err := services.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		svc, err = services.Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: address}}
	if _, err := services.UpdateStatus(t.Context(), svc, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return condition(), nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
