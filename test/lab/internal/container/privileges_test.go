package container

import (
	"slices"
	"testing"
)

func TestCapabilities(t *testing.T) {
	for _, test := range []struct {
		name       string
		privileged bool
		add, drop  []string
		want       []string
	}{
		{"default", false, nil, nil, defaultCapabilities},
		{"none", false, nil, []string{"ALL"}, nil},
		{"some only", false, []string{"NET_ADMIN", "CAP_NET_RAW"}, []string{"ALL"}, []string{"NET_ADMIN", "NET_RAW"}},
		{"all but one", false, []string{"ALL"}, []string{"SYS_ADMIN"},
			slices.DeleteFunc(slices.Clone(capabilityNames), func(c string) bool { return c == "SYS_ADMIN" })},
		{"privileged", true, nil, []string{"ALL"}, capabilityNames},
	} {
		got, err := Capabilities(test.privileged, test.add, test.drop)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, %v, want %v", test.name, got, err, test.want)
		}
	}
	if _, err := Capabilities(false, []string{"NET_ADMN"}, nil); err == nil {
		t.Error("an unknown capability passes")
	}
}
