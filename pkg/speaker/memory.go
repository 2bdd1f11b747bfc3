package speaker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go4.org/netipx"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/heartbeat"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/statefile"
)

const (
	// apiPatience is how long the API server may take to answer at the start
	// before the state file counts.
	apiPatience = 250 * time.Millisecond
	// gatePatience bounds how long a program that the API server confirms waits
	// for kube-proxy after a boot: there may be none, and nobody has said so.
	gatePatience = 15 * time.Second
)

// keeper is the part of statefile.Writer that the loop needs.
type keeper interface {
	Put(statefile.State)
	Forget()
	Err() error
}

// memory is what a speaker knows at its start of what it did before.
type memory struct {
	// program is nil if there is none that can be used; value is its text.
	program *announce.Program
	// nodeUID is that of the Node that the program was for.
	nodeUID string
	// booted: since then the node was booted, or it is not known that it was
	// not. What the kernel forwards has to be asked.
	booted bool
	// refused is why the state file is not used.
	refused error
	// bootID is the present one.
	bootID string
}

// announcedBefore are the addresses on the LAN that were announced up to now, nil
// if that is not known: during a boot, anything may have happened. Those that
// were held back, as the report of before and the LAN say, were not.
func (s *speaker) announcedBefore(d *desk) *netipx.IPSet {
	if d.memory.booted || d.memory.program == nil {
		return nil
	}
	conflicts := s.lan.Status().Conflicts
	if r, err := announce.DecodeReport(d.node.report); err == nil {
		conflicts = append(conflicts, r.Conflicts...)
	}
	var b netipx.IPSetBuilder
	b.AddSet(d.memory.program.Owned(s.nodeName))
	for _, c := range conflicts {
		if c.Held {
			b.Remove(c.Address)
		}
	}
	set, err := b.IPSet()
	if err != nil {
		return nil
	}
	return set
}

// recall reads the state file. Without a directory, nothing is known and
// nothing is waited for.
func recall(ctx context.Context, dir, nodeName, tokenFile string) memory {
	if dir == "" {
		return memory{}
	}
	logger := klog.FromContext(ctx)
	var m memory
	var err error
	if m.bootID, err = bootID(); err != nil {
		m.refused, m.booted = fmt.Errorf("the state in --state-dir is not used: %w", err), true
		return m
	}
	uid, err := nodeUIDFrom(tokenFile)
	if err != nil {
		// The API server tells it later on.
		logger.Error(err, "The token does not tell which Node this is")
	}
	state, program, err := statefile.Read(dir, statefile.Identity{Node: nodeName, NodeUID: uid})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		m.booted = true // as far as is known
	case err != nil:
		logger.Error(err, "The state in --state-dir is not used")
		m.refused, m.booted = err, true
	default:
		m.program, m.nodeUID, m.booted = &program, state.NodeUID, state.BootID != m.bootID
		logger.Info("Found the program of before", "epoch", program.Epoch, "hash", program.Hash, "booted", m.booted)
	}
	return m
}

// askLAN has the LAN asked for the addresses of before while the API server is
// asked for the program: if that one does not answer, they are announced when
// the LAN has not answered either.
func (s *speaker) askLAN(d *desk) {
	if d.booting {
		return
	}
	s.setLAN(d, d.memory.program, true) // an error comes up again when the program is carried out
}

// fallBack carries out the program of before, for the API server does not tell
// another one.
func (s *speaker) fallBack(ctx context.Context, d *desk) {
	d.fallback = nil
	if d.program != nil || d.memory.program == nil {
		return
	}
	klog.FromContext(ctx).Info("The Node tells no program; carrying out the one of before", "epoch", d.memory.program.Epoch)
	d.program, d.origin = d.memory.program, fromFile
	s.vault.want(d.program.Peers)
	s.carryOut(ctx, d)
}

// disown forgets the program of before: it was for another Node of this name.
func (s *speaker) disown(ctx context.Context, d *desk) {
	d.memory.refused = fmt.Errorf("the state in --state-dir is not used: it was kept for the Node of UID %s, and this is %s", d.memory.nodeUID, d.node.uid)
	klog.FromContext(ctx).Error(d.memory.refused, "Withdrawing what was announced from --state-dir")
	d.memory.program, d.fallback = nil, nil
	s.keeper.Forget()
	if d.origin != fromNode {
		s.withdraw(ctx)
		d.program, d.origin = nil, fromNowhere
		d.agenda, d.accord = heartbeat.State{}, accord{}
	}
}

// keep has the program that is carried out kept for the next start. During a boot
// it is not carried out yet: with the new boot ID in the file, a restart would no
// longer wait for kube-proxy.
func (s *speaker) keep(d *desk) {
	if d.origin != fromNode || d.node.uid == "" || d.booting {
		return
	}
	s.keeper.Put(statefile.State{
		Cluster: d.program.Cluster,
		Node:    s.nodeName,
		NodeUID: d.node.uid,
		BootID:  d.memory.bootID,
		Program: d.value,
	})
}

// noKeeper keeps nothing: there is no state directory.
type noKeeper struct{}

func (noKeeper) Put(statefile.State) {}
func (noKeeper) Forget()             {}
func (noKeeper) Err() error          { return nil }
