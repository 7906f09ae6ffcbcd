//! Common short English words. With a leading space each is one token in nearly every BPE vocabulary.

/// The words, sorted.
#[rustfmt::skip]
pub const WORDS: &[&str] = &[
    "able", "about", "above", "across", "add", "after", "again", "against", "age", "ago", "air", "all", "almost",
    "along", "also", "always", "among", "and", "animal", "another", "answer", "any", "are", "area", "around", "ask",
    "away", "back", "beauty", "because", "become", "been", "before", "began", "begin", "behind", "being", "below",
    "best", "better", "between", "big", "black", "blue", "boat", "body", "book", "both", "box", "boy", "bring",
    "brought", "but", "call", "came", "can", "car", "carry", "change", "check", "children", "city", "clear", "close",
    "color", "come", "common", "complete", "could", "country", "course", "cry", "cut", "dark", "day", "decide",
    "deep", "develop", "did", "different", "does", "dog", "done", "door", "down", "draw", "drive", "dry", "during",
    "each", "early", "earth", "east", "easy", "eat", "end", "enough", "even", "ever", "every", "example", "eye",
    "face", "fact", "family", "far", "farm", "fast", "father", "feet", "few", "field", "figure", "fill", "final",
    "find", "fine", "first", "fish", "five", "follow", "food", "foot", "for", "force", "form", "found", "four",
    "free", "friends", "from", "front", "full", "game", "gave", "get", "girl", "give", "gold", "good", "got", "great",
    "green", "group", "grow", "had", "hand", "hard", "has", "have", "head", "hear", "heard", "heat", "help", "her",
    "here", "high", "him", "himself", "his", "hold", "home", "horse", "hot", "hours", "house", "how", "however",
    "hundred", "idea", "important", "into", "island", "its", "just", "keep", "kind", "knew", "know", "land",
    "language", "large", "last", "later", "laugh", "learn", "leave", "led", "left", "let", "letter", "life", "light",
    "like", "line", "list", "listen", "little", "live", "long", "look", "low", "machine", "made", "make", "man",
    "many", "map", "mark", "may", "mean", "measure", "men", "might", "mile", "mind", "minute", "miss", "money",
    "moon", "more", "morning", "most", "mother", "mountain", "move", "much", "music", "must", "name", "near", "need",
    "never", "new", "next", "night", "north", "not", "note", "nothing", "now", "number", "object", "ocean", "off",
    "often", "old", "once", "one", "only", "open", "order", "other", "our", "out", "over", "own", "page", "paint",
    "paper", "part", "passed", "pattern", "people", "picture", "piece", "place", "plan", "plane", "play", "point",
    "possible", "pound", "power", "problem", "produce", "products", "put", "question", "quick", "ran", "reached",
    "read", "really", "record", "red", "remember", "rest", "right", "river", "rock", "room", "run", "said", "same",
    "saw", "say", "school", "sea", "second", "see", "seem", "set", "several", "shape", "she", "ship", "short",
    "should", "show", "side", "since", "small", "snow", "some", "something", "song", "soon", "sound", "space",
    "special", "spell", "stand", "star", "start", "state", "stay", "step", "still", "stop", "story", "street",
    "strong", "study", "such", "sun", "sure", "surface", "system", "table", "tail", "take", "talk", "teach", "tell",
    "test", "than", "that", "the", "their", "them", "then", "there", "these", "they", "thing", "think", "this",
    "those", "thought", "thousand", "three", "through", "time", "today", "together", "told", "too", "took", "top",
    "toward", "town", "tree", "true", "try", "turn", "two", "under", "until", "use", "very", "voice", "wait", "walk",
    "want", "warm", "was", "watch", "water", "way", "week", "well", "went", "were", "what", "wheel", "when", "where",
    "which", "while", "white", "who", "whole", "why", "will", "wind", "with", "without", "wonder", "word", "work",
    "world", "would", "write", "year", "yes", "you", "young", "your",
];

#[cfg(test)]
mod tests {
    use super::WORDS;

    #[test]
    fn words_are_distinct_plain_and_many() {
        assert!(WORDS.windows(2).all(|w| w[0] < w[1]));
        assert!(WORDS.iter().all(|w| w.len() >= 2 && w.bytes().all(|b| b.is_ascii_lowercase())));
        assert!(WORDS.len() >= 256);
    }
}
