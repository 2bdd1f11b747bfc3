package speaker

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestTidier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var freed []time.Duration
		tidy := newTidier()
		tidy.free = func() { freed = append(freed, time.Since(began)) }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- tidy.run(ctx) }()
		for range 10 { // they follow each other
			tidy.note(largeProgram)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		tidy.note(largeProgram - 1)
		(*tidier)(nil).note(largeProgram)
		time.Sleep(time.Hour)
		tidy.note(largeProgram)
		time.Sleep(time.Hour)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if want := []time.Duration{9*time.Second + tidyAfter, 2*time.Hour + 10*time.Second + tidyAfter}; !slices.Equal(freed, want) {
			t.Errorf("memory given back after %v, want %v", freed, want)
		}
	})
}
