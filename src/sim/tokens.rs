//! The simulator's tokenizer and its prose. A word between white space is one token per started 8 characters; an answer is
//! made of words of at most 8 characters with a space in front, so that text re-tokenizes to the length it was made with,
//! tokens with empty text excepted.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Characters per token.
const CHARS: usize = 8;

/// Token ids of a text. Equal pieces have equal ids.
pub fn encode(text: &str) -> impl Iterator<Item = u32> {
    text.split_whitespace().flat_map(|word| {
        let mut rest = word;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let cut = rest.char_indices().nth(CHARS).map_or(rest.len(), |(at, _)| at);
            let (piece, next) = rest.split_at(cut);
            rest = next;
            Some(hash(piece.as_bytes()))
        })
    })
}

/// Token ids of a text with the token that starts every text.
pub fn with_bos(text: &str) -> impl Iterator<Item = u32> {
    std::iter::once(1).chain(encode(text))
}

fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

const WORDS: &[&str] = &[
    " the", " of", " and", " a", " to", " in", " is", " that", " it", " was", " for", " on", " are", " as", " with",
    " his", " they", " at", " be", " this", " have", " from", " or", " one", " had", " by", " word", " but", " not",
    " what", " all", " were", " we", " when", " your", " can", " said", " there", " use", " an", " each", " which",
    " she", " do", " how", " their", " if", " will", " up", " other", " about", " out", " many", " then", " them",
    " these", " so", " some", " her", " would", " make", " like", " him", " into", " time", " has", " look", " two",
    " more", " write", " go", " see", " number", " no", " way", " could", " people", " my", " than", " first",
    " water", " been", " call", " who", " oil", " its", " now", " find", " long", " down", " day", " did", " get",
    " come", " made", " may", " part",
];

/// Text whose bytes are more than its characters.
const WIDE: &[&str] = &[" café", " naïve", " Zürich", " 東京", " мир", " 🙂", " €5", " señor"];

/// One word in so many is a wide one, on average.
const WIDE_EVERY: u32 = 40;

/// The text of one answer, token by token.
#[derive(Debug)]
pub struct Prose {
    rng: ChaCha8Rng,
    empty: f64,
    first: bool,
    /// Every token, of an engine that makes no sense.
    always: Option<&'static str>,
}

impl Prose {
    /// `empty` is the share of tokens without text.
    pub fn new(seed: u64, empty: f64) -> Prose {
        Prose { rng: ChaCha8Rng::seed_from_u64(seed), empty, first: true, always: None }
    }

    /// The same token over and over.
    pub fn always(token: &'static str) -> Prose {
        Prose { always: Some(token), ..Prose::new(0, 0.0) }
    }

    /// The next token's text; the first one is never empty.
    pub fn next(&mut self) -> &'static str {
        if let Some(token) = self.always {
            return token;
        }
        let first = std::mem::replace(&mut self.first, false);
        if !first && self.empty > 0.0 && self.rng.random::<f64>() < self.empty {
            return "";
        }
        let list = if self.rng.random_range(0..WIDE_EVERY) == 0 { WIDE } else { WORDS };
        list[self.rng.random_range(0..list.len())]
    }
}

/// A well-mixed number from two.
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cost_one_token_per_eight_characters() {
        for (text, tokens) in [
            ("", 0),
            ("a", 1),
            ("eightlet", 1),
            ("ninelette", 2),
            ("  two\n words\t", 2),
            ("日本語日本語日本", 1),
            ("日本語日本語日本語", 2),
        ] {
            assert_eq!(encode(text).count(), tokens, "{text}");
        }
        assert_eq!(encode("the cat the").collect::<Vec<_>>()[0], encode("the").next().unwrap());
        assert_ne!(encode("the").next(), encode("cat").next());
    }

    #[test]
    fn prose_tokenizes_to_its_own_length_and_is_seeded() {
        let text = |seed| {
            let mut p = Prose::new(seed, 0.0);
            (0..2000).map(|_| p.next()).collect::<String>()
        };
        assert_eq!(encode(&text(1)).count(), 2000);
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
        assert!(!text(1).is_ascii());
    }

    #[test]
    fn some_tokens_have_no_text_but_never_the_first() {
        let mut empty = 0;
        for seed in 0..200 {
            let mut p = Prose::new(seed, 0.03);
            assert!(!p.next().is_empty());
            empty += (0..100).filter(|_| p.next().is_empty()).count();
        }
        assert!((400..800).contains(&empty), "about 3 % of 20000: {empty}");
    }
}
