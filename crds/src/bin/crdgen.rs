//! Writes the resource definitions to `crds/*.yaml`, for people and charts that apply them.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for manifest in crds::manifests()? {
        let path = folder.join(manifest.file);
        fs::write(&path, manifest.yaml).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
