//! The prompts of a sample: request number in, prompt out. A pure function of (seed, salt, sample, request), so that
//! every request of every sample has content of its own and a prefix cache finds nothing that was not asked for.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;

use super::dataset::{self, Row};
use super::seeded::{below, below_u32, generator};
use super::tokenizer::TokenText;
use super::words::WORDS;
use super::{TokenLengths, Workload, WorkloadError, lengths};
use crate::wire::request::Prompt;

/// Token ids that prompts are drawn from: above the control, byte and reserved ids that tokenizers keep at the start of
/// their vocabulary (up to 1,000 in the families we know), below the end of the smallest vocabularies in use (4,096).
pub const TOKEN_IDS: std::ops::Range<u32> = 1000..4000;

/// How many tokens a text of words is, measured on the server: `overhead_tokens + words × tokens_per_word`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextCalibration {
    /// Tokens that the server adds to any prompt: begin-of-sequence, chat template.
    pub overhead_tokens: f64,
    pub tokens_per_word: f64,
    /// Measured; otherwise one token a word is assumed.
    pub measured: bool,
}

impl Default for TextCalibration {
    fn default() -> Self {
        TextCalibration { overhead_tokens: 0.0, tokens_per_word: 1.0, measured: false }
    }
}

impl TextCalibration {
    /// The line through two measured points, each (words, tokens). `None` when they do not describe growing text.
    pub fn from_points(short: (u32, u64), long: (u32, u64)) -> Option<TextCalibration> {
        let words = f64::from(long.0) - f64::from(short.0);
        let tokens = long.1 as f64 - short.1 as f64;
        let per_word = tokens / words;
        (words > 0.0 && per_word > 0.0).then(|| TextCalibration {
            overhead_tokens: short.1 as f64 - per_word * f64::from(short.0),
            tokens_per_word: per_word,
            measured: true,
        })
    }

    /// Words of a prompt of `tokens` tokens, at least one.
    pub fn words_for(&self, tokens: u32) -> u32 {
        ((f64::from(tokens) - self.overhead_tokens) / self.tokens_per_word).round().max(1.0) as u32
    }

    fn prefix_words(&self, tokens: u32) -> u32 {
        (f64::from(tokens) / self.tokens_per_word).round() as u32
    }
}

/// What synthetic prompts are made of.
#[derive(Clone, Debug)]
pub enum Form {
    Ids,
    /// Common words, as many as the calibration says.
    Text(TextCalibration),
    /// Words that are one token each, for a server that adds `overhead` tokens of its own to every prompt.
    Tokens {
        text: TokenText,
        overhead: u32,
    },
}

/// Which requests of a sample are meant; each phase has its own content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Warmup,
    Measured,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Warmup => "warmup",
            Phase::Measured => "measured",
        }
    }
}

/// One request to send.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRequest {
    pub prompt: Prompt,
    /// Tokens asked for; `None` for the prompts of a data set.
    pub input_tokens: Option<u32>,
    pub output_tokens: u32,
    /// Sampling seed; only where sampling is random.
    pub seed: Option<u64>,
}

/// The prompts of one sample. Cloning shares a data set.
#[derive(Clone, Debug)]
pub struct Prompts {
    tokens: TokenLengths,
    seed: u64,
    sampled: bool,
    salt: Vec<u8>,
    sample: u32,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Synthetic(Form),
    Rows { rows: Arc<[Row]>, order: Arc<[u32]> },
}

impl Prompts {
    /// `salt` tells units apart (the bytes of a unit id). `content` is the data set's file, where the workload has one.
    pub fn new(
        workload: &Workload,
        form: Form,
        content: Option<&[u8]>,
        salt: &[u8],
        sample: u32,
    ) -> Result<Prompts, WorkloadError> {
        workload.check()?;
        let source = match &workload.dataset {
            None => Source::Synthetic(form),
            Some(set) => {
                let format = dataset::Format::of(set.format.as_deref(), &set.path)?;
                let content = content.ok_or_else(|| WorkloadError::NoContent(set.path.clone()))?;
                let rows = dataset::read(&set.path, format, content)?;
                if workload.tokens.output.is_none()
                    && let Some(row) = rows.iter().position(|r| r.output_tokens.is_none())
                {
                    return Err(WorkloadError::RowOutput { path: set.path.clone(), row: row + 1 });
                }
                Source::Rows { order: shuffled(rows.len(), workload.seed), rows: rows.into() }
            }
        };
        Ok(Prompts {
            tokens: workload.tokens.clone(),
            seed: workload.seed,
            sampled: workload.temperature > 0.0,
            salt: salt.to_vec(),
            sample,
            source,
        })
    }

    /// The rows of the data set, where there is one.
    pub fn rows(&self) -> &[Row] {
        match &self.source {
            Source::Rows { rows, .. } => rows,
            Source::Synthetic(_) => &[],
        }
    }

    /// Request `index` of a phase.
    pub fn get(&self, phase: Phase, index: u64) -> PlannedRequest {
        let drawn = lengths::draw(&self.tokens, self.seed, phase.name(), index);
        let seed = self.sampled.then(|| self.seed.wrapping_add(index) & (u64::MAX >> 1));
        match &self.source {
            Source::Synthetic(form) => PlannedRequest {
                prompt: self.synthetic(form, phase, index, drawn.input),
                input_tokens: Some(drawn.input),
                output_tokens: drawn.output.unwrap_or(1),
                seed,
            },
            Source::Rows { rows, order } => {
                let row = &rows[order[row_index(phase, index, rows.len())] as usize];
                let output_tokens = drawn.output.or(row.output_tokens).unwrap_or(1);
                PlannedRequest { prompt: row.prompt.clone(), input_tokens: None, output_tokens, seed }
            }
        }
    }

    fn synthetic(&self, form: &Form, phase: Phase, index: u64, input: u32) -> Prompt {
        let mut own = self.content("prompt", &[phase.name().as_bytes(), &index.to_le_bytes()]);
        let shared = (self.tokens.shared_prefix > 0).then(|| {
            let group = index % u64::from(self.tokens.prefix_groups.max(1));
            self.content("prefix", &[&group.to_le_bytes()])
        });
        match form {
            Form::Ids => {
                let mut ids = Vec::with_capacity(input as usize);
                if let Some(mut shared) = shared {
                    ids.extend((0..self.tokens.shared_prefix).map(|_| token(&mut shared)));
                }
                ids.extend((ids.len()..input as usize).map(|_| token(&mut own)));
                Prompt::Ids(ids)
            }
            Form::Text(calibration) => {
                let total = calibration.words_for(input);
                let prefix = if shared.is_some() { calibration.prefix_words(self.tokens.shared_prefix) } else { 0 };
                let prefix = prefix.min(total.saturating_sub(1));
                let mut text = String::with_capacity(6 * total as usize);
                if let Some(mut shared) = shared {
                    push_words(&mut text, &mut shared, prefix);
                }
                push_words(&mut text, &mut own, total - prefix);
                Prompt::Text(text)
            }
            Form::Tokens { text: words, overhead } => {
                let total = input.saturating_sub(*overhead).max(1);
                let prefix = shared.as_ref().map_or(0, |_| self.tokens.shared_prefix.min(total - 1));
                let mut text = String::with_capacity(7 * total as usize);
                if let Some(mut shared) = shared {
                    words.push(&mut text, &mut shared, prefix);
                }
                words.push(&mut text, &mut own, total - prefix);
                Prompt::Text(text)
            }
        }
    }

    fn content(&self, purpose: &str, parts: &[&[u8]]) -> ChaCha8Rng {
        let seed = self.seed.to_le_bytes();
        let sample = self.sample.to_le_bytes();
        let mut all: Vec<&[u8]> = vec![&seed, &self.salt, &sample];
        all.extend_from_slice(parts);
        generator(purpose, &all)
    }
}

/// A text of exactly `words` words, its content told apart by `parts`; what calibration sends.
pub fn sample_text(words: u32, parts: &[&[u8]]) -> String {
    let mut text = String::new();
    push_words(&mut text, &mut calibration_generator(parts), words);
    text
}

/// What calibration texts are drawn from.
pub fn calibration_generator(parts: &[&[u8]]) -> ChaCha8Rng {
    generator("calibration", parts)
}

fn token(rng: &mut ChaCha8Rng) -> u32 {
    TOKEN_IDS.start + below_u32(rng, TOKEN_IDS.end - TOKEN_IDS.start)
}

fn push_words(text: &mut String, rng: &mut ChaCha8Rng, words: u32) {
    for _ in 0..words {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(WORDS[below_u32(rng, WORDS.len() as u32) as usize]);
    }
}

/// Measured requests take the rows from the front of the order, warm-up requests from its end, so that they meet only
/// when the data set is too small for both.
fn row_index(phase: Phase, index: u64, rows: usize) -> usize {
    let at = (index % rows as u64) as usize;
    match phase {
        Phase::Measured => at,
        Phase::Warmup => rows - 1 - at,
    }
}

/// A seeded order of the rows (Fisher–Yates); the same in every sample.
fn shuffled(rows: usize, seed: u64) -> Arc<[u32]> {
    let mut order: Vec<u32> = (0..rows as u32).collect();
    let mut rng = generator("rows", &[&seed.to_le_bytes()]);
    for i in (1..order.len()).rev() {
        order.swap(i, below(&mut rng, i as u64 + 1) as usize);
    }
    order.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::wire::Api;
    use crate::workload::{Arrival, Dataset};

    fn workload() -> Workload {
        Workload {
            api: Api::Completions,
            tokens: TokenLengths {
                input: Some(64),
                output: Some(16),
                input_stddev: 0.0,
                output_stddev: 0.0,
                input_range: None,
                shared_prefix: 0,
                prefix_groups: 1,
                turns: 1,
            },
            concurrency: Some(4),
            rate: None,
            arrival: Arrival::Poisson,
            burstiness: 1.0,
            requests: None,
            duration: None,
            warmup: 0,
            seed: 0,
            dataset: None,
            temperature: 0.0,
            ignore_eos: true,
        }
    }

    fn ids(p: &PlannedRequest) -> &[u32] {
        match &p.prompt {
            Prompt::Ids(ids) => ids,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_request_of_every_sample_has_its_own_content() {
        let mut seen = BTreeSet::new();
        for salt in [b"unit-a".as_slice(), b"unit-b"] {
            for sample in 0..3 {
                let prompts = Prompts::new(&workload(), Form::Ids, None, salt, sample).unwrap();
                for phase in [Phase::Warmup, Phase::Measured] {
                    for index in 0..20 {
                        let p = prompts.get(phase, index);
                        assert_eq!(p, prompts.get(phase, index));
                        assert_eq!(ids(&p).len(), 64);
                        assert!(ids(&p).iter().all(|t| TOKEN_IDS.contains(t)));
                        seen.insert(ids(&p)[..16].to_vec());
                    }
                }
            }
        }
        assert_eq!(seen.len(), 2 * 3 * 2 * 20);
    }

    #[test]
    fn a_shared_prefix_is_shared_within_its_group_only() {
        let mut w = workload();
        w.tokens.shared_prefix = 32;
        w.tokens.prefix_groups = 2;
        let prompts = Prompts::new(&w, Form::Ids, None, b"u", 0).unwrap();
        let p: Vec<PlannedRequest> = (0..3).map(|i| prompts.get(Phase::Measured, i)).collect();
        assert_eq!(ids(&p[0])[..32], ids(&p[2])[..32]);
        assert_ne!(ids(&p[0])[..32], ids(&p[1])[..32]);
        assert_ne!(ids(&p[0])[32..], ids(&p[2])[32..]);
        let next = Prompts::new(&w, Form::Ids, None, b"u", 1).unwrap();
        assert_ne!(ids(&p[0])[..32], ids(&next.get(Phase::Measured, 0))[..32]);
    }

    #[test]
    fn text_length_follows_the_calibration() {
        let calibration = TextCalibration::from_points((32, 59), (544, 1083)).unwrap();
        assert_eq!((calibration.tokens_per_word, calibration.overhead_tokens), (2.0, -5.0));
        let calibration = TextCalibration::from_points((32, 42), (544, 554)).unwrap();
        let prompts = Prompts::new(&workload(), Form::Text(calibration), None, b"u", 0).unwrap();
        let Prompt::Text(text) = prompts.get(Phase::Measured, 0).prompt else { panic!() };
        assert_eq!(text.split(' ').count(), 54);
        assert_eq!(TextCalibration::from_points((32, 42), (544, 42)), None);
        assert_eq!(calibration.words_for(3), 1);
    }

    #[test]
    fn text_of_tokens_has_the_length_asked_for_less_what_the_server_adds() {
        let tokenizer = crate::workload::tokenizer::tests::byte_level();
        let text = TokenText::from_json(&crate::workload::tokenizer::tests::json(&tokenizer)).unwrap();
        let mut w = workload();
        w.tokens.shared_prefix = 32;
        let prompts = Prompts::new(&w, Form::Tokens { text, overhead: 9 }, None, b"u", 0).unwrap();
        let made: Vec<String> = (0..20)
            .map(|i| match prompts.get(Phase::Measured, i).prompt {
                Prompt::Text(text) => text,
                other => panic!("{other:?}"),
            })
            .collect();
        for text in &made {
            assert_eq!(tokenizer.encode(text.as_str(), false).unwrap().len(), 64 - 9);
            let ids = |t: &str| tokenizer.encode(t, false).unwrap().get_ids().to_vec();
            assert_eq!(ids(text)[..32], ids(&made[0])[..32], "the shared prefix");
        }
        assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), 20);
    }

    #[test]
    fn a_data_set_gives_each_row_once_and_needs_lengths() {
        let mut w = workload();
        w.tokens.input = None;
        w.dataset = Some(Dataset { path: "d.jsonl".into(), format: None });
        let text: String = (0..10).map(|i| format!("{{\"prompt\":\"p{i}\",\"output_tokens\":{}}}\n", i + 1)).collect();
        let prompts = Prompts::new(&w, Form::Ids, Some(text.as_bytes()), b"u", 0).unwrap();
        let seen: BTreeSet<String> = (0..10).map(|i| format!("{:?}", prompts.get(Phase::Measured, i).prompt)).collect();
        assert_eq!(seen.len(), 10);
        assert_eq!(prompts.get(Phase::Measured, 0).output_tokens, 16);
        assert_eq!(prompts.get(Phase::Warmup, 0).prompt, prompts.get(Phase::Measured, 9).prompt);
        w.tokens.output = None;
        let prompts = Prompts::new(&w, Form::Ids, Some(text.as_bytes()), b"u", 0).unwrap();
        let first = prompts.get(Phase::Measured, 0);
        assert_eq!(first.prompt, Prompt::Text(format!("p{}", first.output_tokens - 1)));
        let e = Prompts::new(&w, Form::Ids, Some(b"{\"prompt\":\"x\"}"), b"u", 0).unwrap_err();
        assert!(e.to_string().contains("tokens.output"), "{e}");
        assert!(matches!(Prompts::new(&w, Form::Ids, None, b"u", 0), Err(WorkloadError::NoContent(_))));
    }

    #[test]
    fn what_is_not_generated_is_refused() {
        let refused = |change: fn(&mut Workload)| {
            let mut w = workload();
            change(&mut w);
            w.check().unwrap_err().to_string()
        };
        assert!(refused(|w| w.tokens.turns = 3).contains("turns"));
        assert!(refused(|w| w.tokens.input = None).contains("tokens.input"));
        assert!(refused(|w| w.tokens.output = None).contains("tokens.output"));
        assert!(refused(|w| w.tokens.shared_prefix = 64).contains("shared_prefix"));
        assert!(refused(|w| w.tokens.input_range = Some((9, 3))).contains("[9, 3]"));
        assert!(refused(|w| w.rate = Some(f64::NAN)).contains("rate"));
        assert!(refused(|w| w.dataset = Some(Dataset { path: "d".into(), format: None })).contains("tokens.input"));
    }
}
