//go:build race

package heartbeat

// raceDetector makes tests take ten times as long. The election has one goroutine.
const raceDetector = true
