//! Makes a table fit a terminal without breaking a word: what is the same in all rows moves into a line above, models lose
//! their organisation, columns that matter less give way, and texts are cut last.

use super::super::grid::{Cell, Grid};

/// A table that fits, as far as it can.
pub struct Fitted {
    pub grid: Grid,
    /// What holds for all rows.
    pub caption: Option<String>,
    /// Titles of the columns that had to go.
    pub hidden: Vec<String>,
}

/// Usual columns that give way, first to last.
const GIVE_WAY: [&str; 6] =
    ["request_throughput", "samples", "p99_ttft_ms", "usd_per_1m_output_tokens", "request_goodput", "p50_tpot_ms"];
/// No text is cut to less.
const SHORTEST: usize = 10;
/// Around a column: a space at either side, and one between two.
const AROUND: usize = 3;

/// Fits a table into so many columns of a terminal; `None` changes nothing.
pub fn fit(grid: &Grid, width: Option<usize>) -> Fitted {
    let mut fitted = Fitted { grid: grid.clone(), caption: None, hidden: Vec::new() };
    let Some(width) = width else { return fitted };
    let too_wide = |grid: &Grid| natural(grid) > width;
    if too_wide(&fitted.grid) {
        fitted.caption = fitted.grid.take_constants();
    }
    if too_wide(&fitted.grid) {
        fitted.grid.shorten_models();
    }
    // What somebody asked for by name stays.
    let may_go: &[&str] = if grid.usual { &GIVE_WAY } else { &[] };
    for name in may_go {
        if too_wide(&fitted.grid)
            && let Some(at) = fitted.grid.heads.iter().position(|h| h.name == *name)
        {
            fitted.hidden.push(fitted.grid.heads[at].title.clone());
            fitted.grid.remove(at);
        }
    }
    while too_wide(&fitted.grid) && cut_widest_text(&mut fitted.grid, width) {}
    fitted
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Width of one column without what is around it.
fn column(grid: &Grid, at: usize) -> usize {
    let head = &grid.heads[at];
    let cells = grid.lines.iter().map(|l| chars(&l.cells[at].text));
    cells.chain([chars(&head.title), chars(&head.unit), 1]).max().unwrap_or(1)
}

/// Width of the table as it stands.
fn natural(grid: &Grid) -> usize {
    (0..grid.heads.len()).map(|at| column(grid, at) + AROUND).sum::<usize>().saturating_sub(1)
}

/// Cuts the widest column of texts by what is too much; `false` when there is nothing left to cut.
fn cut_widest_text(grid: &mut Grid, width: usize) -> bool {
    let texts = (0..grid.heads.len()).filter(|at| !grid.heads[*at].numeric);
    let Some(widest) = texts.max_by_key(|at| column(grid, *at)) else { return false };
    let wide = column(grid, widest);
    let least = SHORTEST.max(chars(&grid.heads[widest].title)).max(chars(&grid.heads[widest].unit));
    if wide <= least {
        return false;
    }
    let target = wide.saturating_sub(natural(grid) - width).max(least);
    grid.lines.iter_mut().for_each(|l| cut(&mut l.cells[widest], target));
    true
}

/// The beginning and the end of a text: models and labels differ at either.
fn cut(cell: &mut Cell, target: usize) {
    let text: Vec<char> = cell.text.chars().collect();
    if text.len() > target {
        let end = target / 3;
        let begin = target - 1 - end;
        cell.text = text[..begin].iter().chain(&['…']).chain(&text[text.len() - end..]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::grid::{Line, Standing};
    use super::super::super::testing::report;
    use super::super::super::{View, grid};
    use super::*;

    fn usual() -> Grid {
        let mut report = report();
        report.units.iter_mut().for_each(|u| u.facts.model = format!("some-organisation/{}", "model-".repeat(6)));
        grid(&report, &View::default()).unwrap()
    }

    #[test]
    fn a_wide_terminal_changes_nothing() {
        let grid = usual();
        for width in [None, Some(300)] {
            let fitted = fit(&grid, width);
            assert_eq!(fitted.grid, grid);
            assert!(fitted.caption.is_none() && fitted.hidden.is_empty());
        }
    }

    #[test]
    fn a_narrow_one_keeps_every_word_whole_as_long_as_it_can() {
        let grid = usual();
        let fitted = fit(&grid, Some(140));
        assert!(natural(&fitted.grid) <= 140);
        let caption = fitted.caption.unwrap();
        assert!(
            caption.starts_with("model some-organisation/") && caption.contains("method hf · ISL 1024"),
            "{caption}"
        );
        assert!(fitted.hidden.is_empty());
        let narrow = fit(&grid, Some(80));
        assert!(natural(&narrow.grid) <= 80, "{}", natural(&narrow.grid));
        assert!(narrow.hidden.contains(&"requests".to_string()), "{:?}", narrow.hidden);
        assert!(narrow.grid.heads.iter().any(|h| h.name == "p50_ttft_ms"));
    }

    #[test]
    fn what_was_asked_for_stays_and_its_texts_are_cut() {
        let view = View { columns: ["model", "engine", "p50_ttft_ms"].map(String::from).to_vec(), ..View::default() };
        let mut report = report();
        for (i, unit) in report.units.iter_mut().enumerate() {
            unit.facts.model = format!("org/{}-{i}", "model-".repeat(9));
        }
        let fitted = fit(&grid(&report, &view).unwrap(), Some(50));
        assert_eq!(fitted.grid.heads.len(), 3);
        assert!(natural(&fitted.grid) <= 50);
        assert!(fitted.grid.lines[0].cells[0].text.contains('…') && fitted.grid.lines[0].cells[0].text.ends_with("-0"));
    }

    #[test]
    fn one_row_has_nothing_in_common() {
        let line = Line { unit: 0, standing: Standing::Good, cells: vec![] };
        let mut grid = Grid { heads: vec![], lines: vec![line], groups: vec![], usual: true };
        assert_eq!(grid.take_constants(), None);
    }
}
