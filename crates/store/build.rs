//! Builds again when a migration is added: the embedding macro sees only the files it read before.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
