//! What a run's journal says of its engine starts: how long each took, and where the time went.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::digest::DeployId;
use crate::event::{Entry, Event, Stage};

/// One start of a deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineStart {
    pub deploy_id: DeployId,
    pub container: String,
    /// Engine start within the run, from 1.
    pub start: u32,
    /// To the first token; `None` where it never came.
    pub seconds: Option<f64>,
    /// Stages in order with the seconds each took, as far as the deployment told of them.
    pub stages: Vec<(Stage, f64)>,
    pub engine_version: Option<String>,
    /// Why it failed, first line.
    pub failure: Option<String>,
}

/// A start whose end has not been seen.
struct Open {
    container: String,
    start: u32,
    began: Option<Timestamp>,
    /// Each stage with the time it was first told of.
    stages: Vec<(Stage, Option<Timestamp>)>,
}

/// Every start that ended, in the order of the ends.
pub fn engine_starts(entries: &[Entry]) -> Vec<EngineStart> {
    let mut open: BTreeMap<DeployId, Open> = BTreeMap::new();
    let mut out = Vec::new();
    for entry in entries {
        let at = entry.at.parse().ok();
        match &entry.event {
            Event::DeploymentStarting { deploy_id, container, start, .. } => {
                let new = Open { container: container.clone(), start: *start, began: at, stages: Vec::new() };
                open.insert(*deploy_id, new);
            }
            Event::DeploymentProgress { deploy_id, stage, .. } => {
                if let Some(o) = open.get_mut(deploy_id)
                    && o.stages.last().is_none_or(|(last, _)| last != stage)
                {
                    o.stages.push((*stage, at));
                }
            }
            Event::DeploymentReady { deploy_id, seconds, engine_version, .. } => {
                out.extend(open.remove(deploy_id).map(|o| EngineStart {
                    seconds: Some(*seconds),
                    engine_version: engine_version.clone(),
                    ..o.ended(*deploy_id, at)
                }));
            }
            Event::DeploymentFailed { deploy_id, cause, .. } => {
                let failure = cause.lines().next().map(str::to_string);
                out.extend(open.remove(deploy_id).map(|o| EngineStart { failure, ..o.ended(*deploy_id, at) }));
            }
            _ => {}
        }
    }
    out
}

impl Open {
    fn ended(self, deploy_id: DeployId, at: Option<Timestamp>) -> EngineStart {
        let ends = self.stages.iter().skip(1).map(|(_, at)| *at).chain([at]);
        let seconds = |from: Option<Timestamp>, to: Option<Timestamp>| {
            from.zip(to).map_or(0.0, |(from, to)| to.duration_since(from).as_secs_f64().max(0.0))
        };
        // The first stage begins when the start does.
        let begins = [self.began].into_iter().chain(self.stages.iter().skip(1).map(|(_, at)| *at));
        let stages =
            self.stages.iter().zip(begins).zip(ends).map(|(((stage, _), from), to)| (*stage, seconds(from, to)));
        EngineStart {
            deploy_id,
            stages: stages.collect(),
            container: self.container,
            start: self.start,
            seconds: None,
            engine_version: None,
            failure: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FailureClass;
    use crate::value::Value;

    #[test]
    fn starts_have_their_stages_and_their_ends() {
        let deploy_id = DeployId::of(&Value::str("d"));
        let starting = |start| Event::DeploymentStarting { deploy_id, container: "m-hf-vllm".into(), start, units: 3 };
        let progress = |stage| Event::DeploymentProgress { deploy_id, stage, message: String::new(), fraction: None };
        let failed = Event::DeploymentFailed {
            deploy_id,
            start: 2,
            stage: Stage::Ready,
            class: FailureClass::Infrastructure,
            cause: "no answer\nat all".into(),
            attempt: 1,
            retry: true,
            environment: false,
            log_tail: None,
        };
        let ready =
            |start, seconds| Event::DeploymentReady { deploy_id, start, seconds, engine_version: Some("1".into()) };
        let events = [
            (0, starting(1)),
            (1, progress(Stage::Pull)),
            (5, progress(Stage::Pull)),
            (10, progress(Stage::Ready)),
            (40, ready(1, 40.2)),
            (50, starting(2)),
            (80, failed),
            (80, starting(2)),
            (95, ready(2, 15.0)),
        ];
        let entries: Vec<Entry> = (0..)
            .zip(events)
            .map(|(seq, (s, event))| Entry {
                seq,
                at: format!("2026-11-24T06:{:02}:{:02}.000Z", s / 60, s % 60),
                event,
            })
            .collect();
        let starts = engine_starts(&entries);
        assert_eq!(starts.len(), 3);
        assert_eq!(starts[0].stages, [(Stage::Pull, 10.0), (Stage::Ready, 30.0)]);
        assert_eq!((starts[0].seconds, starts[0].start), (Some(40.2), 1));
        assert_eq!((starts[1].failure.as_deref(), starts[1].seconds), (Some("no answer"), None));
        assert_eq!((starts[2].seconds, starts[2].start), (Some(15.0), 2));
    }
}
