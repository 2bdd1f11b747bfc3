package speaker

import (
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// gobgpLogger is where gobgp's messages go: its Info is verbosity 2.
func gobgpLogger(logger klog.Logger) *slog.Logger {
	return slog.New(logr.ToSlogHandler(logger.WithName("gobgp").V(2)))
}
