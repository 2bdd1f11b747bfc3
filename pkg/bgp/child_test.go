package bgp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
)

// childEnv turns the test binary into a speaker: an Announcer obeys lines of
// JSON on standard input. Only a process can be in a namespace as a whole, and
// only a process can be killed.
const childEnv = "BGP_TEST_CHILD"

func TestMain(m *testing.M) {
	if config, ok := os.LookupEnv(childEnv); ok {
		child(config)
		return
	}
	os.Exit(m.Run())
}

// command is a line to the child, answer is one from it.
type command struct {
	Set      *bgp.State
	Sessions bool
	Received bool
}

type answer struct {
	Error    string
	Sessions []announce.Session
	Received map[string]uint64
}

func child(text string) {
	var config bgp.Config
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		panic(err)
	}
	config.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	announcer := bgp.New(config)
	go answers(ctx, announcer)
	if err := announcer.Run(ctx); err != nil {
		panic(err)
	}
}

func answers(ctx context.Context, announcer *bgp.Announcer) {
	lines := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			os.Exit(0)
		}
		var c command
		if err := json.Unmarshal(line, &c); err != nil {
			panic(err)
		}
		var a answer
		switch {
		case c.Set != nil:
			if err := announcer.Set(ctx, *c.Set); err != nil {
				a.Error = err.Error()
			}
		case c.Sessions:
			a.Sessions = announcer.Sessions()
		case c.Received:
			a.Received = announcer.Received(ctx)
		}
		if err := out.Encode(a); err != nil {
			panic(err)
		}
	}
}

// speaker is an Announcer in a child process.
type speaker struct {
	t       *testing.T
	process *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
}

func (l *lab) speaker(config bgp.Config) *speaker {
	l.t.Helper()
	text, err := json.Marshal(struct {
		ListenPort int
		Socket     string
	}{config.ListenPort, config.Socket})
	if err != nil {
		l.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	s := &speaker{t: l.t, process: exec.Command("ip", "netns", "exec", l.node, self)}
	s.process.Env = append(os.Environ(), childEnv+"="+string(text))
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.CreateTemp(l.t.TempDir(), "speaker")
	if err != nil {
		l.t.Fatal(err)
	}
	s.process.Stderr = log
	if s.in, err = s.process.StdinPipe(); err != nil {
		l.t.Fatal(err)
	}
	out, err := s.process.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	s.out = json.NewDecoder(out)
	if err := s.process.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		s.end(syscall.SIGKILL)
		if l.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			l.t.Logf("speaker:\n%s", tail(string(text), 60))
		}
	})
	return s
}

// end sends the signal and waits for the process to end.
func (s *speaker) end(signal syscall.Signal) {
	_ = s.process.Process.Signal(signal)
	_ = s.process.Wait()
}

func (s *speaker) ask(c command) answer {
	s.t.Helper()
	if err := json.NewEncoder(s.in).Encode(c); err != nil {
		s.t.Fatalf("speaker: %v", err)
	}
	var a answer
	if err := s.out.Decode(&a); err != nil {
		s.t.Fatalf("speaker: %v", err)
	}
	return a
}

func (s *speaker) set(state bgp.State) {
	s.t.Helper()
	if a := s.ask(command{Set: &state}); a.Error != "" {
		s.t.Fatalf("Set: %s", a.Error)
	}
}

func (s *speaker) session(peer string) announce.Session {
	s.t.Helper()
	for _, session := range s.ask(command{Sessions: true}).Sessions {
		if session.Peer == peer {
			return session
		}
	}
	return announce.Session{}
}

func (s *speaker) established(peers ...string) {
	s.t.Helper()
	for _, peer := range peers {
		eventually(s.t, 15*time.Second, "session with "+peer, func() bool { return s.session(peer).Established() })
	}
}
