//! The ring's ConfigMap where it is mounted.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::EncodedRing;
use tokio::fs;
use tokio::sync::mpsc::Sender;
use tokio::time::{MissedTickBehavior, interval};

use crate::keeper::{Offer, Origin};
use crate::{DIGEST, RING_JSON, TOKENS};

const POLL: Duration = Duration::from_secs(1);

/// What changes when the content does. A mounted ConfigMap changes as a whole, by the link `..data` being pointed at
/// another directory; in an ordinary directory it is the files that change.
#[derive(PartialEq, Eq)]
enum Stamp {
    Link(PathBuf),
    Files([Option<(SystemTime, u64)>; 3]),
}

/// Reads the directory whenever it has changed; ends when nobody listens.
pub(crate) async fn follow(directory: PathBuf, offers: Sender<Offer>) {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What was looked at last, and whether it could be read.
    let mut seen = None;
    loop {
        ticks.tick().await;
        let stamp = stamp(&directory).await;
        if matches!(&seen, Some((same, true)) if *same == stamp) {
            continue;
        }
        let content = read(&directory, &stamp).await;
        let now = Some((stamp, content.is_ok()));
        // What cannot be read is read again, and told of once. A change during the reading shows in the next stamp.
        if seen != now
            && offers
                .send(Offer {
                    origin: Origin::Directory,
                    content,
                })
                .await
                .is_err()
        {
            return;
        }
        seen = now;
    }
}

async fn stamp(directory: &Path) -> Stamp {
    if let Ok(target) = fs::read_link(directory.join("..data")).await {
        return Stamp::Link(target);
    }
    let mut files = [None; 3];
    for (file, name) in files.iter_mut().zip([RING_JSON, DIGEST, TOKENS]) {
        let metadata = fs::metadata(directory.join(name)).await.ok();
        *file = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
    }
    Stamp::Files(files)
}

/// Reads the three files, all from where the link pointed, so that they are of one state.
async fn read(directory: &Path, stamp: &Stamp) -> Result<EncodedRing, String> {
    let directory = match stamp {
        Stamp::Link(target) => directory.join(target),
        Stamp::Files(_) => directory.to_owned(),
    };
    let text = |name| {
        let directory = &directory;
        async move { String::from_utf8(file(directory, name).await?).map_err(|_| format!("{name} is not text in UTF-8")) }
    };
    Ok(EncodedRing {
        ring_json: text(RING_JSON).await?,
        digest: text(DIGEST).await?,
        tokens: file(&directory, TOKENS).await?,
    })
}

async fn file(directory: &Path, name: &str) -> Result<Vec<u8>, String> {
    let path = directory.join(name);
    fs::read(&path).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("there is no file {}", path.display()),
        _ => format!("{} cannot be read: {error}", path.display()),
    })
}
