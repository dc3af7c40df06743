//! What the instances of one machine share: who has which slot, and the settings of the host that were changed for
//! them. The last one to leave puts those back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address_plan::{AddressPlan, SLOTS};
use crate::command::{run, system};
use crate::lock::Lock;
use crate::{Error, Result, files, network};

/// Network namespaces are the machine's, not a user's, so the register is too. A reboot empties both.
const REGISTER: &str = "/run/ringwright";

/// What three nodes on one machine need of it, or what a kubelet changes when it starts.
const SETTINGS: [(&str, Option<&str>); 7] = [
    // Each kubelet, container runtime and many programs in pods take some; the default of 128 is for one machine.
    ("fs/inotify/max_user_instances", Some("8192")),
    ("vm/overcommit_memory", None),
    ("vm/panic_on_oom", None),
    ("kernel/panic", None),
    ("kernel/panic_on_oops", None),
    ("kernel/keys/root_maxkeys", None),
    ("kernel/keys/root_maxbytes", None),
];

/// Paths under which a node's programs know their own directories. They must exist on the host for a node to mount
/// its own over them.
pub(crate) const NODE_DIRECTORIES: [&str; 4] = [
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
];

#[derive(Debug, Default, Serialize, Deserialize)]
struct Register {
    /// The state directory of the instance in each taken slot.
    slots: BTreeMap<u8, PathBuf>,
    /// Settings as they were before the first instance came.
    settings: BTreeMap<String, String>,
    /// Directories that were made for the first instance.
    directories: Vec<PathBuf>,
}

impl Register {
    /// The slot of the instance with that state directory: its own if it has one, else the wanted or the first free.
    /// `in_use` says whether the machine has something running in a slot.
    fn slot_for(&self, state: &Path, wanted: Option<u8>, in_use: impl Fn(u8) -> bool) -> Option<u8> {
        if let Some((slot, _)) = self.slots.iter().find(|(_, owner)| *owner == state) {
            return Some(*slot);
        }
        match wanted {
            Some(slot) => Some(slot).filter(|slot| !self.slots.contains_key(slot)),
            // Whoever registered a slot may have lost its state and its network; without a network it is nobody's.
            None => (0..SLOTS).find(|slot| !in_use(*slot) && self.slots.get(slot).is_none_or(|owner| !owner.exists())),
        }
    }
}

/// Gives the instance a slot and prepares the host. `wanted` is the slot its state was made for, if there is state.
pub(crate) fn enter(state: &Path, wanted: Option<u8>) -> Result<AddressPlan> {
    let _lock = open()?;
    let mut register = read()?;
    let in_use = |slot| network::exists(AddressPlan::new(slot));
    let Some(slot) = register.slot_for(state, wanted, in_use) else {
        let owners: Vec<_> = register
            .slots
            .iter()
            .map(|(slot, owner)| format!("  {slot}: {}", owner.display()))
            .collect();
        return Err(Error::Invalid(format!(
            "no free address range for the cluster in {}; taken are:\n{}\nstop one of them",
            state.display(),
            owners.join("\n")
        )));
    };
    register.slots.insert(slot, state.to_owned());
    for (name, _) in SETTINGS {
        if let (false, Ok(value)) = (register.settings.contains_key(name), fs::read_to_string(setting(name))) {
            register.settings.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    for directory in NODE_DIRECTORIES.map(PathBuf::from) {
        if !directory.exists() {
            register.directories.push(directory);
        }
    }
    // Noted first, changed afterwards: a starter killed in between leaves nothing that is not noted.
    write(&register)?;
    for directory in NODE_DIRECTORIES {
        files::make_directory(Path::new(directory))?;
    }
    for (name, value) in SETTINGS {
        if let Some(value) = value {
            fs::write(setting(name), value).map_err(Error::io("writing", setting(name)))?;
        }
    }
    Ok(AddressPlan::new(slot))
}

/// The slot of the instance with that state directory: the one registered, or `noted` if no other instance has it.
pub(crate) fn slot_of(state: &Path, noted: Option<u8>) -> Result<Option<u8>> {
    let register = if Path::new(REGISTER).exists() {
        read()?
    } else {
        Register::default()
    };
    let registered = register
        .slots
        .iter()
        .find(|(_, owner)| *owner == state)
        .map(|(slot, _)| *slot);
    Ok(registered.or_else(|| noted.filter(|slot| !register.slots.contains_key(slot))))
}

/// Gives the slot back. The last one puts the host back as it was.
pub(crate) fn leave(state: &Path) -> Result<()> {
    if !Path::new(REGISTER).exists() {
        return Ok(());
    }
    let lock = open()?;
    let mut register = read()?;
    register.slots.retain(|_, owner| owner != state);
    if !register.slots.is_empty() {
        return write(&register);
    }
    for (name, value) in &register.settings {
        fs::write(setting(name), value).map_err(Error::io("restoring", setting(name)))?;
    }
    for directory in &register.directories {
        // Only if empty: whatever somebody else put there stays.
        let _ = fs::remove_dir(directory);
    }
    forget_named_namespaces()?;
    files::remove_file(&register_path())?;
    lock.remove()?;
    let _ = fs::remove_dir(REGISTER); // another instance may be entering already
    Ok(())
}

/// `ip netns` mounts its directory over itself at first use.
fn forget_named_namespaces() -> Result<()> {
    let directory = Path::new("/run/netns");
    if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none()) {
        for _ in crate::mounts::mounted_below(directory)? {
            run(
                "unmounting the namespaces' directory",
                &mut system("umount", [directory]),
            )?;
        }
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

fn setting(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn register_path() -> PathBuf {
    Path::new(REGISTER).join("register.json")
}

fn open() -> Result<Lock> {
    files::make_directory(Path::new(REGISTER))?;
    Lock::wait(&Path::new(REGISTER).join("lock"))
}

fn read() -> Result<Register> {
    let Some(text) = files::read_if_there(&register_path())? else {
        return Ok(Register::default());
    };
    serde_json::from_str(&text).map_err(|error| {
        Error::Invalid(format!(
            "{} is not readable: {error}; see what runs, then remove it",
            register_path().display()
        ))
    })
}

fn write(register: &Register) -> Result<()> {
    let text = serde_json::to_string_pretty(register).map_err(|error| Error::Invalid(error.to_string()))?;
    files::write_whole(&register_path(), &text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(owners: &[(u8, &str)]) -> Register {
        Register {
            slots: owners
                .iter()
                .map(|(slot, owner)| (*slot, PathBuf::from(owner)))
                .collect(),
            ..Register::default()
        }
    }

    #[test]
    fn an_instance_keeps_its_slot() {
        let register = register(&[(0, "/"), (3, "/b")]);
        assert_eq!(register.slot_for(Path::new("/b"), None, |_| true), Some(3));
    }

    #[test]
    fn a_new_instance_gets_the_first_slot_that_is_neither_registered_nor_in_use() {
        let register = register(&[(0, "/"), (2, "/no such owner"), (3, "/no such owner")]);
        let new = Path::new("/c");
        assert_eq!(register.slot_for(new, None, |_| false), Some(1));
        assert_eq!(register.slot_for(new, None, |slot| slot == 1), Some(2));
        assert_eq!(register.slot_for(new, None, |slot| slot <= 2), Some(3));
        assert_eq!(register.slot_for(new, None, |_| true), None);
    }

    #[test]
    fn state_made_for_one_slot_is_not_started_in_another() {
        let register = register(&[(0, "/")]);
        assert_eq!(register.slot_for(Path::new("/c"), Some(0), |_| false), None);
        assert_eq!(register.slot_for(Path::new("/c"), Some(5), |_| true), Some(5));
    }
}
