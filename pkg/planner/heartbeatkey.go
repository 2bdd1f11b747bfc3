package planner

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const (
	// keyReread is how long the Secret is watched before it is read again.
	keyReread = 10 * time.Minute
	// keyPatience is the longest pause after failures, and how often the Secret is
	// read where it may not be watched.
	keyPatience = 30 * time.Second
)

// Reasons of Events of the Secret.
const (
	keyRotated         = "HeartbeatKeyRotated"
	keyReplaced        = "HeartbeatKeyReplaced"
	previousKeyRemoved = "PreviousHeartbeatKeyRemoved"
)

// keyWriter keeps the Secret with the key of the speakers' heartbeats: it makes
// and mends it, and changes the key when somebody asks for that. Each is one
// write to the version of the Secret that was read, so that of two writers, or of
// a write and its repetition, one has an effect.
//
// An informer would ask for the right to list Secrets. This is one object, and
// get and watch can be granted by its name.
type keyWriter struct {
	secrets  typedcorev1.SecretInterface
	name     string // with the namespace, for messages
	recorder record.EventRecorder

	// known is the key that was last seen in force. If somebody deletes the Secret,
	// some speakers still have it when others have the new one. Only run uses it.
	known []byte
}

func newKeyWriter(client kubernetes.Interface, namespace string, recorder record.EventRecorder) *keyWriter {
	return &keyWriter{
		secrets:  client.CoreV1().Secrets(namespace),
		name:     namespace + "/" + announce.HeartbeatSecret,
		recorder: recorder,
	}
}

// run keeps the Secret until the context ends.
func (w *keyWriter) run(ctx context.Context) {
	told := ""
	for pause := retryInterval; ctx.Err() == nil; {
		err := w.once(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause, told = retryInterval, ""
			continue
		case apierrors.IsForbidden(err):
			pause = keyPatience // rights do not come by themselves
			err = fmt.Errorf("%w; grant, as manifests/base does, get, update and watch of this Secret, and create of Secrets in its namespace", err)
		}
		if err.Error() != told {
			told = err.Error()
			klog.ErrorS(err, "Keeping the key of the heartbeats; trying again from time to time")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, keyPatience)
	}
}

// once reads the Secret, writes what it lacks, and watches it until it lacks
// something again, or has been watched for long.
func (w *keyWriter) once(ctx context.Context) error {
	secret, err := w.read(ctx)
	if err != nil {
		return err
	}
	if secret, err = w.settle(ctx, secret); err != nil {
		return err
	}
	timeout := int64(keyReread / time.Second)
	began := time.Now()
	watching, err := w.secrets.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, announce.HeartbeatSecret).String(),
		ResourceVersion: secret.ResourceVersion,
		TimeoutSeconds:  &timeout,
	})
	if err != nil {
		return fmt.Errorf("watching Secret %s: %w", w.name, err)
	}
	defer watching.Stop()
	for e := range watching.ResultChan() {
		now, ok := e.Object.(*corev1.Secret)
		switch {
		case !ok:
			return fmt.Errorf("watching Secret %s: %w", w.name, apierrors.FromObject(e.Object))
		case e.Type == watch.Deleted:
			return nil
		case w.lacks(now) != nil:
			return nil
		}
	}
	if time.Since(began) < time.Second {
		return fmt.Errorf("watching Secret %s: closed at once", w.name)
	}
	return nil
}

// read is the Secret, nil if there is none.
func (w *keyWriter) read(ctx context.Context) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	secret, err := w.secrets.Get(ctx, announce.HeartbeatSecret, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil // to be created
	case err != nil:
		return nil, fmt.Errorf("reading Secret %s: %w", w.name, err)
	}
	return secret, nil
}

// settle writes what the Secret lacks, and returns it as it is then.
func (w *keyWriter) settle(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if secret == nil {
		made, err := w.secrets.Create(ctx, w.fresh(), metav1.CreateOptions{FieldManager: fieldManager})
		if err != nil {
			return nil, fmt.Errorf("creating Secret %s: %w", w.name, err)
		}
		klog.InfoS("Made a key for the heartbeats of the speakers", "secret", w.name)
		w.note(made)
		return made, nil
	}
	lack := w.lacks(secret)
	if lack == nil {
		w.note(secret)
		return secret, nil
	}
	updated, err := w.secrets.Update(ctx, lack.mended, metav1.UpdateOptions{FieldManager: fieldManager})
	if err != nil {
		return nil, fmt.Errorf("updating Secret %s: %w", w.name, err)
	}
	klog.InfoS("Changed the key of the heartbeats", "secret", w.name, "reason", lack.reason, "message", lack.message)
	w.recorder.Event(updated, lack.kind, lack.reason, lack.message)
	w.note(updated)
	return updated, nil
}

// note remembers the key in force.
func (w *keyWriter) note(secret *corev1.Secret) { w.known = secret.Data[announce.HeartbeatKey] }

// fresh is a Secret to create.
func (w *keyWriter) fresh() *corev1.Secret {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: announce.HeartbeatSecret},
		Type:       corev1.SecretTypeOpaque,
	}
	setKeys(secret, newKey(), w.known)
	return secret
}

// lack is what is to be changed in a Secret, and what people are told about it.
type lack struct {
	mended                *corev1.Secret
	kind, reason, message string
}

// lacks finds what is to be changed; nil if nothing is.
func (w *keyWriter) lacks(secret *corev1.Secret) *lack {
	keys, err := announce.DecodeHeartbeatKeys(secret.Data)
	asked := secret.Annotations[v1alpha1.SecretRotate] == "true"
	l := &lack{mended: secret.DeepCopy()}
	delete(l.mended.Annotations, v1alpha1.SecretRotate)
	switch {
	case keys.Current == nil:
		setKeys(l.mended, newKey(), w.known)
		l.kind, l.reason = corev1.EventTypeWarning, keyReplaced
		l.message = fmt.Sprintf("%v: made a new one; leave the entries of this Secret to the planner, and to have "+
			"another key set the annotation %s to \"true\"", err, v1alpha1.SecretRotate)
	case asked:
		setKeys(l.mended, newKey(), keys.Current)
		l.kind, l.reason = corev1.EventTypeNormal, keyRotated
		l.message = "made a new key; the one before is accepted until the next rotation"
	case err != nil:
		setKeys(l.mended, keys.Current, nil)
		l.kind, l.reason = corev1.EventTypeWarning, previousKeyRemoved
		l.message = fmt.Sprintf("%v: removed it; the key in force stays", err)
	default:
		return nil
	}
	return l
}

// setKeys sets the keys of a Secret and leaves other entries alone. previous is
// nil if there is none.
func setKeys(secret *corev1.Secret, current, previous []byte) {
	if secret.Data == nil {
		secret.Data = make(map[string][]byte)
	}
	secret.Data[announce.HeartbeatKey] = current
	delete(secret.Data, announce.HeartbeatPreviousKey)
	if previous != nil {
		secret.Data[announce.HeartbeatPreviousKey] = previous
	}
}

func newKey() []byte {
	key := make([]byte, announce.MinHeartbeatKey)
	_, _ = rand.Read(key) // it never fails: see its documentation
	return key
}
