package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// volumePath returns where a volume of a Pod is on the host.
func volumePath(pod *corev1.Pod, name string) (string, error) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Name != name {
			continue
		}
		if v.HostPath != nil {
			return v.HostPath.Path, nil
		}
		return filepath.Join(podDir(pod), "volumes", name), nil
	}
	return "", fmt.Errorf("pod %s has no volume %s", pod.Name, name)
}

// writeVolumes makes the volumes of a Pod, or brings their files up to date.
func (k *kubelet) writeVolumes(ctx context.Context, pod *corev1.Pod, s *sandbox) error {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if err := k.writeVolume(ctx, pod, v, s); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}

func (k *kubelet) writeVolume(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, s *sandbox) error {
	if v.HostPath != nil {
		return checkHostPath(v.HostPath)
	}
	dir := filepath.Join(podDir(pod), "volumes", v.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	w := &volumeWriter{kubelet: k, pod: pod, sandbox: s, dir: dir, mode: 0o644}
	switch {
	case v.EmptyDir != nil:
		return shareDir(pod, dir)
	case v.Secret != nil:
		w.setMode(v.Secret.DefaultMode)
		return w.secret(ctx, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional)
	case v.ConfigMap != nil:
		w.setMode(v.ConfigMap.DefaultMode)
		return w.configMap(ctx, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional)
	case v.DownwardAPI != nil:
		w.setMode(v.DownwardAPI.DefaultMode)
		return w.downward(v.DownwardAPI.Items)
	case v.Projected != nil:
		w.setMode(v.Projected.DefaultMode)
		return w.projected(ctx, v.Projected.Sources)
	}
	return fmt.Errorf("the lab does not know this kind of volume")
}

// shareDir lets every user of the Pod write to an emptyDir.
func shareDir(pod *corev1.Pod, dir string) error {
	if c := pod.Spec.SecurityContext; c != nil && c.FSGroup != nil {
		if err := os.Chown(dir, -1, int(*c.FSGroup)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o777)
}

// checkHostPath makes or checks a path of the host as its type says.
func checkHostPath(h *corev1.HostPathVolumeSource) error {
	info, err := os.Stat(h.Path)
	exists := err == nil
	switch kind := ptr.Deref(h.Type, corev1.HostPathUnset); {
	case kind == corev1.HostPathDirectoryOrCreate && !exists:
		return os.MkdirAll(h.Path, 0o755)
	case kind == corev1.HostPathFileOrCreate && !exists:
		return os.WriteFile(h.Path, nil, 0o644)
	case kind == corev1.HostPathUnset && !exists:
		return os.MkdirAll(h.Path, 0o755)
	case !exists:
		return fmt.Errorf("host path %s: %w", h.Path, err)
	case (kind == corev1.HostPathDirectory || kind == corev1.HostPathDirectoryOrCreate) && !info.IsDir():
		return fmt.Errorf("host path %s is not a directory", h.Path)
	case (kind == corev1.HostPathFile || kind == corev1.HostPathFileOrCreate) && !info.Mode().IsRegular():
		return fmt.Errorf("host path %s is not a file", h.Path)
	case kind == corev1.HostPathSocket && info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("host path %s is not a socket", h.Path)
	}
	return nil
}

// volumeWriter writes the files of one volume.
type volumeWriter struct {
	kubelet *kubelet
	pod     *corev1.Pod
	sandbox *sandbox
	dir     string
	mode    os.FileMode
}

func (w *volumeWriter) setMode(mode *int32) {
	if mode != nil {
		w.mode = os.FileMode(*mode)
	}
}

func (w *volumeWriter) write(path string, data []byte, mode *int32) error {
	m := w.mode
	if mode != nil {
		m = os.FileMode(*mode)
	}
	target := filepath.Join(w.dir, filepath.Clean("/"+path))
	if old, err := os.ReadFile(target); err == nil && string(old) == string(data) {
		return nil
	}
	if err := writeFile(target, data, m); err != nil {
		return err
	}
	if c := w.pod.Spec.SecurityContext; c != nil && c.FSGroup != nil {
		return os.Chown(target, -1, int(*c.FSGroup))
	}
	return nil
}

// items writes the wanted keys of a map, all of them if none is named.
func (w *volumeWriter) items(data map[string][]byte, items []corev1.KeyToPath) error {
	if len(items) == 0 {
		for key, value := range data {
			if err := w.write(key, value, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			return fmt.Errorf("no key %s", item.Key)
		}
		if err := w.write(item.Path, value, item.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (w *volumeWriter) secret(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool) error {
	secret, err := w.kubelet.client.CoreV1().Secrets(w.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		if apierrors.IsNotFound(err) && ptr.Deref(optional, false) {
			return nil
		}
		return fmt.Errorf("secret %s: %w", name, err)
	}
	return w.items(secret.Data, items)
}

func (w *volumeWriter) configMap(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool) error {
	m, err := w.kubelet.client.CoreV1().ConfigMaps(w.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		if apierrors.IsNotFound(err) && ptr.Deref(optional, false) {
			return nil
		}
		return fmt.Errorf("config map %s: %w", name, err)
	}
	data := map[string][]byte{}
	for key, value := range m.Data {
		data[key] = []byte(value)
	}
	for key, value := range m.BinaryData {
		data[key] = value
	}
	return w.items(data, items)
}

func (w *volumeWriter) downward(items []corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		if item.FieldRef == nil {
			continue
		}
		value, err := w.kubelet.field(w.pod, w.sandbox, item.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		if err := w.write(item.Path, []byte(value), item.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (w *volumeWriter) projected(ctx context.Context, sources []corev1.VolumeProjection) error {
	for _, p := range sources {
		var err error
		switch {
		case p.ServiceAccountToken != nil:
			err = w.token(ctx, p.ServiceAccountToken)
		case p.Secret != nil:
			err = w.secret(ctx, p.Secret.Name, p.Secret.Items, p.Secret.Optional)
		case p.ConfigMap != nil:
			err = w.configMap(ctx, p.ConfigMap.Name, p.ConfigMap.Items, p.ConfigMap.Optional)
		case p.DownwardAPI != nil:
			err = w.downward(p.DownwardAPI.Items)
		default:
			err = fmt.Errorf("the lab does not know this kind of projection")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
