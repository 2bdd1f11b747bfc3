//go:build race

package heartbeat

// raced: with the race detector the model, which has one goroutine, takes ten times as
// long. hack/test.sh runs it without, too.
const raced = true
