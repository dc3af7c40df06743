//! Which files of the build context a Dockerfile copies.
//!
//! Only as much of the format as telling whether an image must be built again needs: `FROM`, `COPY`, `ADD`.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

#[derive(Debug, Default)]
struct BuildStage {
    name: Option<String>,
    /// Earlier stages this one starts from or copies from, or images: those are told apart by looking.
    bases: Vec<String>,
    sources: Vec<String>,
}

/// The paths that building `target` (or the last stage) copies from the build context, as they are written.
pub(crate) fn copied_paths(text: &str, target: Option<&str>) -> Result<BTreeSet<String>> {
    let stages = parse(text)?;
    let last = match target {
        None => stages.len().checked_sub(1),
        Some(name) => stages.iter().position(|stage| stage.name.as_deref() == Some(name)),
    };
    let Some(last) = last else {
        bail!("it has no stage {}", target.unwrap_or("at all"));
    };
    let mut paths = BTreeSet::new();
    let mut waiting = vec![last];
    let mut seen = BTreeSet::new();
    while let Some(index) = waiting.pop() {
        if !seen.insert(index) {
            continue;
        }
        let stage = &stages[index];
        paths.extend(stage.sources.iter().cloned());
        let earlier = &stages[..index];
        for base in &stage.bases {
            let by_name = earlier.iter().rposition(|stage| stage.name.as_ref() == Some(base));
            let by_number = base.parse().ok().filter(|number| *number < index);
            waiting.extend(by_name.or(by_number));
        }
    }
    Ok(paths)
}

fn parse(text: &str) -> Result<Vec<BuildStage>> {
    let mut stages: Vec<BuildStage> = Vec::new();
    for instruction in instructions(text) {
        let mut words = instruction.split_whitespace();
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        let (flags, words): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with("--"));
        match (keyword.as_str(), stages.last_mut()) {
            ("FROM", _) => {
                let named = words.iter().position(|word| word.eq_ignore_ascii_case("as"));
                let name = named.and_then(|at| words.get(at + 1)).map(|name| (*name).to_owned());
                let bases = words.first().map(|base| (*base).to_owned()).into_iter().collect();
                stages.push(BuildStage {
                    name,
                    bases,
                    sources: Vec::new(),
                });
            }
            ("COPY" | "ADD", Some(stage)) => {
                if words.first().is_some_and(|word| word.starts_with('[')) {
                    bail!("`{instruction}`: the JSON form is not read here; write the paths as words");
                }
                if let Some(from) = flags.iter().find_map(|flag| flag.strip_prefix("--from=")) {
                    stage.bases.push(from.to_owned());
                } else if let Some((_destination, sources)) = words.split_last() {
                    let files = sources
                        .iter()
                        .filter(|source| !source.starts_with("<<") && !source.contains("://"));
                    stage.sources.extend(files.map(|source| (*source).to_owned()));
                }
            }
            ("COPY" | "ADD", None) => bail!("`{instruction}` stands before the first FROM"),
            _ => {}
        }
    }
    Ok(stages)
}

/// The instructions, each on one line: comments dropped and continued lines joined.
fn instructions(text: &str) -> Vec<String> {
    let mut instructions = Vec::new();
    let mut current = String::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let continued = line.strip_suffix('\\');
        current.push_str(continued.unwrap_or(line));
        current.push(' ');
        if continued.is_none() {
            instructions.push(std::mem::take(&mut current).trim().to_owned());
        }
    }
    instructions.extend(Some(current.trim().to_owned()).filter(|rest| !rest.is_empty()));
    instructions
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "
# A program.
FROM docker.io/library/rust:1.95 AS build
COPY . .
RUN cargo build --release \\
    # with its lock file
    --locked

FROM docker.io/library/debian:trixie-slim AS base
COPY --chown=0:0 etc/passwd \\
     etc/group /etc/

FROM base AS prebuilt
COPY target/images/program /program

FROM base AS source
COPY --from=build /target/release/program /program
";

    fn paths(target: Option<&str>) -> Vec<String> {
        copied_paths(PROGRAM, target).unwrap().into_iter().collect()
    }

    #[test]
    fn a_target_copies_what_its_own_and_the_stages_below_it_copy() {
        assert_eq!(
            paths(Some("prebuilt")),
            ["etc/group", "etc/passwd", "target/images/program"]
        );
    }

    #[test]
    fn copying_from_a_stage_counts_what_that_stage_copied() {
        assert_eq!(paths(None), [".", "etc/group", "etc/passwd"]);
    }

    #[test]
    fn an_unknown_target_is_refused() {
        assert!(copied_paths(PROGRAM, Some("absent")).is_err());
    }
}
