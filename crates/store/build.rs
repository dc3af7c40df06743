//! Lists the migrations for the program to carry. Not by sqlx's macro: for it sqlx and a hundred crates below it would be
//! compiled a second time, for the compiler's own use.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// `0002_shop.sql` becomes (2, "shop", its text).
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=migrations");
    let folder = fs::canonicalize("migrations")?;
    let files = fs::read_dir(&folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = files.collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    let mut list = "[\n".to_owned();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let (version, description) = name
            .split_once('_')
            .ok_or_else(|| format!("{name}.sql: a migration is called <number>_<what it makes>.sql"))?;
        let version: i64 = version.parse()?;
        let description = description.replace('_', " ");
        writeln!(list, "    ({version}, {description:?}, include_str!({file:?})),")?;
    }
    list.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("migrations.rs"), list)?;
    Ok(())
}
