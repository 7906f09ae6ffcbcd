//! The exit code of a run, decided in one place.

use crate::event::Counts;

/// Everything is measured or cached. All codes are explained in `docs/cli.md`.
pub const OK: i32 = 0;
pub const NOTHING_SELECTED: i32 = 4;
pub const SOME_FAILED: i32 = 5;
pub const REGRESSION: i32 = 6;
pub const ENVIRONMENT: i32 = 7;
pub const INCOMPLETE: i32 = 8;
pub const UNDECIDABLE: i32 = 9;
pub const INTERNAL: i32 = 70;
pub const INTERRUPTED: i32 = 130;

/// What the regression gate says.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Verdict {
    /// There is no gate, or nothing to hold against it yet.
    #[default]
    None,
    Pass,
    Regression,
    /// An unstable control, or a named baseline that is not there.
    Undecidable,
}

/// What decides the exit code beside the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    pub interrupted: bool,
    /// Every deployment that was tried lacked what this host does not have.
    pub no_environment: bool,
    /// A search did not come to its end.
    pub unfinished: bool,
}

/// The first code that applies.
pub fn code(counts: &Counts, circumstances: Circumstances, verdict: &Verdict) -> i32 {
    let Circumstances { interrupted, no_environment, unfinished } = circumstances;
    if interrupted {
        INTERRUPTED
    } else if counts.total() == 0 && !unfinished {
        NOTHING_SELECTED
    } else if no_environment {
        ENVIRONMENT
    } else if *verdict == Verdict::Regression {
        REGRESSION
    } else if *verdict == Verdict::Undecidable {
        UNDECIDABLE
    } else if counts.failed + counts.blocked + counts.invalid > 0 {
        SOME_FAILED
    } else if counts.not_run > 0 || unfinished {
        INCOMPLETE
    } else {
        OK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_code_that_applies() {
        let all = Counts { cached: 1, measured: 1, invalid: 1, failed: 1, blocked: 1, unsupported: 1, not_run: 1 };
        let both = Circumstances { interrupted: true, no_environment: true, unfinished: true };
        assert_eq!(code(&all, both, &Verdict::Regression), 130);
        assert_eq!(code(&Counts::default(), Circumstances::default(), &Verdict::None), 4);
        let no_environment = Circumstances { no_environment: true, ..Circumstances::default() };
        assert_eq!(code(&all, no_environment, &Verdict::Regression), 7);
        let code = |counts, verdict| code(&counts, Circumstances::default(), &verdict);
        assert_eq!(code(all, Verdict::Regression), 6);
        assert_eq!(code(all, Verdict::Undecidable), 9);
        assert_eq!(code(all, Verdict::Pass), 5);
        let good = Counts { cached: 3, measured: 2, unsupported: 1, ..Counts::default() };
        assert_eq!(code(Counts { not_run: 1, ..good }, Verdict::None), 8);
        assert_eq!(code(good, Verdict::None), 0);
        let unfinished = Circumstances { unfinished: true, ..Circumstances::default() };
        assert_eq!(super::code(&good, unfinished, &Verdict::None), 8);
        assert_eq!(super::code(&Counts::default(), unfinished, &Verdict::None), 8);
    }
}
