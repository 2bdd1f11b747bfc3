package lab

import (
	"context"
	"os"
	"testing"
	"time"
)

// Require skips a test where a lab cannot run, and says why. In CI, where the
// variable CI is set, it fails the test instead: nothing may pass untested.
func Require(t testing.TB, config Config) {
	t.Helper()
	config.setDefaults()
	err := config.validate()
	if err == nil {
		root, rootErr := projectRoot()
		err = rootErr
		if err == nil {
			err = checkPrograms(root, config.Router.Kind)
		}
	}
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("a lab cannot run here: %v", err)
	default:
		t.Skipf("a lab cannot run here: %v", err)
	}
}

// StartTest starts a lab for a test, which ends with it. If the test fails, its
// log gets the state of the lab.
func StartTest(t testing.TB, config Config) *Lab {
	t.Helper()
	Require(t, config)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	l, err := Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	l.DumpOnFailure(t)
	return l
}
