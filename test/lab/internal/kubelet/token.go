package kubelet

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// tokenExpiry remembers until when the token in a file is good.
var tokenExpiry sync.Map // path -> time.Time

// token writes a ServiceAccount token that is bound to the Pod, and renews it
// when a fifth of its life is left.
func (w *volumeWriter) token(ctx context.Context, p *corev1.ServiceAccountTokenProjection) error {
	target := filepath.Join(w.dir, p.Path)
	lifetime := time.Duration(ptr.Deref(p.ExpirationSeconds, 3600)) * time.Second
	if expiry, ok := tokenExpiry.Load(target); ok && time.Until(expiry.(time.Time)) > lifetime/5 {
		return nil
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: ptr.To(int64(lifetime / time.Second)),
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: w.pod.Name, UID: w.pod.UID},
	}}
	if p.Audience != "" {
		request.Spec.Audiences = []string{p.Audience}
	}
	account := w.pod.Spec.ServiceAccountName
	answer, err := w.kubelet.client.CoreV1().ServiceAccounts(w.pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token of service account %s: %w", account, err)
	}
	if err := w.write(p.Path, []byte(answer.Status.Token), nil); err != nil {
		return err
	}
	tokenExpiry.Store(target, answer.Status.ExpirationTimestamp.Time)
	return nil
}
