//! Getting images from archives into the nodes' container runtimes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::command::{run, system};
use crate::configuration::CONTAINERD_SOCKET;
use crate::machine::Machine;
use crate::{Error, Result, files};

/// An image archive, known by its content.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    names: Vec<String>,
    /// The same for the same images, however and whenever the archive was written.
    fingerprint: String,
}

impl Archive {
    /// Reads the table of contents of a `docker-archive` or an `oci-archive`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = path
            .canonicalize()
            .map_err(Error::io("opening the image archive", path))?;
        let member = |name: &str| {
            let args = [
                "--extract".as_ref(),
                "--to-stdout".as_ref(),
                "--file".as_ref(),
                path.as_os_str(),
                name.as_ref(),
            ];
            run("reading an image archive", &mut system("tar", args))
        };
        // Archives of newer Docker have both; containerd prefers the index, too.
        let table = member("index.json").or_else(|_| member("manifest.json"))?;
        let names = names(&table);
        if names.is_empty() {
            return Err(Error::Invalid(format!(
                "{} names no image; write it with a name, as in `buildah push IMAGE docker-archive:FILE:NAME:TAG`",
                path.display()
            )));
        }
        let fingerprint = Sha256::digest(table.as_bytes())
            .iter()
            .fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
                text
            });
        Ok(Self {
            path,
            names,
            fingerprint,
        })
    }

    /// What to call it in progress lines.
    pub(crate) fn name(&self) -> String {
        self.names.join(", ")
    }

    /// Puts the images on the node whose files lie in `directory`, unless it has them. Says whether it had to.
    pub(crate) fn import(&self, node: &Machine, directory: &Path) -> Result<bool> {
        let notes = directory.join("imported");
        files::make_directory(&notes)?;
        let note = notes.join(&self.fingerprint);
        if let Some(noted) = files::read_if_there(&note)? {
            let there = listed(node)?;
            // A later archive may have taken one of the names.
            if noted == self.digests(&there) {
                return Ok(false);
            }
        }
        let attempt = format!("importing {}", self.name());
        node.run_inside(&attempt, &ctr(&["images", "import", &self.path.display().to_string()]))?;
        files::write_whole(&note, &self.digests(&listed(node)?))?;
        Ok(true)
    }

    fn digests(&self, listed: &BTreeMap<String, String>) -> String {
        self.names.iter().fold(String::new(), |mut text, name| {
            let digest = listed.get(name).map_or("missing", String::as_str);
            let _ = writeln!(text, "{name} {digest}"); // writing to a String cannot fail
            text
        })
    }
}

/// Whether the node's container runtime answers.
pub(crate) fn runtime_answers(node: &Machine) -> Result<bool> {
    Ok(node
        .run_inside("asking the container runtime", &ctr(&["version"]))
        .is_ok())
}

fn ctr<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"], args].concat()
}

/// The node's images: name to digest.
fn listed(node: &Machine) -> Result<BTreeMap<String, String>> {
    Ok(parse_list(
        &node.run_inside("listing images", &ctr(&["images", "list"]))?,
    ))
}

/// Lines of name, type, digest and more, below a heading.
fn parse_list(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
        })
        .collect()
}

/// The names in a `manifest.json` (a list with tags) or an `index.json` (manifests with annotations).
fn names(table: &str) -> Vec<String> {
    let table: Value = serde_json::from_str(table).unwrap_or_default();
    let tags = table
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|image| image["RepoTags"].as_array().into_iter().flatten());
    let references = table["manifests"].as_array().into_iter().flatten().map(|manifest| {
        let annotations = &manifest["annotations"];
        let full = &annotations["io.containerd.image.name"];
        if full.is_string() {
            full
        } else {
            &annotations["org.opencontainers.image.ref.name"]
        }
    });
    tags.chain(references)
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_both_kinds_of_archive() {
        let docker = r#"[{"Config":"c","RepoTags":["localhost/a:1","localhost/b:1"],"Layers":[]}]"#;
        assert_eq!(names(docker), ["localhost/a:1", "localhost/b:1"]);
        let oci = r#"{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"localhost/a:1"}},{}]}"#;
        assert_eq!(names(oci), ["localhost/a:1"]);
        assert!(names("not json").is_empty());
    }

    #[test]
    fn the_list_of_images_is_read_by_columns() {
        let text = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
                    localhost/a:1 application/vnd.oci.image.manifest.v1+json sha256:11 1.0 MiB linux/amd64 -\n\
                    sha256:22 application/x sha256:22 1.0 MiB linux/amd64 -\n";
        let images = parse_list(text);
        assert_eq!(images["localhost/a:1"], "sha256:11");
        assert_eq!(images.len(), 2);
    }

    #[test]
    fn an_archive_without_a_name_is_refused_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("manifest.json"), "[{\"RepoTags\":null}]").unwrap();
        let tar = directory.path().join("image.tar");
        let args = [
            "-cf".as_ref(),
            tar.as_os_str(),
            "-C".as_ref(),
            directory.path().as_os_str(),
            "manifest.json".as_ref(),
        ];
        run("packing", &mut system("tar", args)).unwrap();
        assert!(Archive::open(&tar).unwrap_err().to_string().contains("names no image"));
    }
}
