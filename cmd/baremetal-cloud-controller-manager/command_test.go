package main

import (
	"strings"
	"testing"
)

func TestDefaults(t *testing.T) {
	command, err := newCommand()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"cloud-provider":                  "baremetal",
		"concurrent-service-syncs":        "32",
		"kube-api-qps":                    "1000",
		"kube-api-burst":                  "2000",
		"kube-api-content-type":           "application/vnd.kubernetes.protobuf",
		"leader-elect":                    "true",
		"leader-elect-resource-name":      "baremetal-cloud-controller-manager",
		"leader-elect-resource-namespace": "baremetal-lb-system",
		"load-balancer-class":             "lb.baremetal.dev/baremetal",
		"require-load-balancer-class":     "false",
		"speaker-namespace":               "baremetal-lb-system",
		"initialize-nodes":                "false",
		"service-cidrs":                   "[]",
	} {
		if f := command.Flags().Lookup(name); f == nil || f.DefValue != want {
			t.Errorf("--%s defaults to %v; want %s", name, f, want)
		}
	}
}

func TestRefusedFlags(t *testing.T) {
	for _, args := range [][]string{
		{"--initialize-nodes", "--controllers=*,-cloud-node-controller"},
		{"--initialize-nodes", "--controllers=*,-cloud-node"},
		{"--initialize-nodes", "--controllers=service-lb-controller"},
		{"--service-cidrs=198.18.0.0/16"},
		{"--load-balancer-class="},
		{"--speaker-namespace="},
		{"--enable-leader-migration"},
	} {
		command, err := newCommand()
		if err != nil {
			t.Fatal(err)
		}
		command.SetArgs(args)
		command.SilenceErrors, command.SilenceUsage = true, true
		flag, _, _ := strings.Cut(args[0], "=")
		if err := command.Execute(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v: error %v; want one about %s", args, err, flag)
		}
	}
}

func TestInitializeNodesWithControllers(t *testing.T) {
	for _, controllers := range []string{"*", "*,-service", "cloud-node,service", "cloud-node-controller"} {
		options, err := defaultOptions()
		if err != nil {
			t.Fatal(err)
		}
		options.Generic.Controllers = strings.Split(controllers, ",")
		m := manager{options: options, flags: flags{speakerNamespace: "a", loadBalancerClass: "b", initializeNodes: true}}
		if err := m.validate(); err != nil {
			t.Errorf("--controllers=%s: %v", controllers, err)
		}
	}
}
