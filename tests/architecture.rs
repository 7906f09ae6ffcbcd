//! The walls between modules: every `crate::…` path in `src/` is held against the table in `ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What the table says of one module.
struct Row {
    layer: u32,
    pure: bool,
    /// `None` is everything.
    may_import: Option<BTreeSet<String>>,
}

type Table = BTreeMap<String, Row>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rows of `ARCHITECTURE.md` that have five cells and begin with a number.
fn table() -> Table {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let mut table = Table::new();
    for line in text.lines().filter(|l| l.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [layer, module, _, pure, imports] = cells[..] else { continue };
        let Ok(layer) = layer.parse() else { continue };
        let may_import = match imports {
            "everything" => None,
            "–" => Some(BTreeSet::new()),
            list => Some(list.split(',').map(|m| m.trim().to_string()).collect()),
        };
        let row = Row { layer, pure: pure == "yes", may_import };
        assert!(
            table.insert(module.trim_matches('`').to_string(), row).is_none(),
            "{module} stands twice in the table"
        );
    }
    assert!(table.len() > 10, "the table of ARCHITECTURE.md was not understood");
    table
}

/// Source files by module, without the files of test modules.
fn sources() -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    let test_only: BTreeSet<PathBuf> = files.iter().flat_map(|f| test_modules(f)).collect();
    files.retain(|f| !test_only.iter().any(|t| f.starts_with(t) || *f == t.with_extension("rs")));
    files
        .into_iter()
        .filter_map(|file| {
            let relative = file.strip_prefix(root().join("src")).expect("a file of src").to_path_buf();
            let first = relative.iter().next()?.to_string_lossy().trim_end_matches(".rs").to_string();
            (!matches!(first.as_str(), "lib" | "main")).then_some((first, file))
        })
        .collect()
}

fn collect(dir: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).expect("src can be read").map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Paths, without extension, of the modules that a file declares under `#[cfg(test)]`.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).expect("a source file is text");
    let stem = file.file_stem().expect("a source file has a name");
    let below = match stem.to_str() {
        Some("mod" | "lib" | "main") => file.parent().expect("a file is in a directory").to_path_buf(),
        _ => file.with_extension(""),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|w| w[0] == "#[cfg(test)]");
    pairs
        .filter_map(|w| {
            let name = w[1]
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ")
                .strip_prefix("mod ")?
                .strip_suffix(';')?;
            Some(below.join(name))
        })
        .collect()
}

/// The lines of a file with comments, and items under `#[cfg(test)]`, blanked. Relies on rustfmt: an item ends at a `}`
/// that is indented as its first line, or at its first line's `;`.
fn shipped_lines(text: &str) -> Vec<String> {
    let indent = |l: &str| l.len() - l.trim_start().len();
    let mut out = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            out.push(String::new());
            for inner in lines.by_ref() {
                out.push(String::new());
                let ends = inner.trim_end().ends_with(';') || inner.trim() == "}";
                if indent(inner) == indent(line) && !inner.trim().is_empty() && ends {
                    break;
                }
            }
        } else if line.trim_start().starts_with("//") {
            out.push(String::new());
        } else {
            out.push(line.split(" // ").next().unwrap_or(line).to_string());
        }
    }
    out
}

/// Modules named by `crate::x`, `crate::{x, y::z}`, or by enough `super::` to reach the root; with their lines.
fn imports(file: &Path, known: &Table) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).expect("a source file is text");
    let lines = shipped_lines(&text);
    let mut out = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            let joined = |word: &char| word.is_alphanumeric() || *word == '_';
            if line[..at].chars().next_back().is_some_and(|c| joined(&c) || c == '$') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                None => out.push((i + 1, rest.chars().take_while(joined).collect())),
                Some(first) => {
                    let group = std::iter::once(first).chain(lines[i + 1..].iter().map(String::as_str));
                    out.extend(group_heads(group).into_iter().map(|head| (i + 1, head)));
                }
            }
        }
        // Only a chain as long as the file is deep leaves its module; inline test modules are gone by now.
        let chain = "super::".repeat(depth(file));
        if let Some(at) = line.find(&chain) {
            let name: String =
                line[at + chain.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if known.contains_key(&name) && !line[..at].ends_with("super::") {
                out.push((i + 1, name));
            }
        }
    }
    out
}

/// How many `super::` lead from a file's own module to the crate's root.
fn depth(file: &Path) -> usize {
    let parts = file.strip_prefix(root().join("src")).expect("a file of src").components().count();
    if file.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// First segments of the entries of a `{…}` group, whose text follows the opening brace.
fn group_heads<'a>(text: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (mut heads, mut head, mut depth, mut taking) = (Vec::new(), String::new(), 1, true);
    for c in text.flat_map(|l| l.chars().chain(['\n'])) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {
                heads.push(std::mem::take(&mut head));
                taking = true;
            }
            ':' if depth == 1 => taking = false,
            c if taking && depth == 1 && (c.is_alphanumeric() || c == '_') => head.push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads.push(head);
    heads.retain(|h| !h.is_empty());
    heads
}

#[test]
fn modules_import_what_the_table_allows() {
    let table = table();
    let mut wrong = Vec::new();
    for (module, file) in sources() {
        let shown = file.strip_prefix(root()).expect("a file of the project").display();
        let Some(row) = table.get(&module) else {
            wrong.push(format!("{shown}: `{module}` has no row"));
            continue;
        };
        let Some(allowed) = &row.may_import else { continue };
        for (line, import) in imports(&file, &table) {
            if import != module && !allowed.contains(&import) {
                wrong.push(format!("{shown}:{line}: `{module}` may not import `{import}`"));
            }
        }
    }
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "{}\nMove the code to where it belongs, or move the wall: the table is in ARCHITECTURE.md.",
        wrong.join("\n")
    );
}

#[test]
fn the_table_names_the_modules_that_are_there() {
    let table = table();
    let there: BTreeSet<String> = sources().into_iter().map(|(module, _)| module).collect();
    let named: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(named, there, "rows of ARCHITECTURE.md (left) and modules of src/ (right)");
    for (module, row) in &table {
        for import in row.may_import.iter().flatten() {
            let Some(other) = table.get(import) else {
                panic!("the row of `{module}` names `{import}`: no such module")
            };
            assert!(other.layer <= row.layer, "`{module}` (layer {}) may import `{import}` of a higher one", row.layer);
        }
    }
}

/// Arrows go one way: nothing that a module may import can lead back to it.
#[test]
fn the_table_has_no_cycle() {
    let table = table();
    for start in table.keys() {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&String> = table[start].may_import.iter().flatten().collect();
        while let Some(module) = open.pop() {
            assert_ne!(module, start, "`{start}` can be reached from what it may import");
            if seen.insert(module) {
                open.extend(table[module].may_import.iter().flatten());
            }
        }
    }
}

#[test]
fn pure_modules_touch_nothing_outside() {
    let table = table();
    let outside = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "std::io::std",
        "tokio",
        "reqwest",
        "rustix",
        "Instant",
        "SystemTime",
        "Timestamp::now",
        "Stopwatch::start",
    ];
    let mut wrong = Vec::new();
    for (module, file) in sources() {
        if table.get(&module).is_none_or(|row| !row.pure) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file is text");
        for (i, line) in shipped_lines(&text).iter().enumerate() {
            for word in outside.iter().filter(|w| names(line, w)) {
                let shown = file.strip_prefix(root()).expect("a file of the project").display();
                wrong.push(format!("{shown}:{}: `{module}` is pure and may not use `{word}`", i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_cli_prints() {
    let mut wrong = Vec::new();
    for (module, file) in sources() {
        let text = fs::read_to_string(&file).expect("a source file is text");
        for (i, line) in shipped_lines(&text).iter().enumerate() {
            let prints = ["println!", "print!", "eprintln!", "eprint!", "dbg!"].iter().any(|m| names(line, m));
            let opens = module != "cli" && ["stdout", "stderr"].iter().any(|w| names(line, &format!("io::{w}")));
            if prints || opens {
                let shown = file.strip_prefix(root()).expect("a file of the project").display();
                wrong
                    .push(format!("{shown}:{}: `{module}` prints; hand it a writer, or go through cli::output", i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a word stands in a line as a word of its own.
fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = word.ends_with(part) && line[at + word.len()..].starts_with(part);
        !before && !after
    })
}

#[test]
fn the_reader_of_imports_sees_what_it_should() {
    let text = "use crate::{\n    plan::Plan,\n    store,\n};\n// use crate::exec;\nlet x = crate::value::Value::Int(1);\n\
                #[cfg(test)]\nmod tests {\n    use crate::cli;\n}\nfn after() {}\n";
    let lines = shipped_lines(text);
    assert!(!lines.join("\n").contains("cli") && !lines.join("\n").contains("exec"));
    assert_eq!(lines.last().map(String::as_str), Some("fn after() {}"));
    let group = lines[1..].iter().map(String::as_str);
    assert_eq!(group_heads(group), ["plan", "store"]);
    assert!(names("println!(\"\")", "println!") && !names("eprintln!(\"\")", "println!"));
    assert!(names("io::stdout()", "io::stdout") && !names("Instants", "Instant"));
}
