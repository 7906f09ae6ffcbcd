//! The part of a tokenizer that decides over plain words. Vocabularies of 128,000 tokens take more than half a second to
//! load; the words that prompts are made of need a tenth of them.
//!
//! What is left out cannot show in a text of these words: a piece of text only ever becomes a token whose characters
//! stand in it side by side, so tokens that are no part of any of the words are of no consequence, nor are the merges that
//! lead to them. Tokens that reach over a space stay, as do single characters, bytes, and whatever the file names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// Words that are kept: the first of the vocabulary, which are the most frequent ones.
const WORDS: usize = 4500;
/// How byte-level and SentencePiece vocabularies write a space.
pub const SPACES: [char; 2] = ['Ġ', '▁'];

type Fields<'a> = BTreeMap<&'a str, &'a RawValue>;

/// A `tokenizer.json` that makes the same tokens of texts of its own most frequent words. `None` where the file is of a
/// kind that this is not known to hold for.
pub fn slim(json: &[u8]) -> Option<Vec<u8>> {
    let file: Fields = serde_json::from_slice(json).ok()?;
    let model: Fields = serde_json::from_str(file.get("model")?.get()).ok()?;
    let unset = |field: &str| model.get(field).is_none_or(|v| matches!(v.get(), "null" | r#""""#));
    let named = named(&file, &model)?;
    let replaced = match text(model.get("type")?)? {
        "BPE" if unset("continuing_subword_prefix") && unset("end_of_word_suffix") => bpe(&model, &named)?,
        "WordPiece" | "WordLevel" => {
            let vocabulary: Numbered = parse(model.get("vocab")?)?;
            let kept = kept(vocabulary.0, &named);
            vec![("vocab", renumbered(&kept)?)]
        }
        "Unigram" => unigram(&model, &named)?,
        _ => return None,
    };
    let mut model: BTreeMap<&str, Box<RawValue>> = model.into_iter().map(|(k, v)| (k, v.to_owned())).collect();
    model.extend(replaced);
    let mut file: BTreeMap<&str, Box<RawValue>> = file.into_iter().map(|(k, v)| (k, v.to_owned())).collect();
    file.insert("model", to_raw_value(&model).ok()?);
    serde_json::to_vec(&file).ok()
}

type Replaced = Vec<(&'static str, Box<RawValue>)>;

fn bpe<'a>(model: &Fields<'a>, named: &HashSet<Cow<'a, str>>) -> Option<Replaced> {
    let vocabulary: Numbered<'a> = parse(model.get("vocab")?)?;
    let merges: Vec<Merge<'a>> = parse(model.get("merges")?)?;
    let kept = kept(vocabulary.0, named);
    let mut names: HashSet<&str> = kept.iter().map(|(token, _)| token.as_ref()).collect();
    let mut whole = String::new();
    let mut left: Vec<&Merge> = Vec::new();
    // What is merged was made by merges before: from the last to the first, all parts of what is kept are found.
    for merge in merges.iter().rev() {
        whole.clear();
        whole.extend([merge.0.as_ref(), merge.1.as_ref()]);
        if names.contains(whole.as_str()) {
            names.extend([merge.0.as_ref(), merge.1.as_ref()]);
            left.push(merge);
        }
    }
    let known: HashSet<&str> = kept.iter().map(|(token, _)| token.as_ref()).collect();
    if names.len() != known.len() {
        return None;
    }
    left.reverse();
    let pairs: Vec<[&str; 2]> = left.iter().map(|m| [m.0.as_ref(), m.1.as_ref()]).collect();
    Some(vec![("vocab", renumbered(&kept)?), ("merges", to_raw_value(&pairs).ok()?)])
}

fn unigram<'a>(model: &Fields<'a>, named: &HashSet<Cow<'a, str>>) -> Option<Replaced> {
    let pieces: Vec<(Text<'a>, f64)> = parse(model.get("vocab")?)?;
    let unknown: Option<u32> = model.get("unk_id").and_then(|v| parse(v));
    let mut named = named.clone();
    named.extend(unknown.and_then(|i| pieces.get(i as usize)).map(|(piece, _)| piece.0.clone()));
    let numbered = pieces.iter().zip(0..).map(|((piece, _), id)| (piece.0.clone(), id)).collect();
    let kept = kept(numbered, &named);
    let left: Vec<_> = kept.iter().map(|(piece, id)| (piece, pieces[*id as usize].1)).collect();
    let mut replaced = vec![("vocab", to_raw_value(&left).ok()?)];
    if let Some(unknown) = unknown {
        let moved = kept.iter().position(|(_, id)| *id == unknown)?;
        replaced.push(("unk_id", to_raw_value(&moved).ok()?));
    }
    Some(replaced)
}

/// Tokens that the file speaks of outside its vocabulary.
fn named<'a>(file: &Fields<'a>, model: &Fields<'a>) -> Option<HashSet<Cow<'a, str>>> {
    #[derive(Deserialize)]
    struct Added<'a> {
        #[serde(borrow)]
        content: Cow<'a, str>,
    }
    let added: Vec<Added<'a>> = match file.get("added_tokens") {
        Some(added) => parse(added)?,
        None => Vec::new(),
    };
    let unknown: Option<Cow<'a, str>> =
        model.get("unk_token").and_then(|v| parse::<Option<Text>>(v)).flatten().map(|t| t.0);
    Some(added.into_iter().map(|a| a.content).chain(unknown).collect())
}

/// What matters for texts of the first words, in the order of the ids.
fn kept<'a>(mut vocabulary: Vec<(Cow<'a, str>, u32)>, named: &HashSet<Cow<'a, str>>) -> Vec<(Cow<'a, str>, u32)> {
    vocabulary.sort_unstable_by_key(|(_, id)| *id);
    let spaced: Vec<&str> = vocabulary.iter().map(|(t, _)| t.as_ref()).filter(|t| spaced_word(t).is_some()).collect();
    let words = if spaced.is_empty() {
        vocabulary.iter().map(|(t, _)| t.as_ref()).filter(|t| plain(t)).take(WORDS).collect()
    } else {
        spaced.into_iter().take(WORDS).collect::<Vec<_>>()
    };
    let parts: HashSet<&str> = words.iter().flat_map(|word| parts(word)).collect();
    let matters = |token: &str| {
        parts.contains(token)
            || parts.contains(token.strip_prefix("##").unwrap_or(token))
            || token.chars().nth(1).is_none()
            || token.starts_with("<0x")
            || reaches_over_a_space(token)
            || named.contains(token)
    };
    let matter: Vec<bool> = vocabulary.iter().map(|(token, _)| matters(token)).collect();
    let mut matter = matter.into_iter();
    vocabulary.retain(|_| matter.next().unwrap_or(true));
    vocabulary
}

/// The word of a token that is a space and a plain word.
pub fn spaced_word(token: &str) -> Option<&str> {
    token.strip_prefix(SPACES).filter(|word| plain(word))
}

/// Two letters or more, and nothing else.
pub fn plain(word: &str) -> bool {
    word.len() >= 2 && word.bytes().all(|b| b.is_ascii_alphabetic())
}

fn reaches_over_a_space(token: &str) -> bool {
    token.chars().skip(1).any(|c| SPACES.contains(&c))
        && token.chars().all(|c| c.is_ascii_alphabetic() || SPACES.contains(&c))
}

/// Everything that stands side by side in a word.
fn parts(word: &str) -> impl Iterator<Item = &str> {
    let ends = |from: usize| word[from..].char_indices().map(move |(at, c)| from + at + c.len_utf8());
    word.char_indices().flat_map(move |(from, _)| ends(from).map(move |to| &word[from..to]))
}

fn renumbered(kept: &[(Cow<str>, u32)]) -> Option<Box<RawValue>> {
    let numbered: BTreeMap<&str, usize> = kept.iter().map(|(token, _)| token.as_ref()).zip(0..).collect();
    to_raw_value(&numbered).ok()
}

fn parse<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn text(raw: &RawValue) -> Option<&str> {
    parse(raw)
}

/// A string, borrowed where the file has it without escapes.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A vocabulary: tokens and their ids, as they stand in the file.
struct Numbered<'a>(Vec<(Cow<'a, str>, u32)>);

impl<'de> Deserialize<'de> for Numbered<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Numbered<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some((token, id)) = map.next_entry::<Text<'de>, u32>()? {
                    all.push((token.0, id));
                }
                Ok(Numbered(all))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Two tokens that become one; written as a pair, or in older files with a space between them.
struct Merge<'a>(Cow<'a, str>, Cow<'a, str>);

impl<'de> Deserialize<'de> for Merge<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("two tokens")
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                let (a, b) = text.split_once(' ').ok_or_else(|| E::custom("no space"))?;
                Ok(Merge(a.into(), b.into()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let (a, b) = text.split_once(' ').ok_or_else(|| E::custom("no space"))?;
                Ok(Merge(a.to_string().into(), b.to_string().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Self::Value, A::Error> {
                let mut next = || pair.next_element::<Text<'de>>();
                match (next()?, next()?, next()?) {
                    (Some(a), Some(b), None) => Ok(Merge(a.0, b.0)),
                    _ => Err(serde::de::Error::custom("not two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Pair)
    }
}
