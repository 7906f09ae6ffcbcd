//! Command lines as three libraries read them: Python's argparse, click, and GNU getopt. They differ in how names are
//! written, in the words of an error, and in the exit code.

use std::collections::BTreeMap;

use super::Refusal;
use super::flags::{Flags, Kind};

/// Whose rules and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `prog` names the program of an option's error, `outer` that of unknown options. `flexible`: `_` is `-`, and
    /// `--x.y 1` is a part of the JSON option `--x`, as vLLM has it.
    Argparse {
        prog: &'static str,
        outer: &'static str,
        flexible: bool,
    },
    Click {
        prog: &'static str,
    },
    Getopt {
        prog: &'static str,
    },
}

/// A command line that was understood.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// Name without `--` → its last words; a switch has `true` or `false`.
    values: BTreeMap<&'static str, Vec<String>>,
    /// All values of options that were given more than once, in order.
    all: Vec<(&'static str, String)>,
    positional: Vec<String>,
}

impl Arguments {
    /// Reads `words`. At most `positionals` words stand for themselves.
    pub fn read(style: Style, flags: &Flags, words: &[&str], positionals: usize) -> Result<Arguments, Refusal> {
        Reader { style, flags, words, at: 0, out: Arguments::default(), unknown: Vec::new() }.read(positionals)
    }

    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of the first of these names that was given: aliases.
    pub fn text(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|n| self.values.get(*n)?.first()).map(String::as_str)
    }

    pub fn all<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.all.iter().filter(move |(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// An integer that was checked when it was read.
    pub fn integer(&self, names: &[&str]) -> Option<u64> {
        self.text(names).and_then(size)
    }

    pub fn float(&self, names: &[&str]) -> Option<f64> {
        self.text(names)?.parse().ok()
    }

    /// Whether a switch is on; `None` when it was not given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.text(&[name]).map(|v| matches!(v, "true" | "True" | "1"))
    }

    pub fn positional(&self) -> &[String] {
        &self.positional
    }
}

/// `4096`, `4k` (4000), `4K` (4096) and so on.
fn size(text: &str) -> Option<u64> {
    let (number, factor) = match text.char_indices().next_back()? {
        (at, 'k') => (&text[..at], 1e3),
        (at, 'K') => (&text[..at], 1024.0),
        (at, 'm') => (&text[..at], 1e6),
        (at, 'M') => (&text[..at], 1_048_576.0),
        (at, 'g') => (&text[..at], 1e9),
        (at, 'G') => (&text[..at], 1_073_741_824.0),
        _ => return text.parse().ok(),
    };
    number.parse::<f64>().ok().filter(|n| *n >= 0.0).map(|n| (n * factor) as u64)
}

struct Reader<'a> {
    style: Style,
    flags: &'a Flags,
    words: &'a [&'a str],
    at: usize,
    out: Arguments,
    /// Options and words that nobody takes, as they were written.
    unknown: Vec<String>,
}

impl Reader<'_> {
    fn read(mut self, positionals: usize) -> Result<Arguments, Refusal> {
        while let Some(word) = self.words.get(self.at).copied() {
            self.at += 1;
            match word.strip_prefix("--").filter(|rest| !rest.is_empty()) {
                Some(rest) => self.option(word, rest)?,
                None if self.out.positional.len() < positionals && !word.starts_with('-') => {
                    self.out.positional.push(word.to_string());
                }
                None => match self.style {
                    Style::Argparse { .. } => self.unknown.push(word.to_string()),
                    _ => return Err(self.extra(word)),
                },
            }
        }
        match (self.style, self.unknown.as_slice()) {
            (_, []) => Ok(self.out),
            (Style::Argparse { outer, .. }, unknown) => {
                Err(argparse(outer, &format!("unrecognized arguments: {}", unknown.join(" "))))
            }
            (_, [first, ..]) => Err(self.extra(first)),
        }
    }

    fn option(&mut self, word: &str, rest: &str) -> Result<(), Refusal> {
        let (written, inline) = match rest.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (rest, None),
        };
        let flexible = matches!(self.style, Style::Argparse { flexible: true, .. });
        let mut name = written.to_string();
        if flexible {
            name = name.replace('_', "-");
        }
        let dotted = flexible.then(|| name.split_once('.')).flatten().map(|(head, _)| head.to_string());
        let mut off = false;
        let known = self.known(dotted.as_deref().unwrap_or(&name)).or_else(|| {
            off = true;
            self.known(name.strip_prefix("no-")?).filter(|(_, kind)| *kind == Kind::Pair)
        });
        let Some((name, kind)) = known else {
            return match self.style {
                Style::Argparse { .. } => {
                    self.unknown.push(word.to_string());
                    Ok(())
                }
                _ => Err(self.no_such(written)),
            };
        };
        if dotted.is_some() {
            // A part of an object: whatever it is, the whole is JSON.
            return self.value(name, inline).map(drop);
        }
        let values = match kind {
            Kind::Switch | Kind::Pair => match inline {
                Some(value) => return Err(self.wrong(name, &format!("ignored explicit argument '{value}'"))),
                None => vec![(!off).to_string()],
            },
            Kind::Optional => vec![inline.map(str::to_string).or_else(|| self.next_value()).unwrap_or_default()],
            Kind::Words => {
                let values: Vec<String> = match inline {
                    Some(value) => vec![value.to_string()],
                    None => std::iter::from_fn(|| self.next_value()).collect(),
                };
                if values.is_empty() {
                    return Err(self.wrong(name, "expected at least one argument"));
                }
                values
            }
            kind => {
                let value = self.value(name, inline)?;
                self.check(name, kind, &value)?;
                vec![value]
            }
        };
        self.out.all.extend(values.first().map(|v| (name, v.clone())));
        self.out.values.insert(name, values);
        Ok(())
    }

    fn known(&self, name: &str) -> Option<(&'static str, Kind)> {
        self.flags.get_key_value(name).map(|(name, kind)| (*name, *kind))
    }

    fn value(&mut self, name: &'static str, inline: Option<&str>) -> Result<String, Refusal> {
        match inline.map(str::to_string).or_else(|| self.next_value()) {
            Some(value) => Ok(value),
            None => Err(self.wrong(name, "expected one argument")),
        }
    }

    /// The next word, where it is no option. A negative number is none.
    fn next_value(&mut self) -> Option<String> {
        let word = self.words.get(self.at).copied()?;
        let number = word.strip_prefix('-').is_some_and(|w| w.starts_with(|c: char| c.is_ascii_digit() || c == '.'));
        // Getopt takes whatever comes next.
        if word.starts_with('-') && word != "-" && !number && !matches!(self.style, Style::Getopt { .. }) {
            return None;
        }
        self.at += 1;
        Some(word.to_string())
    }

    fn check(&self, name: &'static str, kind: Kind, value: &str) -> Result<(), Refusal> {
        let bad = |what: &str| Err(self.wrong(name, &format!("invalid {what} value: '{value}'")));
        match kind {
            Kind::Int if value.parse::<i64>().is_err() => bad("int"),
            Kind::Size if size(value).is_none() && !matches!(value, "-1" | "auto") => bad("human_readable_int"),
            Kind::Float if value.parse::<f64>().is_err() => bad("float"),
            Kind::Json if serde_json::from_str::<serde_json::Value>(value).is_err() => bad("loads"),
            Kind::Bool if !matches!(value.to_ascii_lowercase().as_str(), "true" | "false" | "1" | "0") => bad("bool"),
            Kind::Choice(words) if !words.contains(&value) => Err(self.wrong_choice(name, value, words)),
            _ => Ok(()),
        }
    }

    fn wrong_choice(&self, name: &str, value: &str, words: &[&str]) -> Refusal {
        let quoted = words.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(", ");
        match self.style {
            Style::Click { .. } => {
                self.click(&format!("Invalid value for '--{name}': '{value}' is not one of {quoted}."))
            }
            _ => self.wrong(name, &format!("invalid choice: '{value}' (choose from {quoted})")),
        }
    }

    /// A known option that is used wrongly.
    fn wrong(&self, name: &str, what: &str) -> Refusal {
        match self.style {
            Style::Argparse { prog, .. } => argparse(prog, &format!("argument --{name}: {what}")),
            Style::Click { .. } => match what.strip_prefix("invalid ").and_then(|w| w.split_once(" value: ")) {
                Some((kind, value)) => {
                    let kind = if kind == "int" { "integer" } else { kind };
                    self.click(&format!("Invalid value for '--{name}': {value} is not a valid {kind}."))
                }
                None if what.starts_with("expected") => self.click(&format!("Option '--{name}' requires an argument.")),
                None => self.click(&format!("Option '--{name}' does not take a value.")),
            },
            Style::Getopt { prog } if what.starts_with("expected") => {
                getopt(prog, &format!("{prog}: option '--{name}' requires an argument"))
            }
            Style::Getopt { prog } if what.starts_with("ignored") => {
                getopt(prog, &format!("{prog}: option '--{name}' doesn't allow an argument"))
            }
            Style::Getopt { prog } => getopt(prog, &format!("Bad option: \"--{name}\".\n{what}")),
        }
    }

    fn no_such(&self, name: &str) -> Refusal {
        match self.style {
            Style::Getopt { prog } => getopt(prog, &format!("{prog}: unrecognized option '--{name}'")),
            _ => self.click(&format!("No such option: --{name}")),
        }
    }

    fn extra(&self, word: &str) -> Refusal {
        match self.style {
            Style::Getopt { prog } => getopt(prog, &format!("Unexpected argument: {word}")),
            _ if word.starts_with('-') && word.len() > 1 => self.click(&format!("No such option: {word}")),
            _ => self.click(&format!("Got unexpected extra argument ({word})")),
        }
    }

    fn click(&self, what: &str) -> Refusal {
        let Style::Click { prog } = self.style else { return argparse("", what) };
        click(prog, what)
    }
}

/// An error as argparse prints it.
pub fn argparse(prog: &str, what: &str) -> Refusal {
    Refusal::new(2, [format!("usage: {prog} [options]"), format!("{prog}: error: {what}")])
}

/// An error as click prints it.
pub fn click(prog: &str, what: &str) -> Refusal {
    let usage = format!("Usage: {prog} [OPTIONS] MODEL");
    Refusal::new(2, [usage, format!("Try '{prog} --help' for help."), String::new(), format!("Error: {what}")])
}

/// An error of a program that reads its options with getopt.
fn getopt(prog: &str, what: &str) -> Refusal {
    let mut lines: Vec<String> = what.lines().map(str::to_string).collect();
    lines.push(format!("Usage: {prog} [options]"));
    Refusal { lines, exit_code: 1 }
}

#[cfg(test)]
mod tests {
    use super::super::flags::{TRITON, TRTLLM_SERVE, VLLM};
    use super::*;

    const VLLM_STYLE: Style = Style::Argparse { prog: "vllm serve", outer: "vllm", flexible: true };

    fn argparse_of(words: &str) -> Result<Arguments, Refusal> {
        Arguments::read(VLLM_STYLE, &VLLM, &words.split(' ').collect::<Vec<_>>(), 1)
    }

    #[test]
    fn what_is_known_is_read() {
        let a = argparse_of(
            "org/m --max_model_len 8K --seed=-1 --no-enable-prefix-caching --served-model-name a b --enforce-eager \
             --speculative-config {\"a\":1} --compilation-config.level 3",
        )
        .unwrap();
        assert_eq!(a.positional(), ["org/m"]);
        assert_eq!(a.integer(&["max-model-len"]), Some(8192));
        assert_eq!(a.text(&["seed"]), Some("-1"));
        assert_eq!((a.switch("enable-prefix-caching"), a.switch("enforce-eager")), (Some(false), Some(true)));
        assert_eq!(a.switch("enable-lora"), None);
        assert_eq!(a.text(&["served-model-name"]), Some("a"));
    }

    fn last(r: Result<Arguments, Refusal>, code: u8) -> String {
        let refusal = r.unwrap_err();
        assert_eq!(refusal.exit_code, code, "{refusal:?}");
        let usage = |l: &&String| !l.to_lowercase().starts_with("usage") && !l.starts_with("Try ") && !l.is_empty();
        refusal.lines.iter().filter(usage).cloned().collect::<Vec<_>>().join("|")
    }

    #[test]
    fn mistakes_are_told_as_argparse_does() {
        for (words, said) in [
            ("m --no-such-flag 1 --seed 0", "vllm: error: unrecognized arguments: --no-such-flag 1"),
            ("serve m", "vllm: error: unrecognized arguments: m"),
            ("m --max-num-seqs many", "vllm serve: error: argument --max-num-seqs: invalid int value: 'many'"),
            ("m --max-num-seqs", "vllm serve: error: argument --max-num-seqs: expected one argument"),
            ("m --enforce-eager=1", "vllm serve: error: argument --enforce-eager: ignored explicit argument '1'"),
            ("m --speculative-config x", "vllm serve: error: argument --speculative-config: invalid loads value: 'x'"),
        ] {
            assert_eq!(last(argparse_of(words), 2), said);
        }
        let said = last(argparse_of("m --dtype fp3"), 2);
        assert!(said.contains("argument --dtype: invalid choice: 'fp3' (choose from 'auto', 'half',"), "{said}");
    }

    #[test]
    fn mistakes_are_told_as_click_and_getopt_do() {
        let click = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            Arguments::read(Style::Click { prog: "trtllm-serve serve" }, &TRTLLM_SERVE, &words, 1)
        };
        assert_eq!(click("m --tp_size 2").unwrap().integer(&["tensor_parallel_size", "tp_size"]), Some(2));
        assert_eq!(last(click("m --tp-size 2"), 2), "Error: No such option: --tp-size");
        assert_eq!(
            last(click("m --tp_size x"), 2),
            "Error: Invalid value for '--tp_size': 'x' is not a valid integer."
        );
        assert_eq!(last(click("m --tp_size"), 2), "Error: Option '--tp_size' requires an argument.");
        assert_eq!(last(click("m n"), 2), "Error: Got unexpected extra argument (n)");
        let getopt = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            Arguments::read(Style::Getopt { prog: "tritonserver" }, &TRITON, &words, 0)
        };
        let a = getopt("--backend-config=python,a=1 --backend-config python,b=2 --http-port=9").unwrap();
        assert_eq!(a.all("backend-config").collect::<Vec<_>>(), ["python,a=1", "python,b=2"]);
        assert_eq!(last(getopt("--http-prot=9"), 1), "tritonserver: unrecognized option '--http-prot'");
        assert_eq!(last(getopt("--http-port"), 1), "tritonserver: option '--http-port' requires an argument");
        assert_eq!(last(getopt("models"), 1), "Unexpected argument: models");
        assert!(last(getopt("--http-port=x"), 1).contains("invalid int value: 'x'"));
    }
}
