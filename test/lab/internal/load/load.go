// Package load sends HTTP requests or datagrams at a steady rate and reports
// what came of them. It is bounded in time, in requests in flight, and by its
// owner.
package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// DefaultTimeout is how long a request may take.
const DefaultTimeout = time.Second

const (
	maxDuration = time.Hour
	maxInFlight = 1000
)

// Options describe a load.
type Options struct {
	URL      string  // http://..., or udp://ADDRESS:PORT
	Rate     float64 // requests per second, each over a connection of its own
	Duration time.Duration
	Timeout  time.Duration
	Stream   bool          // read one endless response instead
	UntilEOF bool          // stop when the input ends
	Progress time.Duration // report that often too
}

// Main generates a load until it is told to stop, and writes reports as lines
// of JSON.
func Main(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
	if o.Duration <= 0 || o.Duration > maxDuration {
		o.Duration = maxDuration
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	if o.UntilEOF {
		go func() { // ends with the process, if nothing else
			_, _ = io.Copy(io.Discard, in)
			cancel()
		}()
	}
	c := newCollector()
	var progress sync.WaitGroup
	encoder := json.NewEncoder(out)
	if o.Progress > 0 {
		progress.Go(func() {
			ticker := time.NewTicker(o.Progress)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
					_ = encoder.Encode(c.report()) // nobody reads any more: the end is near
				}
			}
		})
	}
	var err error
	if o.Stream {
		err = readStream(ctx, o, c)
	} else {
		err = sendRequests(ctx, o, c)
	}
	cancel()
	progress.Wait()
	return errors.Join(err, encoder.Encode(c.report()))
}

// sendRequests starts a request at each tick, whatever became of the others.
func sendRequests(ctx context.Context, o Options, c *collector) error {
	if o.Rate <= 0 || o.Rate > 10000 {
		return fmt.Errorf("rate %g is not between 0 and 10000", o.Rate)
	}
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true},
		Timeout:   o.Timeout,
	}
	ask := func() (string, error) { return get(client, o.URL) }
	if address, ok := strings.CutPrefix(o.URL, "udp://"); ok {
		ask = func() (string, error) { return exchange(address, o.Timeout) }
	}
	ticker := time.NewTicker(time.Duration(float64(time.Second) / o.Rate))
	defer ticker.Stop()
	slots := make(chan struct{}, maxInFlight)
	var requests sync.WaitGroup
	defer requests.Wait()
	for {
		ended := c.send()
		select {
		case slots <- struct{}{}:
			requests.Go(func() {
				defer func() { <-slots }()
				ended(ask())
			})
		default:
			ended("", errors.New("too many requests in flight"))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func get(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", response.StatusCode)
	}
	return string(body), nil
}

// exchange sends a datagram from a port of its own and waits for the answer.
func exchange(address string, timeout time.Duration) (string, error) {
	conn, err := net.DialTimeout("udp", address, timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "who\n"); err != nil {
		return "", err
	}
	answer := make([]byte, 1500)
	n, err := conn.Read(answer)
	return string(answer[:n]), err
}

// readStream reads the lines of one response. Each counts as a success; the
// first failure, or a silence longer than the timeout, ends it.
func readStream(ctx context.Context, o Options, c *collector) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(o.Timeout, func() { cancel(fmt.Errorf("silence for %s", o.Timeout)) })
	defer silence.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.URL, nil)
	if err != nil {
		return err
	}
	fail := func(err error) {
		cause := context.Cause(ctx)
		if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
			return // told to stop
		}
		if cause != nil {
			err = cause
		}
		c.send()("", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		fail(err)
		return nil
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		silence.Reset(o.Timeout)
		_, line, _ := strings.Cut(lines.Text(), " ")
		c.send()(line, nil)
	}
	if err := lines.Err(); err != nil {
		fail(err)
	} else {
		fail(io.ErrUnexpectedEOF)
	}
	return nil
}
