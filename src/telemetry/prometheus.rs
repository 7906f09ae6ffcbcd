//! The Prometheus text format, as far as it is needed once a second beside a measurement: one pass, nothing copied, every
//! line checked. Source: the exposition formats of the Prometheus documentation.

/// A line that is none of the format's.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("line {line} of the metrics is not in the Prometheus text format: {message}")]
pub struct FormatError {
    /// From 1.
    pub line: usize,
    pub message: &'static str,
}

/// One line of a metrics text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    pub name: &'a str,
    /// What stands between the braces, as it stands there.
    pub labels: &'a str,
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// The value of a label, where it needs no unescaping and holds no comma.
    pub fn label(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.labels.split(',').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().trim_matches('"'))
    }
}

/// Tells of every sample of a text, in order.
pub fn samples<'a>(text: &'a str, mut each: impl FnMut(&Sample<'a>)) -> Result<(), FormatError> {
    for (i, line) in text.lines().enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        // `# EOF` ends the text in the stricter sibling of the format.
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        each(&sample(line).map_err(|message| FormatError { line: i + 1, message })?);
    }
    Ok(())
}

/// `name{label="text",…} value timestamp`.
fn sample(line: &str) -> Result<Sample<'_>, &'static str> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).ok_or("there is no value")?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return Err("it does not begin with a name");
    }
    let (labels, rest) = match rest.trim_start_matches([' ', '\t']).strip_prefix('{') {
        Some(inside) => {
            let after = labels(inside)?;
            (&inside[..inside.len() - after.len() - 1], after)
        }
        None => ("", rest),
    };
    // An exemplar may follow after `#`.
    let mut fields = rest.split('#').next().unwrap_or_default().split_ascii_whitespace();
    let value = fields.next().ok_or("there is no value")?;
    let value = number(value).ok_or("the value is not a number")?;
    match (fields.next().map(number), fields.next()) {
        (None | Some(Some(_)), None) => Ok(Sample { name, labels, value }),
        _ => Err("something stands after the value"),
    }
}

/// What stands after the closing brace.
fn labels(text: &str) -> Result<&str, &'static str> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let equals = rest.find('=').ok_or("a label has no value")?;
        let name = rest[..equals].trim_end();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err("a label has no name");
        }
        rest = rest[equals + 1..].trim_start().strip_prefix('"').ok_or("a label's value is not quoted")?;
        rest = &rest[quote(rest).ok_or("a label's value does not end")? + 1..];
    }
}

/// Where the closing quote is.
fn quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    })
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" | "Nan" => Some(f64::NAN),
        _ => text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Sums by name of the samples whose names are wanted.
    fn totals(text: &str, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, f64>, FormatError> {
        let mut out = BTreeMap::new();
        samples(text, |s| {
            if wanted(s.name) {
                *out.entry(s.name.to_string()).or_insert(0.0) += s.value;
            }
        })?;
        Ok(out)
    }

    #[test]
    fn labels_are_told_as_they_stand() {
        let mut seen = Vec::new();
        samples("a{x=\"1\", y=\"}\"} 2\nb {} 3\nc 4\n", |s| seen.push((s.name, s.labels, s.value))).unwrap();
        assert_eq!(seen, [("a", "x=\"1\", y=\"}\"", 2.0), ("b", "", 3.0), ("c", "", 4.0)]);
    }

    #[test]
    fn samples_are_added_up_over_their_labels() {
        let text = "# HELP a:b_sum what it is\n# TYPE a:b histogram\n\
            a:b_bucket{le=\"0.5\",m=\"x\"} 1\na:b_bucket{le=\"+Inf\",m=\"x\"} 3\n\
            a:b_sum{m=\"x\"} 1.5\na:b_sum{m=\"a \\\"quoted\\\" } = , \\\\\"} 2.25e0 1700000000000\n\
            a:b_count{m=\"x\",} 3\r\n\na:b_count 4 # {trace=\"1\"} 0.5\nplain 7\nnan NaN\n# EOF\n";
        let all = totals(text, |name| name != "nan").unwrap();
        let expected = [("a:b_bucket", 4.0), ("a:b_count", 7.0), ("a:b_sum", 3.75), ("plain", 7.0)];
        assert_eq!(all, expected.map(|(n, v)| (n.to_string(), v)).into_iter().collect());
        assert_eq!(totals(text, |name| name == "plain").unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_the_format_is_refused() {
        for (line, message) in [
            ("name", "there is no value"),
            ("name{a=\"b\"}", "there is no value"),
            ("name{a=b} 1", "a label's value is not quoted"),
            ("name{a=\"b} 1", "a label's value does not end"),
            ("name{=\"b\"} 1", "a label has no name"),
            ("name x", "the value is not a number"),
            ("name infinity", "the value is not a number"),
            ("name 1 2 3", "something stands after the value"),
            ("name 1 soon", "something stands after the value"),
            ("<html>", "it does not begin with a name"),
            ("{\"json\": 1}", "it does not begin with a name"),
            ("1name 2", "it does not begin with a name"),
        ] {
            let e = totals(&format!("ok 1\n{line}\n"), |_| true).unwrap_err();
            assert_eq!((e.line, e.message), (2, message), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,200}") {
            let _ = totals(&text, |_| true);
        }

        #[test]
        fn values_survive(value in prop::num::f64::NORMAL, label in "[^\\\\\"\n]{0,20}") {
            let all = totals(&format!("m{{l=\"{label}\"}} {value:e}\n"), |_| true).unwrap();
            prop_assert_eq!(all["m"], value);
        }
    }
}
