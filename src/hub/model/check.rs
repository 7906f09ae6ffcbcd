//! Whether content is what the hub says it is: SHA-256 of large files, git's blob id of small ones.

use ring::digest::{Context, Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::info::{Content, RemoteFile};

/// Takes content in as it comes.
pub struct Check {
    context: Context,
    expected: String,
}

impl Check {
    pub fn new(file: &RemoteFile) -> Check {
        let (context, expected) = match &file.content {
            Content::Sha256(hash) => (Context::new(&SHA256), hash),
            Content::GitBlob(id) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {}\0", file.size).as_bytes());
                (context, id)
            }
        };
        Check { context, expected: expected.to_ascii_lowercase() }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The error says what came instead.
    pub fn finish(self) -> Result<(), String> {
        let found = hex(&self.context.finish());
        if found == self.expected { Ok(()) } else { Err(format!("it is {found}, not {}", self.expected)) }
    }
}

fn hex(digest: &Digest) -> String {
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: Content, bytes: &[u8]) -> Result<(), String> {
        let mut check = Check::new(&RemoteFile { path: "x".into(), size: bytes.len() as u64, content });
        bytes.chunks(2).for_each(|c| check.update(c));
        check.finish()
    }

    #[test]
    fn both_kinds_of_hashes() {
        // `printf hello | sha256sum` and `printf hello | git hash-object --stdin`.
        let sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(check(Content::Sha256(sha.into()), b"hello"), Ok(()));
        let blob = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        assert_eq!(check(Content::GitBlob(blob.into()), b"hello"), Ok(()));
        assert!(check(Content::GitBlob(blob.into()), b"hallo").unwrap_err().contains("not b6fc"));
    }
}
