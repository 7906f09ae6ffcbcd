//! `logs`: what a container of ours printed, without its secrets.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;

use super::args::{Global, LogsArgs};
use super::containers;
use super::failure::Failure;
use super::output::Output;
use crate::deploy::secret::Redactor;

pub fn command(args: &LogsArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    containers::with_engine(global, async |daemon, _| {
        let container = containers::find(&daemon, &args.container).await?;
        let mut redactor = Redactor::default();
        container.secrets.iter().for_each(|secret| redactor.learn(secret));
        let tail = args.tail.map_or("all".to_string(), |n| n.to_string());
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(args.follow).tail(&tail).build();
        let mut log = std::pin::pin!(daemon.docker.logs(&container.id, Some(options)));
        let mut rest = Vec::new();
        while let Some(part) = log.next().await {
            let part = part.map_err(|e| containers::engine_failure(&e))?;
            if !print(&mut rest, &part, &redactor, output) {
                break;
            }
        }
        Ok(0)
    })
}

/// Prints the whole lines that are there; `false` when nobody reads any more. A secret never spans two lines, while it
/// may well span two parts.
fn print(rest: &mut Vec<u8>, part: &LogOutput, redactor: &Redactor, output: &Output) -> bool {
    rest.extend_from_slice(part.as_ref());
    let Some(end) = rest.iter().rposition(|b| *b == b'\n') else { return true };
    let whole: Vec<u8> = rest.drain(..=end).collect();
    let text = redactor.redact(&String::from_utf8_lossy(&whole));
    let mut open = true;
    output.write(|out| {
        open = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok();
        Ok(())
    });
    open
}
