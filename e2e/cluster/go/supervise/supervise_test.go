package supervise

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func waitFor(t *testing.T, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !there(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s in time", what)
		}
	}
}

func TestAComponentWaitsForItsNeedAndIsStartedAgainWhenItEnds(t *testing.T) {
	directory := t.TempDir()
	need, log := filepath.Join(directory, "need"), filepath.Join(directory, "log")
	c := component{Name: "c", Command: []string{"sh", "-c", "echo started; exit 3"}, Log: log, WaitFor: need}
	r := &reaper{waiting: map[int]chan<- waitStatus{}}
	go c.keepRunning(r)
	go r.run()
	time.Sleep(300 * time.Millisecond) // longer than the poll of a need
	if _, err := os.Stat(log); err == nil {
		t.Fatal("the component was started before what it needs was there")
	}
	if err := os.WriteFile(need, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "second start", func() bool {
		text, _ := os.ReadFile(log)
		return strings.Count(string(text), "started") >= 2
	})
}

func TestAMissingProgramIsAnErrorNotAnEnd(t *testing.T) {
	c := component{Name: "c", Command: []string{"no-such-program"}, Log: filepath.Join(t.TempDir(), "log")}
	if _, err := c.runOnce(&reaper{waiting: map[int]chan<- waitStatus{}}); err == nil {
		t.Fatal("a program that does not exist was started")
	}
}
