//! Diagnostics: a problem with its place in a text, a stable code and a suggestion. Problems are collected, not thrown, so
//! that all of a file's problems are reported together.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity};
use serde::Serialize;

/// A text that diagnostics point into.
#[derive(Debug)]
pub struct SourceText {
    /// As it is shown: the path the user gave.
    pub name: String,
    pub text: String,
}

/// One problem.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Stable, `snake_case`; scripts may match on it.
    pub code: &'static str,
    pub message: String,
    pub source: Option<Arc<SourceText>>,
    /// Byte range in the source.
    pub span: Option<Range<usize>>,
    pub help: Option<String>,
}

/// The machine-readable form: `validate --json`.
#[derive(Debug, Serialize)]
pub struct DiagnosticJson<'a> {
    pub code: &'a str,
    pub message: &'a str,
    pub file: Option<&'a str>,
    /// From 1.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    pub help: Option<&'a str>,
}

impl Diagnostic {
    pub fn new(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, message: message.into(), source: None, span: None, help: None }
    }

    /// Gives it its place: a byte range of the text.
    pub fn at(mut self, source: &Arc<SourceText>, span: Range<usize>) -> Diagnostic {
        self.source = Some(source.clone());
        self.span = Some(span);
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Adds the help where there is one.
    pub fn maybe_help(mut self, help: Option<String>) -> Diagnostic {
        self.help = help.or(self.help);
        self
    }

    /// Line and column, from 1.
    pub fn position(&self) -> Option<(usize, usize)> {
        let (source, span) = (self.source.as_ref()?, self.span.as_ref()?);
        let before = source.text.get(..span.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Some((line, column))
    }

    /// As `--json` prints it: line and column from 1, where there is a place.
    pub fn to_json(&self) -> DiagnosticJson<'_> {
        let position = self.position();
        DiagnosticJson {
            code: self.code,
            message: &self.message,
            file: self.source.as_ref().map(|s| s.name.as_str()),
            line: position.map(|p| p.0),
            column: position.map(|p| p.1),
            help: self.help.as_deref(),
        }
    }

    fn sort_key(&self) -> (String, usize) {
        (self.source.as_ref().map(|s| s.name.clone()).unwrap_or_default(), self.span.as_ref().map_or(0, |s| s.start))
    }
}

/// Sorts by file and place, and drops repeats of the same problem at the same place.
pub fn tidy(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by_cached_key(Diagnostic::sort_key);
    diagnostics.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
}

/// Renders problems with their lines and carets, `file:line:column` in each.
pub fn render(diagnostics: &[Diagnostic], color: bool, width: usize) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_context_lines(1).with_links(false);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let source = diagnostic.source.as_ref().map(|s| NamedSource::new(&s.name, s.text.clone()));
        let report = Report { diagnostic, source };
        if handler.render_report(&mut out, &report).is_err() {
            let _ = writeln!(out, "{}: {}", diagnostic.code, diagnostic.message);
        }
    }
    out
}

/// Adapts a diagnostic to miette.
#[derive(Debug)]
struct Report<'a> {
    diagnostic: &'a Diagnostic,
    source: Option<NamedSource<String>>,
}

impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|h| Box::new(h) as Box<dyn std::fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.diagnostic.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new(None, span.start, span.end.saturating_sub(span.start)))))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|s| s as &dyn miette::SourceCode)
    }
}

/// The nearest of `known` to a misspelt word, when one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(word, k), strsim::jaro_winkler(word, k), k))
        .filter(|(distance, similarity, k)| *distance <= 2.max(k.len() / 4) && (*similarity > 0.7 || *distance == 1))
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(b.2)))
        .map(|(_, _, k)| k)
}

/// "did you mean `x`?"
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|k| format!("did you mean `{k}`?"))
}
