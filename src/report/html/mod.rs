//! One HTML page that needs nothing else: no network, no font, no library. It is drawn by a template from what the
//! modules beside this one work out; the script only sorts, filters, recolours and shows hover values, so that without it
//! everything can still be read.
//!
//! The page stays below [`LIMIT`]: where a report is too large for that, details are left out and the page says so.

mod failures;
mod highlights;
mod matrix;
mod page;
mod soundness;
mod table;
mod units;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use super::figures;
use super::{Grid, Report};

/// Bytes that a page does not exceed.
pub const LIMIT: usize = 2_000_000;

const TEMPLATE: &str = include_str!("page.html.j2");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// How a page is made.
#[derive(Clone, Debug, Default)]
pub struct PageOptions {
    /// Where the artifact tree is, as a link from where the page will lie; `None` makes no links to files.
    pub root: Option<String>,
}

/// How much of a report a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Detail {
    Full,
    /// No logs, no table of samples, no parameters, few plots.
    Lean,
    /// No plots, and only so many rows.
    Bare,
}

/// Beyond so many units a page of that detail is not below the limit, and need not be made to find out.
const MOST: [(Detail, usize); 2] = [(Detail::Full, 1000), (Detail::Lean, 2500)];

/// The page.
pub fn page(report: &Report, grid: &Grid, options: &PageOptions) -> String {
    let units = report.units.len();
    let made = MOST.iter().filter(|(_, most)| units <= *most).map(|(detail, _)| render(report, grid, options, *detail));
    let fits = made.into_iter().find(|page| page.len() <= LIMIT);
    fits.unwrap_or_else(|| render(report, grid, options, Detail::Bare))
}

fn render(report: &Report, grid: &Grid, options: &PageOptions, detail: Detail) -> String {
    let mut env = Environment::new();
    let syntax = env.syntax().to_builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.expect("the usual delimiters are distinct"));
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    // Escaping is the formatter's, which also takes out what terminals understand and pages do not.
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(|out, _, value| {
        if value.is_none() {
            return Ok(());
        }
        match value.as_str() {
            Some(text) if value.is_safe() => out.write_str(text)?,
            Some(text) => out.write_str(&escape(text))?,
            None => write!(out, "{value}")?,
        }
        Ok(())
    });
    let page = page::Page::of(report, grid, options, detail);
    let template = env.template_from_str(TEMPLATE).expect("the template is well-formed");
    template
        .render(minijinja::Value::from(minijinja::value::Serde(&page)))
        .expect("the template asks for nothing that the page has not")
}

/// Text that means itself in HTML, XML and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in figures::without_escapes(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
