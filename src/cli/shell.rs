//! Text for a shell: words that stay what they are, and references to variables of its environment.

/// A word that a POSIX shell takes as it is.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A word in which every `${NAME}` is a reference to the shell's own variable, so that no value stands in the text. All
/// else is literal, `$` without braces too.
pub fn with_variables(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, name, after)) = reference(rest) {
        if !before.is_empty() {
            out.push_str(&word(before));
        }
        out.push_str(&variable(name));
        rest = after;
    }
    if !rest.is_empty() || out.is_empty() {
        out.push_str(&word(rest));
    }
    out
}

/// The first `${NAME}`, with what stands before and after it.
fn reference(text: &str) -> Option<(&str, &str, &str)> {
    let (before, after) = text.split_once("${")?;
    let (name, after) = after.split_once('}')?;
    Some((before, name, after))
}

/// The value of a variable. An environment may have names that a shell cannot write.
fn variable(name: &str) -> String {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let plain = name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit());
    if plain { format!("\"${{{name}}}\"") } else { format!("\"$(printenv -- {})\"", word(name)) }
}

/// A command that writes `content` to `path`, which is a word already. Text of whole lines is a document in place.
pub fn write_file(path: &str, content: &str) -> String {
    const END: &str = "END_OF_FILE";
    if content.ends_with('\n') && content.lines().all(|line| line != END) {
        return format!("cat > {path} <<'{END}'\n{content}{END}");
    }
    format!("printf %s {} > {path}", word(content))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What bash makes of the script; others forget variables of odd names.
    fn shell(script: &str) -> String {
        let ran =
            Command::new("bash").args(["-euc", script]).env("KEY", "a  '$b").env("odd-name", "odd").output().unwrap();
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }

    #[test]
    fn words_stay_what_they_are() {
        for (text, want) in [("--gate", "--gate"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$x", "'$x'"), ("", "''")]
        {
            assert_eq!(word(text), want);
            assert_eq!(shell(&format!("printf %s {}", word(text))), text);
        }
    }

    #[test]
    fn references_are_the_shells_own_variables() {
        for (text, want) in [
            ("Bearer ${KEY}!", "Bearer a  '$b!"),
            ("${KEY}${KEY}", "a  '$ba  '$b"),
            ("$KEY ${ open", "$KEY ${ open"),
            ("${odd-name}", "odd"),
            ("", ""),
        ] {
            assert_eq!(shell(&format!("printf %s {}", with_variables(text))), want, "{text}");
        }
        assert_eq!(with_variables("a ${KEY}"), "'a '\"${KEY}\"");
    }

    #[test]
    fn files_are_written_to_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it's");
        for content in ["", "no end", "a\n  $b `c` \\ '\n", "END_OF_FILE\nx\n", "\n"] {
            shell(&write_file(&word(&path.display().to_string()), content));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}
