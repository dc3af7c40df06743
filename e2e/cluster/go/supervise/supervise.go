// Package supervise keeps the programs of one machine running.
package supervise

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	firstRestartDelay = 300 * time.Millisecond
	lastRestartDelay  = 5 * time.Second
	// A component that lived this long was well: its next restart is quick again.
	healthyLife = 20 * time.Second
	// A log larger than this is set aside when its component starts.
	logLimit = 64 << 20
)

// waitStatus is how a process ended.
type waitStatus = syscall.WaitStatus

// machine is what Run runs: the programs of one machine, and how that machine's own view of the file system
// differs from the host's.
type machine struct {
	// Hostname is set when it is not empty; needs a uts namespace.
	Hostname string `json:"hostname"`
	// PrivateMounts says that this process has a mount namespace of its own, to be made ready for containers.
	PrivateMounts bool `json:"private_mounts"`
	// Binds are directories that the programs know under fixed paths, from a directory of this machine's own.
	Binds []bind `json:"binds"`
	// Lock is a file that one supervisor at a time may hold.
	Lock       string      `json:"lock"`
	Components []component `json:"components"`
}

type bind struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

type component struct {
	Name    string   `json:"name"`
	Command []string `json:"command"`
	Log     string   `json:"log"`
	// WaitFor is a path that must exist or an https URL that must answer 200 before the component is started.
	WaitFor string `json:"wait_for"`
}

// Run is the first process of a pid namespace: it starts the programs that its specification lists, starts
// those that end again, and reaps what containers leave behind. When it is killed, the kernel kills the whole
// namespace with it; so nothing of a machine can outlive it, however it ends.
func Run(arguments []string) error {
	if len(arguments) != 1 {
		return errors.New("usage: supervise SPECIFICATION.json")
	}
	var m machine
	text, err := os.ReadFile(arguments[0])
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("reading %s: %w", arguments[0], err)
	}
	lock, err := os.OpenFile(m.Lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another supervisor holds %s: %w", m.Lock, err)
	}
	if err := m.prepare(); err != nil {
		return err
	}
	r := &reaper{waiting: map[int]chan<- waitStatus{}}
	for _, c := range m.Components {
		go c.keepRunning(r)
	}
	r.run()
	return nil
}

// prepare gives a machine with mounts of its own what containers expect of one that has just booted.
func (m *machine) prepare() error {
	if m.Hostname != "" {
		if err := syscall.Sethostname([]byte(m.Hostname)); err != nil {
			return fmt.Errorf("setting the host name: %w", err)
		}
	}
	if !m.PrivateMounts {
		return nil
	}
	steps := []struct {
		source, target, kind string
		flags                uintptr
	}{
		// Containers ask for mounts that propagate, so every mount must be shared; the host stays out of it
		// because this namespace was made as its slave.
		{"", "/", "", syscall.MS_REC | syscall.MS_SHARED},
		{"proc", "/proc", "proc", 0},
		// As after a boot: sockets, network namespaces and container states of an earlier life are gone.
		{"tmpfs", "/run", "tmpfs", 0},
	}
	for _, b := range m.Binds {
		steps = append(steps, []struct {
			source, target, kind string
			flags                uintptr
		}{
			{b.Source, b.Target, "", syscall.MS_BIND},
			// Out of the peer group of the mount below, or each mount inside would appear twice.
			{"", b.Target, "", syscall.MS_PRIVATE},
			{"", b.Target, "", syscall.MS_SHARED},
		}...)
	}
	for _, s := range steps {
		if err := syscall.Mount(s.source, s.target, s.kind, s.flags, ""); err != nil {
			return fmt.Errorf("mounting %s on %s (flags %#x): %w", s.source, s.target, s.flags, err)
		}
	}
	return os.MkdirAll("/run/netns", 0o755)
}

// keepRunning starts the component, and starts it again whenever it ends.
func (c *component) keepRunning(r *reaper) {
	delay := firstRestartDelay
	for {
		c.await()
		started := time.Now()
		status, err := c.runOnce(r)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s %s: %v\n", started.Format(time.RFC3339), c.Name, err)
		} else {
			fmt.Fprintf(os.Stderr, "%s %s ended: exit %d, signal %d\n",
				time.Now().Format(time.RFC3339), c.Name, status.ExitStatus(), status.Signal())
		}
		if time.Since(started) > healthyLife {
			delay = firstRestartDelay
		}
		time.Sleep(delay)
		delay = min(2*delay, lastRestartDelay)
	}
}

// await returns when what the component needs is there.
func (c *component) await() {
	// Whether the answer comes from the right server is for the component to check; here it only has to come.
	client := &http.Client{
		Timeout:   time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	}
	there := func() bool {
		if !strings.HasPrefix(c.WaitFor, "https://") {
			_, err := os.Stat(c.WaitFor)
			return err == nil
		}
		answer, err := client.Get(c.WaitFor)
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		_, _ = io.Copy(io.Discard, answer.Body)
		return answer.StatusCode == http.StatusOK
	}
	for c.WaitFor != "" && !there() {
		time.Sleep(100 * time.Millisecond)
	}
}

func (c *component) runOnce(r *reaper) (waitStatus, error) {
	program, err := exec.LookPath(c.Command[0])
	if err != nil {
		return 0, err
	}
	if info, err := os.Stat(c.Log); err == nil && info.Size() > logLimit {
		_ = os.Rename(c.Log, c.Log+".1") // an old log that stays is no reason not to start
	}
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer nothing.Close()
	ended, err := r.start(program, c.Command, &os.ProcAttr{Files: []*os.File{nothing, log, log}, Env: os.Environ()})
	if err != nil {
		return 0, err
	}
	return <-ended, nil
}

// reaper waits for all children, ours and those that were orphaned to us, and tells the starters of ours.
type reaper struct {
	sync.Mutex
	waiting map[int]chan<- waitStatus
}

func (r *reaper) start(program string, command []string, attributes *os.ProcAttr) (<-chan waitStatus, error) {
	// Held until the child is entered, so that run cannot see its end before.
	r.Lock()
	defer r.Unlock()
	process, err := os.StartProcess(program, command, attributes)
	if err != nil {
		return nil, err
	}
	ended := make(chan waitStatus, 1)
	r.waiting[process.Pid] = ended
	return ended, process.Release()
}

func (r *reaper) run() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil {
			// No child at the moment, or interrupted by a signal.
			time.Sleep(100 * time.Millisecond)
			continue
		}
		r.Lock()
		if ended, ours := r.waiting[pid]; ours {
			delete(r.waiting, pid)
			ended <- status
		}
		r.Unlock()
	}
}
