//! Whether something in a container was killed because the container's memory limit was reached. Its state says so only of
//! the first process; servers have children, wait for them, and end with a code of their own or not at all.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;

/// How long the container engine may take to say what it remembers.
const PATIENCE: Duration = Duration::from_secs(2);

/// Resolves when the engine tells of it; never where it does not.
pub async fn starved(docker: &Docker, id: &str) {
    if !told(docker, id, None).await {
        std::future::pending().await
    }
}

/// Whether the engine has told of it up to now.
pub async fn was_starved(docker: &Docker, id: &str) -> bool {
    let now = jiff::Timestamp::now().as_second() + 1;
    tokio::time::timeout(PATIENCE, told(docker, id, Some(now))).await.unwrap_or(false)
}

/// Waits for the event among those that are remembered, and among those to come where there is no `until`.
async fn told(docker: &Docker, id: &str, until: Option<i64>) -> bool {
    let filters = HashMap::from([("container", vec![id]), ("event", vec!["oom"])]);
    let mut options = EventsOptionsBuilder::new().since("0").filters(&filters);
    if let Some(until) = until {
        options = options.until(&until.to_string());
    }
    matches!(std::pin::pin!(docker.events(Some(options.build()))).next().await, Some(Ok(_)))
}
