package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/names"
	cliflag "k8s.io/component-base/cli/flag"
	controllermanager "k8s.io/controller-manager/app"
)

// newCommand is the upstream command with our flags, provider and defaults. It
// ends on SIGTERM and SIGINT.
func newCommand() (*cobra.Command, error) {
	options, err := defaultOptions()
	if err != nil {
		return nil, err
	}
	m := &manager{options: options}
	m.ctx, m.end = context.WithCancel(context.Background())

	var sets cliflag.NamedFlagSets
	m.flags.addTo(sets.FlagSet("baremetal"))
	constructors := m.controllers()
	command := app.NewCloudControllerManagerCommand(options, m.cloud, constructors, names.CCMControllerAliases(), sets, m.ctx.Done())
	command.Use = programName
	command.Long = "The cloud-controller-manager of clusters without a cloud gives addresses to Services of type LoadBalancer, and plans which node announces them."

	upstream := command.RunE
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := m.validate(); err != nil {
			return err
		}
		if !m.flags.initializeNodes {
			delete(constructors, names.CloudNodeController) // upstream has not begun yet
		}
		signalled, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		defer context.AfterFunc(signalled, m.end)()
		return m.run(func() error { return upstream(command, args) })
	}
	return command, nil
}

// run runs upstream, and what the cloud hook starts beside it, the planner and
// the election, until one of them ends; then it ends them all.
func (m *manager) run(upstream func() error) error {
	m.beside = &errgroup.Group{}
	m.beside.Go(func() error {
		defer m.end()
		return upstream()
	})
	return m.beside.Wait()
}

func (m *manager) validate() error {
	var errs []error
	if m.options.Generic.LeaderMigration.Enabled {
		errs = append(errs, errors.New("--enable-leader-migration is not supported: there is nothing to migrate"))
	}
	if m.flags.initializeNodes && !m.enabled(names.CloudNodeController) {
		errs = append(errs, fmt.Errorf("--initialize-nodes needs the %s, which --controllers leaves out: remove one of the two", names.CloudNodeController))
	}
	return errors.Join(append(errs, m.flags.validate())...)
}

// enabled reports whether --controllers, which also takes old names, lets the
// controller run.
func (m *manager) enabled(controller string) bool {
	aliases := names.CCMControllerAliases()
	var controllers []string
	for _, entry := range m.options.Generic.Controllers {
		name, off := strings.CutPrefix(entry, "-")
		if current, ok := aliases[name]; ok {
			name = current
		}
		if off {
			name = "-" + name
		}
		controllers = append(controllers, name)
	}
	return controllermanager.IsControllerEnabled(controller, app.ControllersDisabledByDefault, controllers)
}
