package main

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// TestFailover runs scenarios once. What it asserts is logical: times are for
// people to look at.
func TestFailover(t *testing.T) {
	// Longer than any of this takes: no node may become NotReady by itself.
	const grace = 40 * time.Second
	l := lab.StartTest(t, lab.Config{Name: "failover-test", Nodes: 3, NodeGrace: grace})
	client, err := l.Client()
	if err != nil {
		t.Fatal(err)
	}
	o := options{flush: 250 * time.Millisecond, speakerDown: 5 * time.Second, patience: 20 * time.Second}
	s, err := newSite(cluster.Context(t), &cluster.Cluster{Lab: l, Client: client}, o, 3, false)
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		name  string
		run   func(context.Context, *site, int) (sample, error)
		moves bool // to another owner
		loses bool // requests
	}{
		{name: "owner drained", run: disturb(drained), moves: true},
		{name: "managers killed", run: disturb(managersKilled)},
		{name: "speaker killed", run: disturb(speakerKilled)},
		{name: "speaker replaced", run: disturb(speakerUpgraded)},
		{name: "link cut", run: disturb(linkCutUnnoticed), moves: true, loses: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := test.run(cluster.Context(t), s, i)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(result.line(outage))
			if result.Unended {
				t.Errorf("it is not over after %s", o.patience)
			}
			if result.Failed > 0 && !test.loses {
				t.Errorf("%d of %d requests failed: %+v", result.Failed, result.Sent, result.Paths)
			}
			if result.Moved != test.moves {
				t.Errorf("moved: %t, want %t", result.Moved, test.moves)
			}
		})
	}
}

// linkCutUnnoticed is linkCut, and fails unless the address has moved before
// Kubernetes knows that the node is gone.
var linkCutUnnoticed = disturbance{
	cause: func(ctx context.Context, s *site, t target) error {
		if err := s.Cut(ctx, t.owner); err != nil {
			return err
		}
		if _, err := s.waitOwner(ctx, t.address.String(), s.others(t)...); err != nil {
			return err
		}
		node, err := s.Client.CoreV1().Nodes().Get(ctx, t.owner, metav1.GetOptions{})
		if err == nil && !lab.NodeReady(node) {
			err = errors.New("the address has moved only after its node is NotReady")
		}
		return err
	},
}
