package kubelet

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/container"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/dns"
)

// startError is a failure to start a container with the reason that the API
// shows for it.
type startError struct {
	reason  string
	message string
}

func (e *startError) Error() string { return e.message }

// imageName returns the base name of an image reference: no registry, no tag,
// no digest.
func imageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	image = path.Base(image)
	image, _, _ = strings.Cut(image, ":")
	return image
}

// containerSpec translates a container of a Pod to what its process will be.
func (k *kubelet) containerSpec(ctx context.Context, pod *corev1.Pod, c *corev1.Container, s *sandbox) (*container.Spec, error) {
	name := imageName(c.Image)
	image, ok := k.config.Images[name]
	if !ok {
		return nil, &startError{"ErrImageNeverPull", fmt.Sprintf("the lab has no image %q", name)}
	}
	info, err := os.Stat(image)
	if err != nil {
		return nil, &startError{"ErrImageNeverPull", fmt.Sprintf("image %q: %v", name, err)}
	}
	dir := ""
	if info.IsDir() {
		image, dir = filepath.Join(image, name), image
	}
	env, err := k.environment(ctx, pod, c, s)
	if err != nil {
		return nil, &startError{"CreateContainerConfigError", err.Error()}
	}
	spec := &container.Spec{
		NetNS:     s.NetNS,
		Image:     image,
		ImageName: name,
		ImageDir:  dir,
		Argv:      arguments(c, name, env),
		Env:       env.list(),
		Dir:       c.WorkingDir,
	}
	if !pod.Spec.HostNetwork {
		spec.Hostname = hostname(pod)
	}
	if err := setSecurity(spec, pod, c); err != nil {
		return nil, err
	}
	if spec.Mounts, err = mounts(pod, c, env); err != nil {
		return nil, &startError{"CreateContainerConfigError", err.Error()}
	}
	spec.ResolvConf = k.resolvConf(pod)
	return spec, nil
}

func hostname(pod *corev1.Pod) string {
	if pod.Spec.Hostname != "" {
		return pod.Spec.Hostname
	}
	return pod.Name
}

// resolvConf is the Pod's own configuration of the resolver, empty if it uses
// the host's.
func (k *kubelet) resolvConf(pod *corev1.Pod) string {
	policy := pod.Spec.DNSPolicy
	clusterFirst := policy == corev1.DNSClusterFirstWithHostNet || policy == corev1.DNSClusterFirst && !pod.Spec.HostNetwork
	if k.config.DNSServer == "" || !clusterFirst {
		return ""
	}
	domain := "svc." + dns.ClusterDomain
	return fmt.Sprintf("nameserver %s\nsearch %s.%s %s %s\noptions ndots:5\n",
		k.config.DNSServer, pod.Namespace, domain, domain, dns.ClusterDomain)
}

// arguments are the command and args of a container. The entrypoint of an
// image is its program, under /NAME; a command that goes by its name is meant
// too, wherever the real image has it.
func arguments(c *corev1.Container, image string, env *environment) []string {
	entrypoint := "/" + image
	argv := []string{entrypoint}
	if len(c.Command) > 0 {
		argv = nil
		for _, a := range c.Command {
			argv = append(argv, env.expand(a))
		}
		if path.Base(argv[0]) == image {
			argv[0] = entrypoint
		}
	}
	for _, a := range c.Args {
		argv = append(argv, env.expand(a))
	}
	return argv
}

// setSecurity applies the security contexts of the Pod and of the container.
func setSecurity(spec *container.Spec, pod *corev1.Pod, c *corev1.Container) error {
	p, s := pod.Spec.SecurityContext, c.SecurityContext
	if p == nil {
		p = &corev1.PodSecurityContext{}
	}
	if s == nil {
		s = &corev1.SecurityContext{}
	}
	first := func(values ...*int64) int {
		for _, v := range values {
			if v != nil {
				return int(*v)
			}
		}
		return 0
	}
	spec.UID = first(s.RunAsUser, p.RunAsUser)
	spec.GID = first(s.RunAsGroup, p.RunAsGroup)
	for _, g := range p.SupplementalGroups {
		spec.Groups = append(spec.Groups, int(g))
	}
	if p.FSGroup != nil {
		spec.Groups = append(spec.Groups, int(*p.FSGroup))
	}
	if spec.UID == 0 && (ptr.Deref(s.RunAsNonRoot, false) || s.RunAsNonRoot == nil && ptr.Deref(p.RunAsNonRoot, false)) {
		return &startError{"CreateContainerConfigError", "container has runAsNonRoot and image will run as root"}
	}
	spec.Privileged = ptr.Deref(s.Privileged, false)
	spec.ReadOnlyRoot = ptr.Deref(s.ReadOnlyRootFilesystem, false)
	spec.NoNewPrivs = !ptr.Deref(s.AllowPrivilegeEscalation, true)
	var add, drop []string
	if s.Capabilities != nil {
		for _, n := range s.Capabilities.Add {
			add = append(add, string(n))
		}
		for _, n := range s.Capabilities.Drop {
			drop = append(drop, string(n))
		}
	}
	var err error
	if spec.Capabilities, err = container.Capabilities(spec.Privileged, add, drop); err != nil {
		return &startError{"CreateContainerError", err.Error()}
	}
	return nil
}

// mounts finds the volumes of a container on the host.
func mounts(pod *corev1.Pod, c *corev1.Container, env *environment) ([]container.Mount, error) {
	var all []container.Mount
	for _, m := range c.VolumeMounts {
		source, err := volumePath(pod, m.Name)
		if err != nil {
			return nil, err
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = env.expand(m.SubPathExpr)
		}
		if sub != "" {
			source = filepath.Join(source, filepath.Clean("/"+sub))
			if _, err := os.Stat(source); os.IsNotExist(err) {
				if err := os.MkdirAll(source, 0o755); err != nil {
					return nil, err
				}
			}
		}
		all = append(all, container.Mount{Source: source, Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	return all, nil
}
