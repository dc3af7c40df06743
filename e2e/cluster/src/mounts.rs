//! Mounts and loop devices below a directory of ours.

use std::path::{Path, PathBuf};

use crate::command::{run, system};
use crate::{Error, Result};

/// Makes the directory a mount of its own whose later mounts appear in the namespaces made from this one.
pub(crate) fn make_shared(directory: &Path) -> Result<()> {
    if mounted_below(directory)?.iter().any(|mount| mount == directory) {
        return Ok(());
    }
    let attempt = "making the volumes' directory a shared mount";
    let path = directory.as_os_str();
    run(attempt, &mut system("mount", ["--bind".as_ref(), path, path]))?;
    // Out of the root's peer group, if the root is shared, or every volume would be mounted twice.
    run(attempt, &mut system("mount", ["--make-private".as_ref(), path]))?;
    run(attempt, &mut system("mount", ["--make-shared".as_ref(), path])).map(drop)
}

/// Unmounts everything at and below the directory, newest first, and frees the loop devices of files in it.
pub(crate) fn clear(directory: &Path) -> Result<()> {
    for mount in mounted_below(directory)?.iter().rev() {
        run(
            "unmounting what the cluster left",
            &mut system("umount", ["--lazy".as_ref(), mount.as_os_str()]),
        )?;
    }
    for device in loop_devices(directory)? {
        run("freeing a loop device", &mut system("losetup", ["--detach", &device]))?;
    }
    Ok(())
}

/// The loop devices whose file lies in the directory.
pub(crate) fn loop_devices(directory: &Path) -> Result<Vec<String>> {
    let list = run(
        "listing loop devices",
        &mut system("losetup", ["--list", "--noheadings", "--output", "NAME,BACK-FILE"]),
    )?;
    Ok(list
        .lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .filter(|(_, file)| Path::new(file.trim()).starts_with(directory))
        .map(|(device, _)| device.to_owned())
        .collect())
}

/// Mount points at and below the directory, oldest first.
pub(crate) fn mounted_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let table = "/proc/self/mountinfo";
    let text = std::fs::read_to_string(table).map_err(Error::io("reading", table))?;
    Ok(mount_points(&text)
        .filter(|point| point.starts_with(directory))
        .collect())
}

fn mount_points(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
}

/// The kernel writes blanks and backslashes of paths as octal numbers.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let text = "22 27 0:21 / /proc rw - proc proc rw\n90 27 7:0 / /home/a\\040b/mounts/x rw shared:1 - xfs /dev/loop0 rw\n";
        let points: Vec<_> = mount_points(text).collect();
        assert_eq!(points, [PathBuf::from("/proc"), PathBuf::from("/home/a b/mounts/x")]);
    }

    #[test]
    fn a_directory_whose_name_only_begins_alike_is_not_below() {
        let text = "90 27 7:0 / /state/up2/volumes rw - xfs /dev/loop0 rw\n";
        assert_eq!(
            mount_points(text)
                .filter(|point| point.starts_with("/state/up"))
                .count(),
            0
        );
    }
}
