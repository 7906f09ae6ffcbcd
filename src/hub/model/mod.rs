//! A model hub that speaks Hugging Face's API: what a repository is now, and its files in a cache of the hub's own layout,
//! so that engines find there what was downloaded here. Tokens go into the `authorization` header and nowhere else.

pub mod cache;
mod check;
mod download;
mod fetch;
pub mod info;
mod reference;
mod select;
#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use cache::HubCache;
pub use fetch::{Fetch, FetchProgress, fetch};
pub use info::{Content, ModelHub, RemoteFile, Snapshot};
pub use reference::RepoRef;
pub use select::weight_bytes;

/// Where the hub is unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// The variables that say where and as whom, as the hub's own tools read them.
pub const ENDPOINT_VARIABLE: &str = "HF_ENDPOINT";
pub const TOKEN_VARIABLE: &str = "HF_TOKEN";
pub const HOME_VARIABLE: &str = "HF_HOME";
pub const OFFLINE_VARIABLE: &str = "HF_HUB_OFFLINE";

/// What the environment says of the hub.
#[derive(Clone)]
pub struct HubSettings {
    /// Without a slash at the end.
    pub endpoint: String,
    pub token: Option<String>,
    /// The user's own cache of the hub, where one is named.
    pub home: Option<PathBuf>,
    /// The hub is not to be asked.
    pub offline: bool,
}

impl HubSettings {
    /// Reads the variables; `variable` gives their values.
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> HubSettings {
        let set = |name: &str| variable(name).map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
        let endpoint = set(ENDPOINT_VARIABLE).unwrap_or_else(|| ENDPOINT.into());
        let offline = set(OFFLINE_VARIABLE).is_some_and(|v| is_true(&v));
        HubSettings {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            token: set(TOKEN_VARIABLE),
            home: set(HOME_VARIABLE).map(PathBuf::from),
            offline,
        }
    }
}

/// As the hub's own library reads a switch.
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

impl std::fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HubSettings { endpoint, token, home, offline } = self;
        f.debug_struct("HubSettings")
            .field("endpoint", endpoint)
            .field("token", &token.is_some())
            .field("home", home)
            .field("offline", offline)
            .finish()
    }
}

/// Why the hub did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("`{0}` is not a repository of the hub: write org/name, or hf://org/name@revision")]
    Reference(String),
    #[error("the hub may not be asked for {repo}: this run is offline")]
    Offline { repo: RepoRef },
    #[error("the hub at {endpoint} cannot be reached: {reason}")]
    Unreachable { endpoint: String, reason: String },
    #[error(
        "{repo} is gated{}: accept its licence at {endpoint}/{}, and set HF_TOKEN in the environment to a token of that \
         account",
        if *had_token { ", and the token in HF_TOKEN may not read it" } else { ", and HF_TOKEN is not set" },
        repo.name
    )]
    Gated { repo: RepoRef, endpoint: String, had_token: bool },
    #[error(
        "the hub at {endpoint} has no repository {}{}: check the name",
        repo.name,
        if *had_token { " that the token in HF_TOKEN may read" } else { ", or does not show it without a token in HF_TOKEN" }
    )]
    NoRepository { repo: RepoRef, endpoint: String, had_token: bool },
    #[error("the repository {} has no revision `{}`: check `revision`", repo.name, repo.revision)]
    NoRevision { repo: RepoRef },
    #[error("the hub at {endpoint} refuses {what}: HTTP {status}{}", if reason.is_empty() { String::new() } else { format!(" ({reason})") })]
    Refused { endpoint: String, what: String, status: u16, reason: String },
    #[error("what the hub at {endpoint} says of {what} cannot be read: {reason}")]
    Unreadable { endpoint: String, what: String, reason: String },
    #[error("{file} of {repo} is not what the hub says it is: {reason}. What was downloaded is removed; try again")]
    Damaged { repo: RepoRef, file: String, reason: String },
    #[error("{file} of {repo} came to a halt: nothing came for a minute")]
    Stalled { repo: RepoRef, file: String },
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the download was given up")]
    GivenUp,
}

impl ModelError {
    /// The same inputs fail the same way.
    pub fn is_deterministic(&self) -> bool {
        matches!(
            self,
            ModelError::Reference(_)
                | ModelError::Gated { .. }
                | ModelError::NoRepository { .. }
                | ModelError::NoRevision { .. }
        )
    }

    /// The hub was not asked, or did not answer: an engine may have another way.
    pub fn is_absence(&self) -> bool {
        matches!(self, ModelError::Offline { .. } | ModelError::Unreachable { .. } | ModelError::Stalled { .. })
            || matches!(self, ModelError::Refused { status, .. } if *status == 429 || *status >= 500)
    }

    fn io<'p>(doing: &'static str, path: &'p std::path::Path) -> impl Fn(std::io::Error) -> ModelError + 'p {
        move |source| ModelError::Io { doing, path: path.to_path_buf(), source }
    }
}
