//! Every format of one small comparison.

use super::*;
use crate::compare::gate::{Measure, Rules};
use crate::compare::pair::{Reach, pair};
use crate::compare::testing::cell;
use crate::compare::{Side, SideCell, compare};
use crate::report::terminal::Style;

/// Five nights of three cells, and a night on which one of them got slower.
pub fn gated(last: f64) -> Comparison {
    let names: Vec<String> = (1..=5).map(|i| format!("2026110{i}T020000Z-n")).collect();
    let value = |i: usize, k: i64| 100.0 * k as f64 * (1.0 + 0.002 * ((i * 7 + k as usize * 3) % 5) as f64);
    let base = |k: i64| -> SideCell {
        let samples: Vec<(&str, u32, f64)> =
            names.iter().enumerate().map(|(i, n)| (n.as_str(), 1, value(i, k))).collect();
        let mut cell = cell("vllm", k, &samples);
        cell.samples.iter_mut().for_each(|s| drop(s.circumstances.insert("driver".into(), "550".into())));
        cell
    };
    let night = |k: i64| -> SideCell {
        let factor = if k == 2 { last } else { 1.003 };
        let mut cell = cell("vllm", k, &[("20261106T020000Z-n", 1, value(2, k) * factor)]);
        cell.samples.iter_mut().for_each(|s| drop(s.circumstances.insert("driver".into(), "560".into())));
        cell
    };
    let side =
        |name: &str, cells: Vec<SideCell>| Side { name: name.into(), simulated: Some(false), cells, ..Side::default() };
    let (a, b) = (side("last-good", (1..=3).map(base).collect()), side("tonight", (1..=3).map(night).collect()));
    let rules = Rules { measures: vec![Measure::parse("ttft", "+5%").unwrap()], gate: true, ..Rules::default() };
    compare(&a, &b, &pair(&a.cells, &b.cells, Reach::Stack), &rules, &|_, _| None)
}

fn drawn(comparison: &Comparison, all: bool) -> String {
    let mut out = Vec::new();
    table::write(comparison, Style::default(), all, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    text.lines().map(|l| l.trim_end()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_regression_in_every_format() {
    let comparison = gated(1.10);
    assert_eq!(comparison.outcome, Some(Outcome::Regression));
    insta::assert_snapshot!("table", drawn(&comparison, true));
    insta::assert_snapshot!("markdown", markdown::comparison(&comparison));
    insta::assert_snapshot!("junit", crate::report::junit::document(&[suite_of(&comparison)]));
    insta::assert_snapshot!("brief", brief::lines(&comparison).join("\n"));
}

fn suite_of(comparison: &Comparison) -> crate::report::junit::Suite {
    junit::suite(comparison)
}

#[test]
fn nothing_of_note_is_short() {
    let comparison = gated(1.001);
    assert_eq!(comparison.outcome, Some(Outcome::Pass));
    let text = drawn(&comparison, false);
    assert!(text.contains("differs: driver: 550 → 560") && !text.contains("conc 2"), "{text}");
    assert!(text.contains("3 same") && text.ends_with("no regression against last-good"), "{text}");
    // The difference comes before any number.
    let full = drawn(&comparison, true);
    assert!(full.find("driver").unwrap() < full.find("TTFT").unwrap());
}

#[test]
fn what_a_comparison_is_in_json() {
    let json = serde_json::to_value(gated(1.10)).unwrap();
    assert_eq!(json["outcome"], "regression");
    let finding = &json["cells"][1]["findings"][0];
    assert_eq!((finding["verdict"].as_str(), finding["test"].as_str()), (Some("worse"), Some("moderated_t")));
    assert_eq!(finding["interval_of"], "nights");
    let interval = finding["interval"].as_array().unwrap();
    let change = finding["change"].as_f64().unwrap();
    assert!(interval[0].as_f64().unwrap() < change && change < interval[1].as_f64().unwrap());
    assert_eq!(json["differences"][0]["field"], "driver");
}
