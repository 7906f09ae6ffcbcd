use std::collections::BTreeSet;

use super::super::testing::{report, wide_report};
use super::super::{View, grid};
use super::*;

fn page_of(report: &Report) -> String {
    let options = PageOptions { root: Some("../..".into()) };
    page(report, &grid(report, &View::default()).unwrap(), &options)
}

/// Values of an attribute.
fn attributes<'p>(page: &'p str, name: &str) -> BTreeSet<&'p str> {
    let open = format!(" {name}=\"");
    page.match_indices(&open).map(|(at, _)| page[at + open.len()..].split('"').next().unwrap()).collect()
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    for report in [report(), wide_report(), Report::default()] {
        let page = page_of(&report);
        for foreign in ["http://", "https://", " src=", "@import", "url(", "<link", "<iframe"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.len() < LIMIT && page.ends_with("</html>"), "{} bytes", page.len());
    }
}

#[test]
fn every_link_inside_leads_somewhere_and_every_unit_has_a_place() {
    let report = wide_report();
    let page = page_of(&report);
    let ids = attributes(&page, "id");
    for target in attributes(&page, "href").iter().filter_map(|h| h.strip_prefix('#')) {
        assert!(ids.contains(target), "#{target}");
    }
    assert!(attributes(&page, "data-to").iter().all(|t| ids.contains(t)));
    assert!(report.units.iter().all(|u| ids.contains(u.anchor().as_str())));
    let id = report.units[0].unit_id.short(16);
    assert!(page.contains(&format!("href=\"../../org--m_hf_vllm/units/{id}/sample-1/\"")), "{id}");
}

#[test]
fn the_sections_of_a_full_page() {
    let page = page_of(&wide_report());
    for id in ["matrix", "results", "frontier", "load", "spread", "lengths", "starts", "soundness", "units"] {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\"").count());
    assert!(page.matches("class=\"hit\"").count() > 100);
    // 2 stacks, 4 pairs of lengths, 3 loads.
    assert_eq!(page.matches("<td class=\"ok").count(), 24);
}

#[test]
fn what_went_wrong_is_told_with_its_cause_and_its_log() {
    let page = page_of(&report());
    assert!(page.contains("ERROR &lt;torch&gt; OutOfMemoryError &amp; more"), "{page}");
    assert!(!page.contains('\u{1b}'));
    assert!(page.contains("<span class=\"tag failed\">failed</span> CUDA out of memory"));
    assert!(
        page.contains("It is not tried again") || page.contains("it is not tried again unless with --retry-failed")
    );
    assert!(page.contains("the checkpoint is not fp4") && page.contains("the image tag floats | no lock"));
    assert!(page.contains("error rate 0.12 is above 0.01"));
    assert!(page.contains("two engines &amp; &lt;one&gt; model"));
}

#[test]
fn a_large_report_says_what_it_leaves_out_and_stays_small() {
    let small = wide_report();
    let many = |n: usize| {
        let mut report = small.clone();
        report.units = (0..n)
            .map(|i| {
                let mut unit = small.units[i % small.units.len()].clone();
                unit.unit_id = crate::digest::UnitId::of(&crate::value::Value::Int(i as i64));
                unit.facts.labels = vec![("variant".into(), format!("v{}", i / small.units.len()))];
                unit.spread = None;
                unit
            })
            .collect();
        page_of(&report)
    };
    let pages: Vec<String> = [150, 600, 4000].map(many).into();
    let sizes: Vec<usize> = pages.iter().map(String::len).collect();
    assert!(sizes.iter().all(|n| *n <= LIMIT), "{sizes:?}");
    assert!(!pages[0].contains("This run is"), "{sizes:?}");
    assert!(pages[1].contains("This run is large") && pages[1].contains("<section id=\"units\">"), "{sizes:?}");
    assert!(
        pages[2].contains("This run is very large") && pages[2].contains("2500 more rows are not shown"),
        "{sizes:?}"
    );
}
