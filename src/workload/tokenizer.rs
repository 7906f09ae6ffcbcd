//! Text of exactly so many tokens, made with the model's own tokenizer. Random token ids do not survive decoding and
//! encoding again; words that are one token each wherever they stand after another word do. They are found once, when the
//! tokenizer is loaded, so that making a prompt takes no tokenizing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use tokenizers::Tokenizer;

use super::seeded::{below_u32, generator};
use super::vocabulary::{self, plain, spaced_word};

/// Words that are kept, at most: enough variety for anything that depends on which tokens are sent, such as the experts
/// of a mixture.
const MOST_WORDS: usize = 4096;
/// Words without which prompts would be too much alike.
const LEAST_WORDS: usize = 64;
/// Texts that must have the length they were made with, and their words.
const CHECKS: u64 = 8;
const CHECKED_WORDS: u32 = 512;

/// Why a tokenizer cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TokenizerError {
    #[error("it is not a tokenizer.json that can be read: {0}")]
    Unreadable(String),
    #[error("it has only {found} words that stay one token in a text, and {LEAST_WORDS} are needed")]
    TooFewWords { found: usize },
    #[error("a text of {words} words that should be one token each is {tokens} tokens")]
    Unstable { words: u32, tokens: usize },
}

/// Makes text of exact lengths. Cloning shares the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenText {
    /// Words that may follow another one, each with the space before it.
    words: Arc<[Box<str>]>,
    /// Words, without a space, that may start a text.
    firsts: Arc<[Box<str>]>,
    special_tokens: u32,
}

impl TokenText {
    /// From the content of a `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<TokenText, TokenizerError> {
        // The part that decides over plain words makes the same tokens of them, and is there in a fraction of the time.
        let slim = vocabulary::slim(json).and_then(|slim| TokenText::of(&slim).ok());
        slim.map_or_else(|| TokenText::of(json), Ok)
    }

    fn of(json: &[u8]) -> Result<TokenText, TokenizerError> {
        let mut tokenizer =
            Tokenizer::from_bytes(json).map_err(|e| TokenizerError::Unreadable(first_line(&e.to_string())))?;
        // What a server does to whole batches and contexts is none of the text's business.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| TokenizerError::Unreadable(first_line(&e.to_string())))?;
        let found = |found| TokenizerError::TooFewWords { found };
        let candidates = candidates(&tokenizer);
        let start = candidates.values().find(|word| tokens(&tokenizer, word, false) == Some(1)).ok_or(found(0))?;
        let stays = |id: u32, word: &str| {
            let encoded = tokenizer.encode(format!("{start} {word}"), false).ok()?;
            (encoded.len() == 2 && encoded.get_ids()[1] == id).then_some(())
        };
        let words: Vec<&str> = candidates
            .iter()
            .filter(|(id, word)| stays(**id, word).is_some())
            .map(|(_, word)| word.as_str())
            .take(MOST_WORDS)
            .collect();
        let firsts: Vec<Box<str>> =
            words.iter().filter(|w| tokens(&tokenizer, w, false) == Some(1)).map(|w| Box::from(*w)).collect();
        if words.len() < LEAST_WORDS || firsts.is_empty() {
            return Err(found(words.len()));
        }
        let words: Vec<Box<str>> = words.iter().map(|w| format!(" {w}").into_boxed_str()).collect();
        let bare = tokens(&tokenizer, start, false).unwrap_or(0);
        let special_tokens = tokens(&tokenizer, start, true).unwrap_or(bare).saturating_sub(bare) as u32;
        let text = TokenText { words: words.into(), firsts: firsts.into(), special_tokens };
        text.check(&tokenizer)?;
        Ok(text)
    }

    /// Tokens that the tokenizer itself adds to a text, such as the one that begins a sequence.
    pub fn special_tokens(&self) -> u32 {
        self.special_tokens
    }

    /// Appends text of exactly this many tokens, drawn from the generator.
    pub fn push(&self, text: &mut String, rng: &mut ChaCha8Rng, tokens: u32) {
        for _ in 0..tokens {
            let from = if text.is_empty() { &self.firsts } else { &self.words };
            text.push_str(&from[below_u32(rng, from.len() as u32) as usize]);
        }
    }

    /// Words may still join in ways that pairs do not show.
    fn check(&self, tokenizer: &Tokenizer) -> Result<(), TokenizerError> {
        for n in 0..CHECKS {
            let mut text = String::new();
            self.push(&mut text, &mut generator("tokenizer check", &[&n.to_le_bytes()]), CHECKED_WORDS);
            let found = tokens(tokenizer, &text, false).unwrap_or(0);
            if found != CHECKED_WORDS as usize {
                return Err(TokenizerError::Unstable { words: CHECKED_WORDS, tokens: found });
            }
        }
        Ok(())
    }
}

/// Tokens of the vocabulary that are a space and a plain word, by id.
fn candidates(tokenizer: &Tokenizer) -> BTreeMap<u32, String> {
    let vocabulary = || tokenizer.get_vocab(false).into_iter();
    let spaced: BTreeMap<u32, String> =
        vocabulary().filter_map(|(token, id)| Some((id, spaced_word(&token)?.to_string()))).collect();
    if !spaced.is_empty() {
        return spaced;
    }
    // WordPiece and word-level vocabularies leave the space out.
    vocabulary().filter(|(token, _)| plain(token)).map(|(token, id)| (id, token)).collect()
}

fn tokens(tokenizer: &Tokenizer, text: &str, special: bool) -> Option<usize> {
    tokenizer.encode(text, special).ok().map(|encoded| encoded.len())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
    use tokenizers::models::unigram::{Unigram, UnigramTrainerBuilder};
    use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainerBuilder};
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
    use tokenizers::pre_tokenizers::whitespace::Whitespace;
    use tokenizers::processors::template::TemplateProcessing;
    use tokenizers::{AddedToken, Model, PostProcessorWrapper, PreTokenizerWrapper, Trainer};

    use super::super::words::WORDS;
    use super::*;

    /// A corpus in which common words are frequent enough to become tokens.
    fn corpus() -> Vec<String> {
        let mut rng = generator("corpus", &[]);
        let word = |rng: &mut ChaCha8Rng| WORDS[below_u32(rng, WORDS.len() as u32) as usize];
        (0..400).map(|_| (0..40).map(|_| word(&mut rng)).collect::<Vec<_>>().join(" ")).collect()
    }

    fn trained<M, T>(model: M, mut trainer: T, pre: impl Into<PreTokenizerWrapper>) -> Tokenizer
    where
        M: Into<tokenizers::ModelWrapper>,
        T: Trainer<Model = M> + Sync,
        M: Model + Clone + Send + Sync,
    {
        let pre = pre.into();
        let mut learning = tokenizers::TokenizerImpl::<
            M,
            tokenizers::NormalizerWrapper,
            PreTokenizerWrapper,
            PostProcessorWrapper,
            tokenizers::DecoderWrapper,
        >::new(model);
        learning.with_pre_tokenizer(Some(pre.clone()));
        learning.train(&mut trainer, corpus().iter().map(String::as_str)).unwrap();
        let mut tokenizer = Tokenizer::new(learning.get_model().clone());
        tokenizer.with_pre_tokenizer(Some(pre));
        tokenizer
    }

    /// Byte-level BPE as most models have it, with a token that begins every text.
    pub(crate) fn byte_level() -> Tokenizer {
        let trainer = BpeTrainerBuilder::new()
            .vocab_size(1400)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from("<s>", true)])
            .build();
        let mut tokenizer = trained(BPE::default(), trainer, ByteLevel::new(false, true, true));
        let mut bos = TemplateProcessing::builder();
        bos.try_single("<s> $A").unwrap().special_tokens(vec![("<s>", 0)]);
        tokenizer.with_post_processor(Some(bos.build().unwrap()));
        tokenizer
    }

    pub(crate) fn json(tokenizer: &Tokenizer) -> Vec<u8> {
        tokenizer.to_string(false).unwrap().into_bytes()
    }

    fn exact(tokenizer: &Tokenizer) -> TokenText {
        let json = json(tokenizer);
        let text = TokenText::from_json(&json).unwrap();
        // The part decides as the whole does.
        let slim = vocabulary::slim(&json).unwrap();
        assert!(slim.len() <= json.len(), "{} of {}", slim.len(), json.len());
        assert_eq!(TokenText::of(&slim).unwrap(), TokenText::of(&json).unwrap());
        let mut rng = generator("exact", &[]);
        for n in [1, 2, 3, 17, 500, 3000] {
            let mut made = String::new();
            text.push(&mut made, &mut rng, n);
            assert_eq!(tokens(tokenizer, &made, false), Some(n as usize), "{made:.80}");
        }
        text
    }

    #[test]
    fn text_has_exactly_the_tokens_it_was_made_with() {
        let byte_level = byte_level();
        let text = exact(&byte_level);
        assert_eq!(text.special_tokens(), 1);
        assert!(text.words.len() > 200, "{}", text.words.len());

        let metaspace = Metaspace::new('▁', PrependScheme::Always, true);
        let unigram = UnigramTrainerBuilder::default().vocab_size(1200).show_progress(false).build().unwrap();
        assert_eq!(exact(&trained(Unigram::default(), unigram, metaspace)).special_tokens(), 0);
        let wordpiece = WordPieceTrainerBuilder::default().vocab_size(1500).show_progress(false).build();
        let model = WordPiece::builder().unk_token("the".into()).build().unwrap();
        exact(&trained(model, wordpiece, Whitespace {}));
    }

    #[test]
    fn parts_join_without_losing_a_token() {
        let tokenizer = byte_level();
        let text = TokenText::from_json(&json(&tokenizer)).unwrap();
        let mut made = String::new();
        text.push(&mut made, &mut generator("prefix", &[]), 40);
        let prefix = made.clone();
        text.push(&mut made, &mut generator("own", &[]), 24);
        assert!(made.starts_with(&prefix));
        assert_eq!(tokens(&tokenizer, &made, false), Some(64));
    }

    #[test]
    fn what_is_no_use_is_refused() {
        assert!(matches!(TokenText::from_json(b"{}"), Err(TokenizerError::Unreadable(_))));
        // Every word is several tokens.
        let letters = BpeTrainerBuilder::new()
            .vocab_size(256)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let tokenizer = trained(BPE::default(), letters, ByteLevel::new(false, true, true));
        assert_eq!(TokenText::from_json(&json(&tokenizer)).unwrap_err(), TokenizerError::TooFewWords { found: 0 });
    }
}
