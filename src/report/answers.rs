//! What the engines of one model answered to the fixed question, where they do not say the same. Greedy answers of two
//! stacks may part at some word for want of rounding alone; where they part, and how, is for people to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use serde::Serialize;

use super::{Report, ReportUnit};
use crate::stats::Sanity;

/// Characters of an answer that are shown.
const SHOWN: usize = 60;

/// One model, asked over one API, whose stacks do not all say the same.
struct Parted {
    model: String,
    /// Each answer with the stacks that gave it: the most common one first.
    answers: Vec<Answer>,
}

struct Answer {
    text: String,
    stacks: BTreeSet<String>,
    logprob: Option<f64>,
    /// Characters that it has in common with the first answer of the list.
    common: usize,
}

/// A line for each answer, under the model's.
pub fn lines(report: &Report) -> impl Iterator<Item = String> {
    parted(report).into_iter().flat_map(|p| {
        let head = format!("answers of {} to the fixed question differ:", p.model);
        std::iter::once(head).chain(p.answers.into_iter().map(|a| format!("  {}: {}", a.who(), a.said())))
    })
}

/// A section with a list for each model. `escape` makes a text safe.
pub fn markdown(out: &mut String, report: &Report, escape: fn(&str) -> String) -> fmt::Result {
    let parted = parted(report);
    if parted.is_empty() {
        return Ok(());
    }
    writeln!(out, "## Answers to the fixed question that differ\n")?;
    for p in parted {
        writeln!(out, "{}:\n", escape(&p.model))?;
        for a in &p.answers {
            writeln!(out, "- **{}**: {}", escape(&a.who()), escape(&a.said()))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// One model for a page: its name, and each answer with who gave it.
#[derive(Serialize)]
pub struct Section {
    model: String,
    answers: Vec<(String, String)>,
}

/// The same for a page.
pub fn sections(report: &Report) -> Vec<Section> {
    let section =
        |p: Parted| Section { model: p.model, answers: p.answers.iter().map(|a| (a.who(), a.said())).collect() };
    parted(report).into_iter().map(section).collect()
}

impl Answer {
    fn who(&self) -> String {
        self.stacks.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    fn said(&self) -> String {
        let mut text: String = self.text.chars().take(SHOWN).collect();
        if self.text.chars().count() > SHOWN {
            text.push('…');
        }
        let logprob = self.logprob.map(|l| format!(", mean log probability {l:.3}")).unwrap_or_default();
        let common = match self.common {
            usize::MAX => String::new(),
            n => format!(", the first {n} characters as the answer above"),
        };
        format!("{text:?}{logprob}{common}")
    }
}

fn parted(report: &Report) -> Vec<Parted> {
    let mut asked: BTreeMap<(String, String), BTreeMap<String, Answer>> = BTreeMap::new();
    for (unit, sanity) in report.units.iter().filter_map(|u| Some((u, newest(u)?))) {
        let revision = unit.facts.revision.as_ref().map(|r| format!("@{r}")).unwrap_or_default();
        let key = (format!("{}{revision}", unit.facts.model), sanity.api.clone());
        let answers = asked.entry(key).or_default();
        let empty = || Answer {
            text: sanity.text.clone(),
            stacks: BTreeSet::new(),
            logprob: sanity.mean_logprob(),
            common: usize::MAX,
        };
        answers.entry(sanity.text.clone()).or_insert_with(empty).stacks.insert(stack(report, unit));
    }
    let differing = asked.into_iter().filter(|(_, answers)| answers.len() > 1);
    let parted = differing.map(|((model, api), answers)| {
        let mut answers: Vec<Answer> = answers.into_values().collect();
        answers.sort_by_key(|a| std::cmp::Reverse(a.stacks.len()));
        let first = answers[0].text.clone();
        for answer in &mut answers[1..] {
            answer.common = first.chars().zip(answer.text.chars()).take_while(|(a, b)| a == b).count();
        }
        Parted { model: if api.is_empty() { model } else { format!("{model} ({api})") }, answers }
    });
    parted.collect()
}

fn newest(unit: &ReportUnit) -> Option<&Sanity> {
    unit.samples.iter().rev().find_map(|s| s.sanity.as_ref())
}

/// The stack of a unit; with its labels, and the beginning of its deployment's id where that is not enough.
fn stack(report: &Report, unit: &ReportUnit) -> String {
    let name = |u: &ReportUnit| {
        let labels = u.facts.labels.iter().map(|(axis, label)| format!(" {axis}={label}"));
        format!("{} {}{}", u.facts.method, u.facts.engine, labels.collect::<String>())
    };
    let own = name(unit);
    let shared = report
        .units
        .iter()
        .any(|u| u.deploy_id != unit.deploy_id && u.facts.model == unit.facts.model && name(u) == own);
    if shared { format!("{own} ({})", unit.deploy_id.short(8)) } else { own }
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::super::{View, grid, html, markdown, terminal};
    use super::*;

    fn answering(texts: &[&str]) -> Report {
        let mut report = report();
        for (unit, text) in report.units.iter_mut().zip(texts) {
            for sample in &mut unit.samples {
                sample.sanity = Some(Sanity { logprobs: vec![-0.25], ..Sanity::of("completions", text) });
            }
        }
        report
    }

    #[test]
    fn stacks_that_agree_are_not_spoken_of() {
        assert_eq!(lines(&answering(&[" Wednesday", " Wednesday", " Wednesday"])).count(), 0);
        assert_eq!(lines(&report()).count(), 0);
    }

    #[test]
    fn every_human_format_shows_where_answers_part() {
        let report = answering(&[" Wednesday, Thursday", " Wednesday, Thursday", " Wednesday; <b>"]);
        let shown: Vec<String> = lines(&report).collect();
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert!(shown[2].contains("the first 10 characters as the answer above"), "{shown:?}");
        assert!(shown[1].contains("mean log probability -0.250"), "{shown:?}");
        let grid = grid(&report, &View::default()).unwrap();
        let summary = markdown::summary(&report, &grid);
        assert!(summary.contains("## Answers to the fixed question that differ"), "{summary}");
        let page = html::page(&report, &grid, &Default::default());
        assert!(page.contains("Wednesday; &lt;b") && !page.contains("<b>\""), "{page}");
        let mut out = Vec::new();
        terminal::write(&report, &grid, Default::default(), &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("to the fixed question differ"));
    }
}
