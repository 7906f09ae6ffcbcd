//! Whether what is to be downloaded will fit, asked before the first byte.

use std::path::Path;

use super::launch::Launch;
use crate::deploy::{Failure, Stage};
use crate::host::disk::{self, Room};
use crate::hub::model::Fetch;
use crate::hub::{Daemon, image, registry};

/// What an image takes on disk for each byte of its compressed layers. Libraries of machine code shrink to about half.
const UNPACKED: u64 = 2;

/// Bytes that something will take, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    pub what: String,
    pub bytes: u64,
    pub room: Room,
}

/// Says which file system lacks room, if one does: what is needed there, and what is free.
pub fn lacking(needs: &[Need]) -> Option<String> {
    let fits = |need: &Need| {
        let together = needs.iter().filter(|n| n.room.device == need.room.device).map(|n| n.bytes);
        together.fold(0, u64::saturating_add) <= need.room.free
    };
    let short = needs.iter().find(|n| !fits(n))?;
    let there = needs.iter().filter(|n| n.room.device == short.room.device);
    let parts: Vec<String> = there.map(|n| format!("{} for {}", size(n.bytes), n.what)).collect();
    Some(format!(
        "it needs about {} on the disk of {}, which has {} free. Free some, let the run do so with `evict = true`, or \
         download it yourself: what is here is not asked for",
        parts.join(" and "),
        short.room.path.display(),
        size(short.room.free)
    ))
}

fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

impl Launch<'_> {
    /// Refuses what will not fit. What cannot be learnt beforehand is not in the way.
    pub(super) async fn enough_room(&self, daemon: &Daemon, fetches: &[Option<Fetch>]) -> Result<(), Failure> {
        let mut needs = Vec::new();
        needs.extend(self.image_need(daemon).await);
        for fetch in fetches.iter().flatten() {
            let bytes = fetch.bytes_to_come();
            let room = disk::room(fetch.cache.root()).filter(|_| bytes > 0);
            needs.extend(room.map(|room| Need { what: fetch.repo.to_string(), bytes, room }));
        }
        match lacking(&needs) {
            None => Ok(()),
            Some(why) => Err(Failure { environment: true, ..self.cannot(Stage::Pull, why) }),
        }
    }

    /// What the image will take, when it is not here and its registry says how large it is.
    async fn image_need(&self, daemon: &Daemon) -> Option<Need> {
        if self.shared.options.offline {
            return None;
        }
        let reference = match self.deployment.locked_image() {
            Some(locked) => image::pinned(&self.spec.image, locked),
            None => self.spec.image.clone(),
        };
        for known in
            [Some(self.spec.image.as_str()), Some(&reference), self.deployment.locked_image()].into_iter().flatten()
        {
            if matches!(image::local(&daemon.docker, known).await, Ok(Some(_))) {
                return None;
            }
        }
        let info = daemon.docker.info().await.ok()?;
        let root = info.docker_root_dir?;
        // A container engine in a virtual machine has its own disk.
        let room = Path::new(&root).exists().then(|| disk::room(Path::new(&root)))??;
        let login = self.shared.logins.of(image::registry(&reference)).await;
        let architecture = docker_word(&info.architecture.unwrap_or_default());
        let compressed = registry::compressed_size(&reference, &architecture, login.as_ref()).await?;
        let what = format!("the image {}", self.spec.image);
        Some(Need { what, bytes: compressed.saturating_mul(UNPACKED), room })
    }
}

/// The kernel's name of an architecture in the words of image indexes.
fn docker_word(machine: &str) -> String {
    match machine {
        "x86_64" => "amd64".into(),
        "aarch64" => "arm64".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(what: &str, gb: u64, device: u64, free: u64) -> Need {
        let room = Room { path: format!("/disk{device}").into(), device, free: free * 1_000_000_000 };
        Need { what: what.into(), bytes: gb * 1_000_000_000, room }
    }

    #[test]
    fn what_shares_a_disk_is_added_up() {
        assert_eq!(lacking(&[]), None);
        assert_eq!(lacking(&[need("the image a", 10, 1, 20), need("org/m", 15, 2, 20)]), None);
        let why = lacking(&[need("the image a", 10, 1, 20), need("org/m", 15, 1, 20)]).unwrap();
        assert!(
            why.starts_with("it needs about 10.0 GB for the image a and 15.0 GB for org/m on the disk of /disk1, which has 20.0 GB free"),
            "{why}"
        );
        assert_eq!(docker_word("x86_64"), "amd64");
    }
}
