package main

import (
	"flag"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	servicehelper "k8s.io/cloud-provider/service/helpers"
)

var scale = flag.Int("scale", 0, "number of Services that TestScale lets wait for addresses; 0 skips it")

// TestScale measures how long pending Services wait for addresses when a
// cloud-controller-manager starts, beside the bare writes that this takes: a
// finalizer, a status and two Events each.
func TestScale(t *testing.T) {
	if *scale == 0 {
		t.Skip("needs -scale, for instance 2000")
	}
	var floor time.Duration
	t.Run("floor", func(t *testing.T) {
		c := pending(t)
		begin := time.Now()
		c.writeBare()
		floor = time.Since(begin)
		t.Logf("%d Services, bare writes: %v", *scale, floor)
	})
	t.Run("manager", func(t *testing.T) {
		c := pending(t)
		begin := time.Now()
		p := start(t, c.server, flag.Args()...)
		eventually(t, 5*time.Minute, "all Services have addresses", func() bool {
			time.Sleep(100 * time.Millisecond)
			return c.addressed() == *scale
		})
		took := time.Since(begin)
		t.Logf("%d Services, manager: %v = %.2f x floor, resident %d MiB", *scale, took, took.Seconds()/floor.Seconds(), p.resident(t))
		unique(t, c.all())
		time.Sleep(15 * time.Second)
		t.Logf("resident after a while: %d MiB", p.resident(t))
	})
}

// pending is a cluster with a pool that is large enough, and Services.
func pending(t *testing.T) *cluster {
	c := newCluster(t)
	c.pool("lan", "198.18.0.0/15")
	parallel(*scale, 32, func(i int) { c.service(fmt.Sprintf("s-%d", i)) })
	return c
}

// addressed counts the Services that have an address, without the load that
// listing them from etcd would be.
func (c *cluster) addressed() (n int) {
	list, err := c.CoreV1().Services(metav1.NamespaceDefault).List(c.t.Context(), metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range list.Items {
		if len(list.Items[i].Status.LoadBalancer.Ingress) > 0 {
			n++
		}
	}
	return n
}

// writeBare writes what upstream's service controller writes, and nothing else,
// with its number of workers.
func (c *cluster) writeBare() {
	config := *c.server.Config
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client := kubernetes.NewForConfigOrDie(&config)
	parallel(*scale, 32, func(i int) {
		name := fmt.Sprintf("s-%d", i)
		services := client.CoreV1().Services(metav1.NamespaceDefault)
		for _, patch := range []string{
			fmt.Sprintf(`{"metadata": {"finalizers": [%q]}}`, servicehelper.LoadBalancerCleanupFinalizer),
			fmt.Sprintf(`{"status": {"loadBalancer": {"ingress": [{"ip": "198.19.%d.%d", "ipMode": "VIP"}]}}}`, i/256, i%256),
		} {
			if _, err := services.Patch(c.t.Context(), name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
				c.t.Error(err)
			}
		}
		for _, reason := range []string{"EnsuringLoadBalancer", "EnsuredLoadBalancer"} {
			event := &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{GenerateName: name + "."},
				InvolvedObject: corev1.ObjectReference{Kind: "Service", Namespace: metav1.NamespaceDefault, Name: name},
				Reason:         reason,
			}
			if _, err := client.CoreV1().Events(metav1.NamespaceDefault).Create(c.t.Context(), event, metav1.CreateOptions{}); err != nil {
				c.t.Error(err)
			}
		}
	})
}
