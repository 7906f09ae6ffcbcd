//! Whether an engine still talks: its answer to one fixed, greedy question. An engine can be fast because it is broken; a
//! quantization gone wrong gives the same token for ever, or none.

use serde::{Deserialize, Serialize};

/// What is asked. A model that works has one obvious way to go on, whatever its size; that makes answers of two stacks
/// comparable word for word.
pub const QUESTION: &str = "Name the days of the week in order: Monday, Tuesday,";
/// Tokens that are asked for, at most.
pub const TOKENS: u32 = 24;

/// So many times in a row something has to be said to be a repetition.
const TIMES: usize = 8;
/// What is kept of an answer's text, in characters.
const KEPT: usize = 400;

/// What the answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    Ok,
    /// Nothing that anybody could read.
    Empty,
    /// One short thing, over and over.
    Repetition,
}

/// The answer of one engine start, as it stands in `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sanity {
    pub sense: Sense,
    /// The API it was asked over.
    #[serde(default)]
    pub api: String,
    /// The first characters of the answer.
    pub text: String,
    /// The tokens as text, where the engine tells them apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<String>,
    /// Natural logarithm of each token's probability, where the engine tells it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<f64>,
    /// Why the answer ended, in the engine's word.
    #[serde(default)]
    pub finish: Option<String>,
}

impl Sense {
    /// The word in the `sanity` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Sense::Ok => "ok",
            Sense::Empty => "empty",
            Sense::Repetition => "repetition",
        }
    }
}

impl Sanity {
    /// Judges an answer and keeps its beginning.
    pub fn of(api: &str, text: &str) -> Sanity {
        let kept = text.chars().take(KEPT).collect();
        let (tokens, logprobs) = (Vec::new(), Vec::new());
        Sanity { sense: sense(text), api: api.to_string(), text: kept, tokens, logprobs, finish: None }
    }

    /// Mean log probability of the answer's tokens.
    pub fn mean_logprob(&self) -> Option<f64> {
        let finite: Vec<f64> = self.logprobs.iter().copied().filter(|l| l.is_finite()).collect();
        (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
    }

    /// What is wrong, for people; `None` when nothing is.
    pub fn complaint(&self) -> Option<String> {
        let begins: String = self.text.chars().take(40).collect();
        Some(match self.sense {
            Sense::Ok => return None,
            Sense::Empty => format!("it answers a fixed question with nothing readable ({begins:?})"),
            Sense::Repetition => format!("it answers a fixed question with one thing over and over ({begins:?})"),
        })
    }
}

/// Judges a text. The first quarter may be anything: what matters is how it goes on. A loop of a whole sentence, which
/// small models fall into, is no repetition in this sense: the unit must come [`TIMES`] times within the few tokens that
/// were asked for.
pub fn sense(text: &str) -> Sense {
    let text = text.trim();
    let readable = |c: char| !c.is_whitespace() && !c.is_control() && c != char::REPLACEMENT_CHARACTER;
    if !text.chars().any(readable) {
        return Sense::Empty;
    }
    let chars: Vec<char> = text.chars().collect();
    let rest = &chars[chars.len() / 4..];
    let repeats = |period: usize| rest.iter().zip(&rest[period..]).all(|(a, b)| a == b);
    if (1..=rest.len() / TIMES).any(repeats) { Sense::Repetition } else { Sense::Ok }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_make_sense() {
        for text in [
            " Wednesday, Thursday, Friday, Saturday, Sunday.\n\nName the months of the year",
            " and",
            "2",
            "!!!",
            " Wednesday",
            // Greedy decoding of a weak model: a loop, and no broken engine.
            " The days of the week are the days of the week are the days of the week are",
            " the of and a to in is that it was for on are as with his they at be this have",
            "星期三、星期四、星期五、星期六、星期日。一月、二月、三月、四月",
        ] {
            assert_eq!(sense(text), Sense::Ok, "{text}");
        }
    }

    #[test]
    fn answers_that_make_none() {
        for (text, expected) in [
            ("", Sense::Empty),
            (" \n\n\t ", Sense::Empty),
            ("\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}", Sense::Empty),
            ("!!!!!!!!!!!!!!!!!!!!!!!!", Sense::Repetition),
            ("!!!!!!!!!!", Sense::Repetition),
            (" Wed!!!!!!!!!!!!!!!!!!!!", Sense::Repetition),
        ] {
            assert_eq!(sense(text), expected, "{text:?}");
        }
        assert_eq!(sense(&" Administration".repeat(24)), Sense::Repetition);
        assert_eq!(sense(&" yes no".repeat(12)), Sense::Repetition);
    }

    #[test]
    fn what_is_kept_says_what_is_wrong() {
        let bad = Sanity { logprobs: vec![f64::NAN, -1.0, -3.0], ..Sanity::of("chat", &"!".repeat(1000)) };
        assert_eq!((bad.text.len(), bad.mean_logprob()), (KEPT, Some(-2.0)));
        assert!(bad.complaint().unwrap().contains("over and over"));
        let good = Sanity::of("chat", " Wednesday");
        assert_eq!((good.complaint(), good.mean_logprob()), (None, None));
        let back: Sanity = serde_json::from_str(&serde_json::to_string(&good).unwrap()).unwrap();
        assert_eq!(back, good);
    }
}
