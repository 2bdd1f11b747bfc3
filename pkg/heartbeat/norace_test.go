//go:build !race

package heartbeat

const raced = false
