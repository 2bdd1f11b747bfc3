package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// autoscalerTaint is what the cluster autoscaler marks a Node with that it is
// about to delete. kube-proxy there takes itself out of load balancing (KEP-3836).
const autoscalerTaint = "ToBeDeletedByClusterAutoscaler"

// proxyHealth is where kube-proxy tells whether its node is to attract traffic.
const proxyHealth = "http://127.0.0.1:10256/healthz"

// FailProxyHealth makes the health check of a node's kube-proxy answer 503: its
// Node gets the taint of the cluster autoscaler. It returns when that is so.
func (l *Lab) FailProxyHealth(ctx context.Context, node string) error {
	return l.setProxyHealth(ctx, node, "503", corev1.Taint{Key: autoscalerTaint, Value: "now", Effect: corev1.TaintEffectNoSchedule})
}

// RestoreProxyHealth takes that back.
func (l *Lab) RestoreProxyHealth(ctx context.Context, node string) error {
	return l.setProxyHealth(ctx, node, "200")
}

func (l *Lab) setProxyHealth(ctx context.Context, name, want string, taints ...corev1.Taint) error {
	client, err := l.Client()
	if err != nil {
		return err
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == autoscalerTaint })
		node.Spec.Taints = append(node.Spec.Taints, taints...)
		_, err = client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("taint of %s: %w", name, err)
	}
	return l.WaitFor(ctx, "kube-proxy on "+name+" answers "+want, func(ctx context.Context) (bool, error) {
		status, err := l.On(ctx, name, "curl", "-sS", "-m", "1", "-o", "/dev/null", "-w", "%{http_code}", proxyHealth)
		if err == nil && strings.TrimSpace(status) != want {
			err = fmt.Errorf("it answers %s", status)
		}
		return err == nil, err
	})
}
