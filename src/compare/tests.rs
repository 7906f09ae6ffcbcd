//! Verdicts of small comparisons, case by case.

use super::gate::{Measure, Rules};
use super::pair::{Reach, pair};
use super::replicates::Level;
use super::testing::cell;
use super::{Comparison, Finding, Side, SideCell, SideSample, Verdict, compare};
use crate::spec::policy::ErrorTerm;

fn side(cells: Vec<SideCell>) -> Side {
    Side { name: "s".into(), simulated: Some(false), cells, ..Side::default() }
}

fn gated(a: Vec<SideCell>, b: Vec<SideCell>, limit: &str, error: ErrorTerm) -> Comparison {
    let (a, b) = (side(a), side(b));
    let rules = Rules { measures: vec![Measure::parse("ttft", limit).unwrap()], error, gate: true, ..Rules::default() };
    compare(&a, &b, &pair(&a.cells, &b.cells, Reach::Stack), &rules, &|_, _| None)
}

fn only(comparison: &Comparison) -> &Finding {
    &comparison.cells[0].findings[0]
}

/// Three starts around a value, scattered by a share.
fn starts(run: &'static str, value: f64, scatter: f64) -> SideCell {
    let at = |start: u32, by: f64| (run, start, value * (1.0 + by * scatter));
    cell("vllm", 1, &[at(1, -1.0), at(2, 0.1), at(3, 0.9)])
}

#[test]
fn the_four_verdicts() {
    let verdict = |b: f64, scatter: f64| {
        let c = gated(vec![starts("a", 100.0, scatter)], vec![starts("b", b, scatter)], "+5%", ErrorTerm::Starts);
        (only(&c).verdict, only(&c).needed)
    };
    assert_eq!(verdict(110.0, 0.002).0, Verdict::Worse);
    assert_eq!(verdict(90.0, 0.002).0, Verdict::Better);
    assert_eq!(verdict(101.0, 0.002), (Verdict::Same, None));
    let (undecided, needed) = verdict(104.0, 0.03);
    let needed = needed.unwrap();
    assert_eq!((undecided, needed.unit), (Verdict::Undecided, Level::Starts));
    assert!((4..200).contains(&needed.per_side), "{needed:?}");
    // More noise needs more repeats.
    assert!(verdict(104.0, 0.06).1.unwrap().per_side > needed.per_side);
}

#[test]
fn a_change_that_is_certain_and_small_is_the_same() {
    // +2 % beyond any doubt, and not what the gate is about.
    let c = gated(vec![starts("a", 100.0, 0.0005)], vec![starts("b", 102.0, 0.0005)], "+5%", ErrorTerm::Starts);
    assert_eq!(only(&c).verdict, Verdict::Same);
    assert!(only(&c).q.unwrap() < 0.01);
}

#[test]
fn near_the_limit_says_how_near() {
    let c = gated(vec![starts("a", 100.0, 0.004)], vec![starts("b", 104.99, 0.004)], "+5%", ErrorTerm::Starts);
    let finding = only(&c);
    assert_eq!((finding.verdict, finding.needed), (Verdict::Undecided, None));
    assert!(finding.reason.as_ref().unwrap().contains("too near the limit"), "{finding:?}");
}

#[test]
fn without_starts_nothing_is_decided() {
    let one = |run, value: f64| cell("vllm", 1, &[(run, 1, value), (run, 1, value * 1.01), (run, 1, value * 0.99)]);
    let c = gated(vec![one("a", 100.0)], vec![one("b", 200.0)], "+5%", ErrorTerm::Starts);
    let finding = only(&c);
    assert_eq!((finding.verdict, finding.interval_of), (Verdict::Undecided, Some("within_start")));
    assert!(finding.untested() && finding.beyond_limit());
    let c = gated(vec![one("a", 100.0)], vec![one("b", 200.0)], "+5%", ErrorTerm::Samples);
    assert_eq!((only(&c).verdict, only(&c).interval_of), (Verdict::Worse, Some("samples")));
}

#[test]
fn one_sample_each_has_an_interval_of_its_requests() {
    let (a, b) = (side(vec![cell("vllm", 1, &[("a", 1, 100.0)])]), side(vec![cell("vllm", 1, &[("b", 1, 120.0)])]));
    let rules = Rules { measures: vec![Measure::parse("ttft", "+5%").unwrap()], ..Rules::default() };
    let requests = |sample: &SideSample, latency: &str| -> Option<Vec<f64>> {
        assert_eq!(latency, "ttft");
        let level = sample.values["mean_ttft"];
        Some((0..200).map(|i| level * (1.0 + 0.1 * f64::from(i * 37 % 11) / 11.0)).collect())
    };
    let c = compare(&a, &b, &pair(&a.cells, &b.cells, Reach::Anything), &rules, &requests);
    let finding = only(&c);
    assert_eq!((finding.verdict, finding.interval_of), (Verdict::Undecided, Some("within_sample")));
    let [low, high] = finding.interval.unwrap();
    assert!(low < 0.2 && 0.2 < high && low > 0.1, "{low} {high}");
}

#[test]
fn samples_on_which_both_sides_stand_count_once() {
    let keyed = |mut cell: SideCell, first: u32| {
        for (i, sample) in cell.samples.iter_mut().enumerate() {
            sample.key = Some(("u".into(), first + i as u32));
        }
        cell
    };
    let (a, b) = (keyed(starts("a", 100.0, 0.01), 1), keyed(starts("a", 100.0, 0.01), 1));
    assert_eq!(only(&gated(vec![a.clone()], vec![b], "+5%", ErrorTerm::Starts)).test, "identical");
    // A part of a's samples is no new measurement either.
    let mut part = a.clone();
    part.samples.truncate(2);
    let c = gated(vec![a.clone()], vec![part], "+5%", ErrorTerm::Starts);
    assert_eq!((only(&c).test, only(&c).verdict), ("identical", Verdict::Same));
    // One old and two new ones: the old one is left out of a.
    let mut mixed = keyed(starts("b", 100.0, 0.012), 3);
    mixed.samples[0] = a.samples[2].clone();
    let c = gated(vec![a], vec![mixed], "+5%", ErrorTerm::Starts);
    assert_eq!((only(&c).a.unwrap().samples, only(&c).b.unwrap().samples), (2, 3));
}

#[test]
fn zeros_have_no_ratio_and_absent_metrics_are_named() {
    let c = gated(vec![starts("a", 0.0, 0.0)], vec![starts("b", 10.0, 0.01)], "+5%", ErrorTerm::Starts);
    assert!(only(&c).reason.as_ref().unwrap().contains("no change in percent"));
    let c = gated(vec![starts("a", 0.0, 0.0)], vec![starts("b", 0.0, 0.0)], "+5%", ErrorTerm::Starts);
    assert_eq!(only(&c).verdict, Verdict::Same);
    let mut without = starts("a", 1.0, 0.01);
    without.samples.iter_mut().for_each(|s| s.values.clear());
    let c = gated(vec![without.clone()], vec![starts("b", 1.0, 0.01)], "+5%", ErrorTerm::Starts);
    assert_eq!(only(&c).reason.as_deref(), Some("only side b has it"));
    assert!(gated(vec![without.clone()], vec![without], "+5%", ErrorTerm::Starts).cells[0].findings.is_empty());
}
