//! Questions to the hub: what a revision means, which files it has, how large they are, who may read them.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;

use super::{HubSettings, ModelError, RepoRef};
use crate::hub::http;
use crate::wire::request::path_segment;

/// A question is answered in well under a second; a hub that takes longer may as well not be there.
const PATIENCE: Duration = Duration::from_secs(30);
/// Descriptions of the largest repositories have a few thousand files.
const MAX_DESCRIPTION: usize = 32 << 20;

/// A hub that can be asked.
#[derive(Clone, Debug)]
pub struct ModelHub {
    pub(super) settings: HubSettings,
    pub(super) client: Client,
}

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// Its files are shown only to accounts that have accepted its terms.
    pub gated: bool,
    pub files: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteFile {
    /// With `/` between directories.
    pub path: String,
    pub size: u64,
    pub content: Content,
}

/// What a file holds, by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// Large files.
    Sha256(String),
    /// Git's own id of a file's content.
    GitBlob(String),
}

impl Content {
    /// The name of the file in the cache: the hub's entity tag.
    pub fn tag(&self) -> &str {
        match self {
            Content::Sha256(hash) | Content::GitBlob(hash) => hash,
        }
    }
}

#[derive(Deserialize)]
struct Description {
    sha: String,
    /// `false`, `"auto"` or `"manual"`.
    #[serde(default)]
    gated: serde_json::Value,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default, rename = "blobId")]
    blob_id: Option<String>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: u64,
}

impl ModelHub {
    pub fn new(settings: HubSettings) -> Result<ModelHub, ModelError> {
        let client =
            http::client().map_err(|reason| ModelError::Unreachable { endpoint: settings.endpoint.clone(), reason })?;
        Ok(ModelHub { settings, client })
    }

    /// What a reference means now.
    pub async fn snapshot(&self, repo: &RepoRef) -> Result<Snapshot, ModelError> {
        if self.settings.offline {
            return Err(ModelError::Offline { repo: repo.clone() });
        }
        let revision = path_segment(&repo.revision);
        let url = format!("{}/api/models/{}/revision/{revision}?blobs=true", self.settings.endpoint, repo.name);
        let request = self.authorized(self.client.get(&url)).timeout(PATIENCE);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let response = self.accepted(repo, response)?;
        let unreadable = |reason: String| ModelError::Unreadable {
            endpoint: self.settings.endpoint.clone(),
            what: repo.to_string(),
            reason,
        };
        let bytes = response.bytes().await.map_err(|e| self.unreachable(&e))?;
        if bytes.len() > MAX_DESCRIPTION {
            return Err(unreadable(format!("it has {} bytes", bytes.len())));
        }
        let description: Description = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
        snapshot(description).map_err(unreadable)
    }

    /// Makes sure that a gated repository's files will be handed out, before anything else costs time.
    pub async fn may_read(&self, repo: &RepoRef, snapshot: &Snapshot) -> Result<(), ModelError> {
        let Some(file) = snapshot.files.iter().min_by_key(|f| f.size).filter(|_| snapshot.gated) else { return Ok(()) };
        let url = self.file_url(repo, &snapshot.commit, &file.path);
        let request = self.authorized(self.client.head(&url)).timeout(PATIENCE);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        self.accepted(repo, response).map(drop)
    }

    /// A small file's content.
    pub async fn small_file(&self, repo: &RepoRef, commit: &str, path: &str) -> Result<Vec<u8>, ModelError> {
        let request = self.authorized(self.client.get(self.file_url(repo, commit, path))).timeout(PATIENCE);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let bytes = self.accepted(repo, response)?.bytes().await.map_err(|e| self.unreachable(&e))?;
        Ok(bytes.to_vec())
    }

    pub(super) fn file_url(&self, repo: &RepoRef, commit: &str, path: &str) -> String {
        let segments: Vec<String> = path.split('/').map(path_segment).collect();
        format!("{}/{}/resolve/{commit}/{}", self.settings.endpoint, repo.name, segments.join("/"))
    }

    pub(super) fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.settings.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(super) fn unreachable(&self, e: &reqwest::Error) -> ModelError {
        ModelError::Unreachable { endpoint: self.settings.endpoint.clone(), reason: http::reason(e) }
    }

    /// The hub says in a header of its own why it refuses; its statuses alone are ambiguous.
    pub(super) fn accepted(&self, repo: &RepoRef, response: Response) -> Result<Response, ModelError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let endpoint = self.settings.endpoint.clone();
        let (repo, had_token) = (repo.clone(), self.settings.token.is_some());
        Err(match (header("x-error-code"), status) {
            ("GatedRepo", _) => ModelError::Gated { repo, endpoint, had_token },
            ("RevisionNotFound", _) => ModelError::NoRevision { repo },
            ("RepoNotFound", _) | ("", StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED) => {
                ModelError::NoRepository { repo, endpoint, had_token }
            }
            ("", StatusCode::FORBIDDEN) => ModelError::Gated { repo, endpoint, had_token },
            (code, _) => {
                let message = header("x-error-message");
                let reason = if message.is_empty() { code } else { message }.to_string();
                ModelError::Refused { endpoint, what: repo.to_string(), status: status.as_u16(), reason }
            }
        })
    }
}

fn snapshot(description: Description) -> Result<Snapshot, String> {
    let Description { sha, gated, siblings } = description;
    if sha.len() != 40 || !sha.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("`{}` is not a commit", sha.chars().take(60).collect::<String>()));
    }
    let files = siblings.into_iter().map(file).collect::<Result<_, _>>()?;
    Ok(Snapshot {
        commit: sha,
        gated: !matches!(gated, serde_json::Value::Bool(false) | serde_json::Value::Null),
        files,
    })
}

/// The path and the tag become paths here, so neither may lead out of its directory.
fn file(sibling: Sibling) -> Result<RemoteFile, String> {
    let Sibling { rfilename: path, size, blob_id, lfs } = sibling;
    let step = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    if !path.split('/').all(step) {
        return Err(format!("`{path}` is not the path of a file"));
    }
    let hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (size, content) = match (lfs, blob_id) {
        (Some(Lfs { sha256, size }), _) if hex(&sha256, 64) => (size, Content::Sha256(sha256)),
        (None, Some(id)) if hex(&id, 40) => (size.ok_or_else(|| format!("{path} has no size"))?, Content::GitBlob(id)),
        _ => return Err(format!("{path} has no content hash")),
    };
    Ok(RemoteFile { path, size, content })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<Snapshot, String> {
        snapshot(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_description_is_read_and_checked() {
        let (commit, blob, sha) = ("a".repeat(40), "b".repeat(40), "c".repeat(64));
        let small = json!({"rfilename": "config.json", "size": 12, "blobId": blob});
        let large = json!({"rfilename": "sub/model.safetensors", "size": 1, "blobId": blob, "lfs": {"sha256": sha, "size": 99}});
        let found = read(json!({"sha": commit, "gated": "manual", "siblings": [small, large]})).unwrap();
        assert!(found.gated && found.commit == commit);
        assert_eq!(
            found.files[1],
            RemoteFile { path: "sub/model.safetensors".into(), size: 99, content: Content::Sha256(sha) }
        );
        assert!(!read(json!({"sha": commit, "gated": false})).unwrap().gated);
        for path in ["../x", "a//b", "/etc/passwd", ".."] {
            let e =
                read(json!({"sha": commit, "siblings": [{"rfilename": path, "size": 1, "blobId": blob}]})).unwrap_err();
            assert!(e.contains("not the path of a file"), "{e}");
        }
        assert!(
            read(json!({"sha": commit, "siblings": [{"rfilename": "x", "size": 1, "blobId": "../../x"}]})).is_err()
        );
        assert!(read(json!({"sha": "main"})).is_err());
    }
}
