package kubelet

import (
	"context"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// runPods runs a worker for each Pod of the node until ctx ends. The workers
// then end too, and leave the containers alone.
func (k *kubelet) runPods(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(k.client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", k.config.NodeName).String()
		}))
	informer := factory.Core().V1().Pods().Informer()
	pods := &podSet{ctx: ctx, kubelet: k, workers: map[types.UID]*podWorker{}}
	defer pods.wait()

	// Before the first list is complete nothing is known about what may go.
	started := make(chan struct{})
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			<-started
			pods.set(object.(*corev1.Pod))
		},
		UpdateFunc: func(before, object any) {
			if old := before.(*corev1.Pod); old.UID != object.(*corev1.Pod).UID {
				pods.gone(old.UID)
			}
			pods.set(object.(*corev1.Pod))
		},
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			if pod, ok := object.(*corev1.Pod); ok {
				pods.gone(pod.UID)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch pods of %s: %w", k.config.NodeName, err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		close(started)
		return nil
	}
	known := map[types.UID]bool{}
	for _, object := range informer.GetStore().List() {
		known[object.(*corev1.Pod).UID] = true
	}
	found, err := k.findContainers()
	if err != nil {
		return err
	}
	k.endStrays(known, found)
	pods.found = found
	close(started)
	<-ctx.Done()
	return nil
}

// findContainers lists what an earlier kubelet of this boot has left running.
func (k *kubelet) findContainers() (map[types.UID][]control.ProgramStatus, error) {
	var all []control.ProgramStatus
	if err := k.runtime.Call(control.HostService+".Programs", control.None{}, &all); err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	found := map[types.UID][]control.ProgramStatus{}
	for _, c := range all {
		if !c.Container {
			continue
		}
		if uid, ok := k.readOwner(c.Name); ok {
			found[uid] = append(found[uid], c)
		}
	}
	return found, nil
}

// endStrays kills the containers of Pods that went away while no kubelet ran.
func (k *kubelet) endStrays(known map[types.UID]bool, found map[types.UID][]control.ProgramStatus) {
	for uid, containers := range found {
		if known[uid] {
			continue
		}
		for _, c := range containers {
			klog.InfoS("Ending a container without a pod", "container", c.Name)
			if err := k.endContainer(c.Name); err != nil {
				klog.ErrorS(err, "Cannot end", "container", c.Name)
			}
		}
		if err := k.network.tearDown(uid); err != nil {
			klog.ErrorS(err, "Cannot remove the network", "pod", uid)
		}
	}
}

// podSet hands what is known about Pods to their workers.
type podSet struct {
	ctx     context.Context // of the kubelet, for the workers
	kubelet *kubelet
	found   map[types.UID][]control.ProgramStatus

	mu      sync.Mutex
	workers map[types.UID]*podWorker
	running sync.WaitGroup
}

func (p *podSet) set(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	w, ok := p.workers[pod.UID]
	if ok {
		w.update(pod)
		return
	}
	w = newPodWorker(p.kubelet, pod, p.found[pod.UID])
	for _, other := range p.workers {
		if o := other.seen(); o.Namespace == pod.Namespace && o.Name == pod.Name && !other.ended() {
			w.predecessor = other
		}
	}
	p.workers[pod.UID] = w
	p.running.Go(func() {
		w.run(p.ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ctx.Err() == nil && w.isGone() {
			delete(p.workers, pod.UID)
		}
	})
}

func (p *podSet) gone(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w, ok := p.workers[uid]; ok {
		w.remove()
		if w.ended() {
			delete(p.workers, uid)
		}
	}
}

func (p *podSet) wait() { p.running.Wait() }

// containerID names a container to the runtime and to people.
func containerID(pod *corev1.Pod, container string) string {
	return containerName(pod.Namespace, pod.Name, container)
}

func containerName(namespace, pod, container string) string {
	return strings.Join([]string{namespace, pod, container}, "/")
}
