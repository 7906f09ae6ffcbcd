//! `[run] webhook`: the summary of a run as a JSON message that Slack, Mattermost and their like understand. It tells; it
//! decides nothing: a message that cannot be sent is a warning.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::failure::Failure;
use super::output::Output;
use crate::compare::{Comparison, show};
use crate::deploy::Variables;
use crate::deploy::secret::{Redactor, Secret, resolve};
use crate::exec::RunOutcome;
use crate::hub::http;
use crate::report::Report;
use crate::report::figures::counts;
use crate::spec::policy::RunPolicy;

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Causes that a message lists.
const SHOWN: usize = 8;

/// Where to tell of the end of a run.
pub struct Webhook {
    url: Secret,
    redactor: Redactor,
}

impl Webhook {
    /// Reads the URL of a policy, with every `${NAME}` from the environment: before the run, so that a variable that is
    /// not set is not found out at its end.
    pub fn read(policy: &RunPolicy) -> Result<Option<Webhook>, Failure> {
        policy.webhook.as_deref().map(Webhook::of).transpose()
    }

    /// The same of a URL as written.
    pub fn of(text: &str) -> Result<Webhook, Failure> {
        let variables: Variables = Arc::new(|name| std::env::var(name).ok());
        let mut redactor = Redactor::default();
        let url = resolve(text, "webhook", &variables, &mut redactor).map_err(|e| Failure::Usage(e.cause))?;
        match url::Url::parse(url.expose()) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => {}
            _ => return Err(Failure::Usage(format!("`webhook` is not a URL: {}", redactor.redact(text)))),
        }
        Ok(Webhook { url, redactor })
    }

    /// Tells how a run ended, and what its gate said.
    pub fn send(
        &self,
        outcome: &RunOutcome,
        report: &Report,
        gated: Option<&Comparison>,
        runtime: &tokio::runtime::Runtime,
        output: &Output,
    ) {
        self.tell(&message(outcome, report, gated), runtime, output);
    }

    /// Tells. Nothing of the URL is ever shown: it is a secret of its own for most receivers.
    pub fn tell(&self, message: &Value, runtime: &tokio::runtime::Runtime, output: &Output) {
        let body = self.redactor.redact(&message.to_string());
        let sent = runtime.block_on(async {
            let client = http::client()?;
            let request = client.post(self.url.expose()).header("content-type", "application/json").body(body);
            let answer = request.timeout(PATIENCE).send().await.map_err(|e| http::reason(&e))?;
            let status = answer.status();
            if status.is_success() { Ok(()) } else { Err(format!("HTTP {}", status.as_u16())) }
        });
        if let Err(why) = sent {
            output.warning(&format!("the webhook could not be told: {}", self.redactor.redact(&why)));
        }
    }
}

/// `text` for every receiver; the figures once more as fields of an attachment.
fn message(outcome: &RunOutcome, report: &Report, gated: Option<&Comparison>) -> Value {
    let RunOutcome { counts: c, exit_code, record, .. } = outcome;
    let mut lines = vec![format!("{}: {}; exit code {exit_code}", record.run, counts(c))];
    lines.extend(gated.map(show::brief::lines).unwrap_or_default());
    let causes: Vec<String> = report
        .units
        .iter()
        .filter_map(|u| Some((u, u.cause()?)))
        .map(|(u, cause)| {
            format!("{} {}: {}", u.status().replace('_', " "), u.name, cause.lines().next().unwrap_or_default())
        })
        .collect();
    lines.extend(causes.iter().take(SHOWN).cloned());
    if causes.len() > SHOWN {
        lines.push(format!("and {} more", causes.len() - SHOWN));
    }
    let field = |title: &str, value: String| json!({ "title": title, "value": value, "short": true });
    let counted = [
        ("measured", c.measured),
        ("cached", c.cached),
        ("invalid", c.invalid),
        ("failed", c.failed),
        ("blocked", c.blocked),
        ("unsupported", c.unsupported),
        ("not run", c.not_run),
    ];
    let mut fields = vec![field("experiment", record.experiment.clone()), field("exit code", exit_code.to_string())];
    fields.extend(counted.iter().filter(|(_, n)| *n > 0).map(|(title, n)| field(title, n.to_string())));
    let color = if *exit_code == 0 { "good" } else { "danger" };
    json!({ "text": lines.join("\n"), "attachments": [{ "color": color, "fields": fields }] })
}
