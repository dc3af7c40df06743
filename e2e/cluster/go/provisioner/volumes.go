package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// smallest is the least that mkfs.xfs agrees to; smaller claims get this much.
const smallest = 300 << 20

// volumeName is what the provisioner library calls volumes. Nothing else may become a path.
var volumeName = regexp.MustCompile(`^pvc-[0-9a-f-]{36}$`)

// volumes keeps one sparse file a volume, each with a file system of exactly the volume's size, mounted through a loop
// device. XFS, because it grows while mounted with CAP_SYS_ADMIN; ext4 wants CAP_SYS_RESOURCE, which virtual machines
// for builds often withhold.
//
//	ROOT/files/NAME   the sparse file
//	ROOT/mounts/NAME  where it is mounted; pods see the folder data in it
//
// ROOT is a shared mount of the host that the nodes are slaves of: what is mounted here appears on every node.
type volumes struct{ root string }

func (v volumes) file(name string) string  { return filepath.Join(v.root, "files", name) }
func (v volumes) mount(name string) string { return filepath.Join(v.root, "mounts", name) }

// data is what pods mount. It exists only inside the volume's own file system: were the volume not mounted, a pod
// would be refused rather than write into the host's directory below.
func (v volumes) data(name string) string { return filepath.Join(v.mount(name), "data") }

// create makes the volume, or finishes what an earlier call began.
func (v volumes) create(ctx context.Context, name string, size int64) error {
	if !volumeName.MatchString(name) {
		return fmt.Errorf("refusing the volume name %q", name)
	}
	if _, err := os.Stat(v.file(name)); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(v.file(name)), 0o700); err != nil {
			return err
		}
		// Under another name until it is formatted: a file under its own name is always a whole file system.
		unfinished := v.file(name) + ".new"
		if err := sparse(unfinished, size); err != nil {
			return err
		}
		if err := run(ctx, "mkfs.xfs", "-q", "-f", "-K", unfinished); err != nil {
			return err
		}
		if err := os.Rename(unfinished, v.file(name)); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return v.attach(ctx, name)
}

// attach mounts the volume if it is not mounted.
func (v volumes) attach(ctx context.Context, name string) error {
	if err := os.MkdirAll(v.mount(name), 0o700); err != nil {
		return err
	}
	mounted, err := v.mounted(name)
	if err != nil {
		return err
	}
	if !mounted {
		// mount(8) sets the loop device up to vanish with the mount.
		if err := run(ctx, "mount", "-t", "xfs", "-o", "loop,discard,nouuid", v.file(name), v.mount(name)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(v.data(name), 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	} else if err == nil {
		// Any user may write to a new volume; the kubelet narrows that down for pods with an fsGroup.
		return os.Chmod(v.data(name), 0o777)
	}
	return nil
}

// grow makes a mounted volume at least size bytes large, while it is in use.
func (v volumes) grow(ctx context.Context, name string, size int64) error {
	info, err := os.Stat(v.file(name))
	if err != nil {
		return err
	}
	if info.Size() < size {
		if err := os.Truncate(v.file(name), size); err != nil {
			return err
		}
	}
	devices, err := output(ctx, "losetup", "--associated", v.file(name), "--noheadings", "--output", "NAME")
	if err != nil {
		return err
	}
	for _, device := range strings.Fields(devices) {
		if err := run(ctx, "losetup", "--set-capacity", device); err != nil {
			return err
		}
	}
	return run(ctx, "xfs_growfs", v.mount(name))
}

// remove ends the volume and its data. Idempotent.
func (v volumes) remove(ctx context.Context, name string) error {
	if !volumeName.MatchString(name) {
		return fmt.Errorf("refusing the volume name %q", name)
	}
	mounted, err := v.mounted(name)
	if err != nil {
		return err
	}
	if mounted {
		if err := run(ctx, "umount", v.mount(name)); err != nil {
			return err
		}
	}
	for _, path := range []string{v.mount(name), v.file(name), v.file(name) + ".new"} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// names lists the volumes that have a file, finished or not.
func (v volumes) names() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(v.root, "files"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, entry := range entries {
		if name := strings.TrimSuffix(entry.Name(), ".new"); volumeName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, err
}

func (v volumes) mounted(name string) (bool, error) {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false, err
	}
	return strings.Contains(string(table), " "+v.mount(name)+" "), nil
}

func sparse(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Truncate(size)
}

func run(ctx context.Context, program string, arguments ...string) error {
	_, err := output(ctx, program, arguments...)
	return err
}

func output(ctx context.Context, program string, arguments ...string) (string, error) {
	text, err := exec.CommandContext(ctx, program, arguments...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(arguments, " "), err, strings.TrimSpace(string(text)))
	}
	return string(text), nil
}
