//! Verdicts in words.

use std::fmt::Write;

use super::pool::Of;
use super::{Fit, GIB, Need, Verdict};

impl Fit {
    /// What follows the deployment's name in a warning; `None` where it fits.
    pub fn warning(&self) -> Option<String> {
        let mut out = match self.verdict {
            Verdict::Fits => return None,
            Verdict::Tight => format!("is tight in {} GiB: ", self.nominal_gib),
            Verdict::DoesNotFit => format!("will not fit in {} GiB: ", self.nominal_gib),
        };
        out.push_str(&self.made_of());
        if !self.remedies.is_empty() {
            let _ = write!(out, "; try {}", self.remedies.join(" or "));
        }
        Some(out)
    }

    /// The sum behind the verdict, on one line.
    pub fn made_of(&self) -> String {
        let budget = self.share.budget(self.memory);
        let mut out = format!("weights {} GiB over {}", shown(self.weights_total), plural(self.gpus, "GPU"));
        if self.gpus > 1 {
            let _ = write!(out, ", {} GiB each,", shown(self.weights));
        }
        let _ = write!(out, " + {} GiB overhead", shown(self.overhead));
        let of = match self.share.of {
            Of::All | Of::Static => {
                format!("{} GiB ({} of {} GiB)", shown(budget), self.share.value, shown(self.memory))
            }
            Of::Free | Of::Grown => format!("{} GiB", shown(budget)),
        };
        if self.room <= 0.0 {
            let _ = write!(out, " leave nothing of {of} for the KV cache");
            return out;
        }
        let _ = write!(out, " leave {} GiB of {of} for the KV cache", shown(self.room));
        let Some(kv) = &self.kv else { return out };
        let _ = write!(out, ", {} tokens", kv.tokens);
        let need = |n: &Need| match n.sequences {
            1 => format!("one sequence of {} tokens takes {} GiB", n.tokens, shown(n.bytes)),
            many => format!("{many} of {} tokens take {} GiB", n.tokens, shown(n.bytes)),
        };
        let largest = kv.largest.as_ref().filter(|n| n.sequences > 1);
        let needs: Vec<String> = kv.longest.iter().chain(largest).map(need).collect();
        if !needs.is_empty() {
            let _ = write!(out, "; {}", needs.join(", "));
        }
        out
    }
}

/// GiB with one decimal, two below one.
fn shown(bytes: f64) -> String {
    let gib = bytes / GIB;
    if gib.abs() < 1.0 { format!("{gib:.2}") } else { format!("{gib:.1}") }
}

fn plural(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
