//! Downloads from a stand-in hub.

use std::fs;
use std::path::Path;

use super::stand_in::{StandIn, TOKEN};
use super::*;

fn settings(hub: &StandIn, token: Option<&str>) -> HubSettings {
    HubSettings::from(|name| match name {
        ENDPOINT_VARIABLE => Some(format!("{}/", hub.url)),
        TOKEN_VARIABLE => token.map(String::from),
        _ => None,
    })
}

async fn job(hub: &StandIn, token: Option<&str>, reference: &str, home: &Path) -> Result<Fetch, ModelError> {
    let asked = ModelHub::new(settings(hub, token))?;
    let repo = RepoRef::from_key(reference)?;
    let snapshot = asked.snapshot(&repo).await?;
    asked.may_read(&repo, &snapshot).await?;
    Ok(Fetch { hub: asked, cache: HubCache::of_home(home), repo, snapshot, weights_only: true, gentle: false })
}

const WEIGHTS: &[u8] = &[7; 100_000];

fn tiny(hub: &StandIn) {
    let files: [(&str, &[u8]); 5] = [
        ("config.json", b"{\"num_hidden_layers\": 2}"),
        ("sub/vocab.txt", b"a\nb\n"),
        ("empty.txt", b""),
        ("model.safetensors", WEIGHTS),
        ("pytorch_model.bin", b"the same once more"),
    ];
    hub.put("org/tiny", '1', &files);
}

#[tokio::test]
async fn a_snapshot_is_where_the_hubs_own_library_looks_for_it() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    tiny(&hub);
    let job = job(&hub, None, "org/tiny", home.path()).await.unwrap();
    assert_eq!(job.bytes_to_come(), 24 + 4 + 100_000);
    let mut last = FetchProgress::default();
    let dir = fetch(job.clone(), |p| last = p).await.unwrap();
    let commit = "1".repeat(40);
    let repo = home.path().join("hub/models--org--tiny");
    assert_eq!(dir, repo.join("snapshots").join(&commit));
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), WEIGHTS);
    assert_eq!(fs::read_to_string(dir.join("sub/vocab.txt")).unwrap(), "a\nb\n");
    assert_eq!(fs::read(dir.join("empty.txt")).unwrap(), b"");
    assert!(!dir.join("pytorch_model.bin").exists(), "no engine loads it beside the other");
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), commit);
    // Content is stored once, under its hash, and the names are links to it.
    let link = fs::read_link(dir.join("sub/vocab.txt")).unwrap();
    assert!(link.to_str().unwrap().starts_with("../../../blobs/"), "{}", link.display());
    assert_eq!(job.cache.present(&job.repo).unwrap(), (commit.clone(), dir));
    assert_eq!(job.bytes_to_come(), 0);

    // What is here is not asked for again; the next commit shares it.
    let before = hub.requests().len();
    fetch(job, |_| {}).await.unwrap();
    assert_eq!(hub.requests().len(), before);
    hub.put("org/tiny", '2', &[("config.json", b"{}"), ("model.safetensors", WEIGHTS)]);
    let next = self::job(&hub, None, "org/tiny", home.path()).await.unwrap();
    assert_eq!(next.bytes_to_come(), 2);
    fetch(next.clone(), |_| {}).await.unwrap();
    assert_eq!(next.cache.commit_of(&next.repo).unwrap(), "2".repeat(40));
    assert_eq!(next.cache.present(&next.repo.at(&commit)).unwrap().0, commit, "the older one stays");
}

#[tokio::test]
async fn a_download_that_is_cut_off_goes_on_where_it_was() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    hub.put("org/w", '1', &[("model.safetensors", WEIGHTS)]);
    hub.cut(60_000);
    let job = job(&hub, None, "org/w", home.path()).await.unwrap();
    let dir = fetch(job, |_| {}).await.unwrap();
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), WEIGHTS);
    let ranges: Vec<String> = hub.requests().into_iter().filter(|r| r.contains("bytes=")).collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    assert!(
        !home
            .path()
            .join("hub/models--org--w/blobs")
            .read_dir()
            .unwrap()
            .any(|e| { e.unwrap().file_name().to_string_lossy().ends_with(".incomplete") })
    );
}

#[tokio::test]
async fn what_an_earlier_process_left_counts() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    hub.put("org/w", '1', &[("model.safetensors", WEIGHTS)]);
    let job = job(&hub, None, "org/w", home.path()).await.unwrap();
    let blob = job.cache.blob("org/w", &job.snapshot.files[0].content);
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(cache::partial(&blob), &WEIGHTS[..40_000]).unwrap();
    assert_eq!(job.bytes_to_come(), 60_000);
    fetch(job, |_| {}).await.unwrap();
    assert!(hub.requests().iter().any(|r| r.ends_with("bytes=40000-")), "{:?}", hub.requests());
    assert_eq!(fs::read(blob).unwrap(), WEIGHTS);
}

#[tokio::test]
async fn content_that_is_not_what_it_should_be_is_never_shown() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    hub.put("org/w", '1', &[("config.json", b"{}"), ("model.safetensors", WEIGHTS)]);
    hub.corrupt("org/w", "model.safetensors");
    let job = job(&hub, None, "org/w", home.path()).await.unwrap();
    let e = fetch(job.clone(), |_| {}).await.unwrap_err();
    assert!(matches!(&e, ModelError::Damaged { file, .. } if file == "model.safetensors"), "{e}");
    assert!(!e.is_deterministic() && job.cache.present(&job.repo).is_none());
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    tiny(&hub);
    hub.gate("org/tiny");
    let cause = async |token, reference: &str| {
        let e = job(&hub, token, reference, home.path()).await.unwrap_err();
        assert!(e.is_deterministic() && !e.is_absence(), "{e}");
        e.to_string()
    };
    let gated = cause(None, "org/tiny").await;
    assert!(
        gated.contains("org/tiny is gated, and HF_TOKEN is not set: accept its licence at http://127.0.0.1"),
        "{gated}"
    );
    let other = cause(Some("hf_other"), "org/tiny").await;
    assert!(other.contains("the token in HF_TOKEN may not read it") && !other.contains("hf_other"), "{other}");
    let e = cause(None, "org/gone").await;
    assert!(e.contains("has no repository org/gone, or does not show it without a token"), "{e}");
    let e = cause(Some(TOKEN), "org/tiny@v9").await;
    assert!(e.contains("has no revision `v9`"), "{e}");
    assert!(job(&hub, Some(TOKEN), "org/tiny", home.path()).await.is_ok());
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_an_absence() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = |offline| HubSettings {
        endpoint: format!("http://{closed}"),
        token: Some("hf_secret".into()),
        home: None,
        offline,
    };
    let repo = RepoRef::from_key("org/tiny").unwrap();
    let e = ModelHub::new(settings(false)).unwrap().snapshot(&repo).await.unwrap_err();
    assert!(e.is_absence() && e.to_string().contains("cannot be reached"), "{e}");
    let e = ModelHub::new(settings(true)).unwrap().snapshot(&repo).await.unwrap_err();
    assert!(matches!(e, ModelError::Offline { .. }) && e.is_absence());
    assert!(!format!("{:?}", settings(true)).contains("hf_secret"));
}

#[tokio::test]
async fn what_was_downloaded_can_be_removed_and_nothing_else() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    tiny(&hub);
    let job = job(&hub, None, "org/tiny", home.path()).await.unwrap();
    fetch(job.clone(), |_| {}).await.unwrap();
    // As if the configuration had been here before.
    let own: Vec<RemoteFile> = job.files().into_iter().filter(|f| f.path != "config.json").cloned().collect();
    assert_eq!(job.cache.remove("org/tiny", &own).unwrap(), 4 + 100_000);
    let dir = job.cache.snapshot("org/tiny", &job.snapshot.commit);
    assert!(dir.join("config.json").exists() && !dir.join("model.safetensors").exists() && !dir.join("sub").exists());
    let all: Vec<RemoteFile> = job.files().into_iter().cloned().collect();
    job.cache.remove("org/tiny", &all).unwrap();
    assert!(job.cache.present(&job.repo).is_none());
}

#[tokio::test]
async fn dropping_a_download_ends_it() {
    let (hub, home) = (StandIn::start(), tempfile::tempdir().unwrap());
    hub.put("org/w", '1', &[("model.safetensors", WEIGHTS)]);
    let job = job(&hub, None, "org/w", home.path()).await.unwrap();
    let lock = job.cache.lock("org/w", &job.snapshot.files[0].content);
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let other = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock).unwrap();
    // Another process downloads the same file: this one waits, and is then given up.
    other.lock().unwrap();
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(300), fetch(job.clone(), |_| {})).await;
    assert!(waiting.is_err());
    drop(other);
    fetch(job, |_| {}).await.unwrap();
}
