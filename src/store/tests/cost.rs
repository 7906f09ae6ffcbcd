//! The calculation by hand of docs/cost.md, made by the columns.

use super::*;
use crate::spec::policy::Cost;
use crate::store::row::{Field, Measured, Row, RowSource};

const PAGE: &str = include_str!("../../../docs/cost.md");

/// A number that the page has in bold, with its unit.
fn on_page(text: &str) -> f64 {
    let bold = format!("**{text}**");
    assert!(PAGE.contains(&bold), "docs/cost.md does not hold {bold}");
    text.split(' ').next().unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn columns_are_what_the_page_calculates() {
    let mut sample = sample(1, "r");
    let cost = Cost { gpu_hour_usd: [("h100".to_string(), 2.49)].into(), ..Cost::default() };
    let s = &mut sample.summary;
    (s.duration_s, s.n_ok, s.input_tokens, s.output_tokens) = (180.0, 600, 600 * 1024, 600 * 128);
    sample.resources.energy_j = Some(252_000.0);
    sample.resources.gpu_power_mean_w = Some(252_000.0 / 180.0);
    sample.cost_usd = cost.hour("h100-sxm-80gb", 4).map(|usd| usd * 180.0 / 3600.0);
    let unit = unit_record(1);
    let measured = Measured::Sample(&sample);
    let row = Row::new(&RowSource { unit_id: None, deploy_id: None, facts: &unit.facts, measured });
    for (column, bold) in [
        ("cost_usd", "0.498"),
        ("usd_per_1m_output_tokens", "6.484375"),
        ("usd_per_1m_input_tokens", "0.810546875"),
        ("usd_per_1m_tokens", "0.7204861"),
        ("gpu_power_mean_w", "1,400 W"),
        ("j_per_output_token", "3.28125 J"),
        ("j_per_request", "420 J"),
        ("output_tokens_per_joule", "0.3047619"),
    ] {
        let Some(Field::Float(value)) = row.get(column) else { panic!("{column}: {:?}", row.get(column)) };
        let want = on_page(bold);
        assert!((value / want - 1.0).abs() < 1e-6, "{column}: {value}, and the page says {want}");
    }
    let node = Cost { node_hour_usd: [("h100".to_string(), 98.32)].into(), ..cost };
    let window = node.hour("h100-sxm-80gb", 4).unwrap() * 180.0 / 3600.0;
    assert!((window / on_page("4.916") - 1.0).abs() < 1e-9, "{window}");
}

#[test]
fn what_is_not_known_is_empty() {
    let mut sample = sample(1, "r");
    sample.cost_usd = None;
    let unit = unit_record(1);
    let row = Row::new(&RowSource {
        unit_id: None,
        deploy_id: None,
        facts: &unit.facts,
        measured: Measured::Sample(&sample),
    });
    for column in ["cost_usd", "usd_per_1m_input_tokens", "energy_j", "j_per_request", "output_tokens_per_joule"] {
        assert_eq!(row.get(column), Some(&Field::Empty), "{column}");
    }
}
