//! Each node's containers live under a cgroup of the node's own, in every hierarchy the machine has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How long the kernel may take to bury killed processes before their cgroup can be removed.
const EMPTYING: Duration = Duration::from_secs(10);

/// What a node counts when there is not enough time for all, by the file that says so in either version: as much as four
/// processes outside. By default all its containers together would count as one, and wait for seconds behind the control
/// plane, the kubelets and whoever calls them.
const SHARES: [(&str, &str); 2] = [("cpu.shares", "4096"), ("cpu.weight", "400")];

/// Makes the cgroup `name` in every hierarchy.
pub(crate) fn make(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.path.join(name);
        fs::create_dir_all(&group).map_err(Error::io("making the cgroup", &group))?;
        for (file, share) in SHARES {
            let file = group.join(file);
            if file.exists() {
                fs::write(&file, share).map_err(Error::io("writing", &file))?;
            }
        }
        if hierarchy.cpuset {
            // Version 1 starts a cpuset empty, and an empty one takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let all = hierarchy.path.join(file);
                let all = fs::read_to_string(&all).map_err(Error::io("reading", &all))?;
                let own = group.join(file);
                fs::write(&own, all).map_err(Error::io("writing", &own))?;
            }
        }
    }
    Ok(())
}

/// Removes the cgroup `name` and those below it from every hierarchy.
pub(crate) fn remove(name: &str) -> Result<()> {
    let deadline = Instant::now() + EMPTYING;
    for hierarchy in hierarchies()? {
        let group = hierarchy.path.join(name);
        while let Err(error) = remove_tree(&group) {
            if Instant::now() > deadline {
                return Err(Error::io("removing the cgroup", &group)(error));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// The processes in the cgroups below `name` that belong to the pod of that uid.
pub(crate) fn processes_of_pod(name: &str, uid: &str) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies()? {
        let group = hierarchy.path.join(name);
        // Containers come and go while this looks; what has gone needs no look.
        let _ = collect(&group, &format!("pod{uid}"), false, &mut found);
    }
    Ok(found)
}

/// Whether a process is one of the pod's now.
pub(crate) fn is_of_pod(process: i32, uid: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup"));
    groups.is_ok_and(|groups| groups.contains(&format!("/pod{uid}")))
}

/// Adds the processes of `group` and those below, once a folder's name has told that the pod begins there.
fn collect(group: &Path, pod: &str, inside: bool, found: &mut BTreeSet<i32>) -> std::io::Result<()> {
    let inside = inside || group.file_name().is_some_and(|name| name.to_string_lossy() == pod);
    if inside {
        let processes = fs::read_to_string(group.join("cgroup.procs"))?;
        found.extend(
            processes
                .lines()
                .filter_map(|line| line.parse::<i32>().ok())
                .filter(|pid| *pid > 1),
        );
    }
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let _ = collect(&entry.path(), pod, inside, found);
        }
    }
    Ok(())
}

/// Cgroups go by rmdir, children first; their files cannot be removed.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    if !group.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[derive(Debug, PartialEq)]
struct Hierarchy {
    path: PathBuf,
    cpuset: bool,
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let table = "/proc/self/mounts";
    let text = fs::read_to_string(table).map_err(Error::io("reading", table))?;
    Ok(parse(&text))
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let [_, path, kind @ ("cgroup" | "cgroup2"), options, ..] = fields[..] else {
            continue;
        };
        let cpuset = kind == "cgroup" && options.split(',').any(|option| option == "cpuset");
        found.push(Hierarchy {
            path: path.into(),
            cpuset,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hierarchy_is_found_and_only_version_one_has_an_empty_cpuset() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let expected = [("cpuset", true), ("memory", false), ("unified", false)].map(|(name, cpuset)| Hierarchy {
            path: Path::new("/sys/fs/cgroup").join(name),
            cpuset,
        });
        assert_eq!(parse(hybrid), expected);
    }

    #[test]
    fn a_pod_s_processes_are_those_of_its_containers_and_of_no_other_pod() {
        let node = tempfile::tempdir().unwrap();
        for (group, processes) in [
            ("kubepods", ""),
            ("kubepods/poda-1", ""),
            ("kubepods/poda-1/sandbox", "7\n"),
            ("kubepods/poda-1/container", "8\n9\n"),
            ("kubepods/poda-12/container", "10\n"),
        ] {
            let group = node.path().join(group);
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join("cgroup.procs"), processes).unwrap();
        }
        let mut found = BTreeSet::new();
        collect(node.path(), "poda-1", false, &mut found).unwrap();
        assert_eq!(found, BTreeSet::from([7, 8, 9]));
    }
}
