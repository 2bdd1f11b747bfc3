package kubelet

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// environment is the variables of a container, in their order.
type environment struct {
	names  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *environment) list() []string {
	var all []string
	for _, n := range e.names {
		all = append(all, n+"="+e.values[n])
	}
	return all
}

// expand replaces $(NAME) by the variable's value. $$ is a dollar sign, and a
// reference to an unknown variable stays as it is.
func (e *environment) expand(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			out.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			out.WriteByte('$')
			i++
		case '(':
			name, _, closed := strings.Cut(s[i+2:], ")")
			value, known := e.values[name]
			if !closed || !known {
				out.WriteByte('$')
				continue
			}
			out.WriteString(value)
			i += len(name) + 2
		default:
			out.WriteByte('$')
		}
	}
	return out.String()
}

// environment builds the variables of a container.
func (k *kubelet) environment(ctx context.Context, pod *corev1.Pod, c *corev1.Container, s *sandbox) (*environment, error) {
	env := &environment{values: map[string]string{}}
	env.set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	env.set("HOSTNAME", hostname(pod))
	host, port := k.config.ServiceHost, 443
	if pod.Spec.HostNetwork {
		host, port = k.config.APIHost, k.config.APIPort
	}
	env.set("KUBERNETES_SERVICE_HOST", host)
	env.set("KUBERNETES_SERVICE_PORT", strconv.Itoa(port))
	env.set("KUBERNETES_SERVICE_PORT_HTTPS", strconv.Itoa(port))
	for _, source := range c.EnvFrom {
		if err := k.environmentFrom(ctx, pod, source, env); err != nil {
			return nil, err
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			env.set(v.Name, env.expand(v.Value))
			continue
		}
		value, ok, err := k.valueFrom(ctx, pod, c, s, v.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.Name, err)
		}
		if ok {
			env.set(v.Name, value)
		}
	}
	return env, nil
}

func (k *kubelet) environmentFrom(ctx context.Context, pod *corev1.Pod, source corev1.EnvFromSource, env *environment) error {
	switch {
	case source.ConfigMapRef != nil:
		m, err := k.client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, source.ConfigMapRef.Name, metav1.GetOptions{})
		if err != nil {
			if apierrors.IsNotFound(err) && ptr.Deref(source.ConfigMapRef.Optional, false) {
				return nil
			}
			return err
		}
		for key, value := range m.Data {
			env.set(source.Prefix+key, value)
		}
	case source.SecretRef != nil:
		m, err := k.client.CoreV1().Secrets(pod.Namespace).Get(ctx, source.SecretRef.Name, metav1.GetOptions{})
		if err != nil {
			if apierrors.IsNotFound(err) && ptr.Deref(source.SecretRef.Optional, false) {
				return nil
			}
			return err
		}
		for key, value := range m.Data {
			env.set(source.Prefix+key, string(value))
		}
	}
	return nil
}

// valueFrom reads a variable's value. It is absent if an optional source is.
func (k *kubelet) valueFrom(ctx context.Context, pod *corev1.Pod, c *corev1.Container, s *sandbox, from *corev1.EnvVarSource) (string, bool, error) {
	switch {
	case from.FieldRef != nil:
		value, err := k.field(pod, s, from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := resourceField(c, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		m, err := k.client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err == nil {
			if value, ok := m.Data[ref.Key]; ok {
				return value, true, nil
			}
			err = fmt.Errorf("config map %s has no key %s", ref.Name, ref.Key)
		}
		return "", false, unlessOptional(err, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		m, err := k.client.CoreV1().Secrets(pod.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err == nil {
			if value, ok := m.Data[ref.Key]; ok {
				return string(value), true, nil
			}
			err = fmt.Errorf("secret %s has no key %s", ref.Name, ref.Key)
		}
		return "", false, unlessOptional(err, ref.Optional)
	}
	return "", false, fmt.Errorf("the lab does not know this source of a value")
}

func unlessOptional(err error, optional *bool) error {
	if ptr.Deref(optional, false) {
		return nil
	}
	return err
}

// field reads a field of the Pod, as the downward API names it.
func (k *kubelet) field(pod *corev1.Pod, s *sandbox, fieldPath string) (string, error) {
	switch fieldPath {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP":
		return s.IPs[0].String(), nil
	case "status.podIPs":
		return joinIPs(s.IPs), nil
	case "status.hostIP":
		return k.config.IPs[0], nil
	case "status.hostIPs":
		return strings.Join(k.config.IPs, ","), nil
	}
	for prefix, values := range map[string]map[string]string{"metadata.labels": pod.Labels, "metadata.annotations": pod.Annotations} {
		if key, ok := strings.CutPrefix(fieldPath, prefix+"['"); ok {
			return values[strings.TrimSuffix(key, "']")], nil
		}
		if fieldPath == prefix {
			var lines []string
			for key, value := range values {
				lines = append(lines, key+"="+strconv.Quote(value))
			}
			return strings.Join(lines, "\n"), nil
		}
	}
	return "", fmt.Errorf("the lab does not know the field %s", fieldPath)
}

func joinIPs(ips []netip.Addr) string {
	var all []string
	for _, ip := range ips {
		all = append(all, ip.String())
	}
	return strings.Join(all, ",")
}

// resourceField reads a request or a limit, in units of the divisor.
func resourceField(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := c.Resources.Limits
	if kind == "requests" {
		list = c.Resources.Requests
	}
	quantity, ok := list[corev1.ResourceName(name)]
	if !ok {
		return "", fmt.Errorf("container %s has no %s", c.Name, ref.Resource)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	value := (quantity.MilliValue() + divisor.MilliValue() - 1) / divisor.MilliValue()
	return strconv.FormatInt(value, 10), nil
}
