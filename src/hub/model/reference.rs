//! Names of repositories.

use super::ModelError;

/// What stands for the newest state unless said otherwise.
const MAIN: &str = "main";
const SCHEME: &str = "hf://";

/// A repository of the hub, and which state of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoRef {
    /// `org/name`, or `name` for a few old ones.
    pub name: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl RepoRef {
    pub fn new(name: &str, revision: Option<&str>) -> Result<RepoRef, ModelError> {
        let revision = revision.unwrap_or(MAIN);
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part.len() <= 96 && part.chars().all(allowed) && !part.starts_with(['.', '-'])
        };
        let mut parts = name.split('/');
        let named = parts.next().is_some_and(plain) && parts.next().is_none_or(plain) && parts.next().is_none();
        // A revision may have slashes (`refs/pr/1`), and no step upwards.
        if !named || !revision.split('/').all(plain) {
            return Err(ModelError::Reference(format!("{name}@{revision}")));
        }
        Ok(RepoRef { name: name.into(), revision: revision.into() })
    }

    /// `hf://org/name@revision`; the revision may be left out.
    pub fn from_url(url: &str) -> Result<RepoRef, ModelError> {
        let rest = url.strip_prefix(SCHEME).ok_or_else(|| ModelError::Reference(url.into()))?;
        RepoRef::from_key(rest)
    }

    /// `org/name@revision`; the revision may be left out.
    pub fn from_key(key: &str) -> Result<RepoRef, ModelError> {
        match key.split_once('@') {
            Some((name, revision)) => RepoRef::new(name, Some(revision)),
            None => RepoRef::new(key, None),
        }
    }

    /// The same repository at a commit.
    pub fn at(&self, commit: &str) -> RepoRef {
        RepoRef { name: self.name.clone(), revision: commit.into() }
    }

    /// Whether the revision is a commit, which never moves.
    pub fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

impl std::fmt::Display for RepoRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            MAIN => f.write_str(&self.name),
            revision => write!(f, "{}@{revision}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_no_path_can_lead_out() {
        let r = RepoRef::from_url("hf://org/name@v1.0").unwrap();
        assert_eq!(
            (r.name.as_str(), r.revision.as_str(), r.to_string().as_str()),
            ("org/name", "v1.0", "org/name@v1.0")
        );
        assert_eq!(RepoRef::from_url("hf://org/name").unwrap().to_string(), "org/name");
        assert!(RepoRef::from_key("gpt2").is_ok() && RepoRef::new("a/b", Some("refs/pr/1")).is_ok());
        assert!(RepoRef::new("a/b", Some(&"0".repeat(40))).unwrap().is_commit());
        for bad in ["", "a/b/c", "../b", "a/..", "a b", "/a", "a/b@", "a/b@../x", "a/b@x/../../y"] {
            assert!(RepoRef::from_key(bad).is_err(), "{bad}");
        }
        assert!(RepoRef::from_url("s3://a/b").is_err());
    }
}
