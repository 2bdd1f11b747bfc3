package kubelet

import "testing"

func TestExpand(t *testing.T) {
	env := &environment{values: map[string]string{}}
	env.set("NAME", "value")
	for in, want := range map[string]string{
		"":                    "",
		"plain":               "plain",
		"$(NAME)":             "value",
		"a$(NAME)b$(NAME)":    "avaluebvalue",
		"$$(NAME)":            "$(NAME)",
		"$$$(NAME)":           "$value",
		"$(UNKNOWN)":          "$(UNKNOWN)",
		"$(UNKNOWN)$(NAME)":   "$(UNKNOWN)value",
		"$NAME ${NAME} cost$": "$NAME ${NAME} cost$",
		"$(NAME":              "$(NAME",
	} {
		if got := env.expand(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestImageName(t *testing.T) {
	for in, want := range map[string]string{
		"lab-echo":                          "lab-echo",
		"registry.test:5000/a/lab-echo:v1":  "lab-echo",
		"registry.test/lab-echo@sha256:abc": "lab-echo",
		"lab-echo:v1@sha256:abc":            "lab-echo",
	} {
		if got := imageName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
