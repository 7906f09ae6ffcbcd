//! How complicated a template or an expression may be. What parses them goes one call deeper for each operator of a chain, so
//! that a text of a megabyte of minus signs would need more stack than there is: it is refused before it is parsed.

/// Operators between `{{` and `}}`; real ones have fifty at most.
const MAX_OPERATORS: usize = 400;
/// Branches `elif` of a whole template.
const MAX_BRANCHES: usize = 400;

/// The line of the first part that is too complicated, counted from 0, and why.
pub fn check(text: &str) -> Result<(), (usize, String)> {
    let mut branches = 0;
    let mut rest = text;
    while let Some(start) = next_tag(rest) {
        let tag = &rest[start..];
        // Without an end, all that follows is parsed as one.
        let end = first_pair(tag, [b"}}", b"%}"]).map_or(tag.len(), |at| at + 2);
        let tag_text = &tag[..end];
        let operators = operators(tag_text);
        if operators > MAX_OPERATORS {
            return Err((
                line_of(text, tag),
                format!("it has {operators} operators in a row; the limit is {MAX_OPERATORS}"),
            ));
        }
        branches += tag_text.matches("elif").count();
        if branches > MAX_BRANCHES {
            return Err((line_of(text, tag), format!("it has more than {MAX_BRANCHES} branches")));
        }
        rest = &tag[end..];
    }
    Ok(())
}

/// The line that a rest of a text begins in.
fn line_of(text: &str, rest: &str) -> usize {
    text[..text.len() - rest.len()].matches('\n').count()
}

fn next_tag(text: &str) -> Option<usize> {
    first_pair(text, [b"{{", b"{%"])
}

/// Where either of two pairs of ASCII signs stands first.
fn first_pair(text: &str, pairs: [&[u8; 2]; 2]) -> Option<usize> {
    text.as_bytes().windows(2).position(|two| pairs.iter().any(|pair| two == *pair))
}

/// Operators, brackets and the words that are operators. Those in quoted texts count too: few are, and what ends a text is
/// for the parser to say.
fn operators(tag: &str) -> usize {
    let signs = tag.bytes().filter(|b| b"+*/~|.<>=!^&".contains(b)).count();
    // Dashes are frequent in texts, and only those that follow one another, but for spaces, make a chain.
    let minus =
        tag.split(|c: char| c != '-' && !c.is_whitespace()).map(|run| run.matches('-').count()).filter(|n| *n > 2);
    let words = tag.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|w| matches!(*w, "not" | "and" | "or" | "in" | "is" | "if" | "else")).count();
    signs + minus.sum::<usize>() + words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_are_refused_with_their_line() {
        assert_eq!(check("a\n{{ a + b | c(1, 'x-y--z') }}{% if a and not b %}{% endif %}"), Ok(()));
        for chain in ["-", "- ", "not ", "+1", ".a", "|f", " and a", "[0].a", "\"-\"+"] {
            let text = format!("a\nb {{{{ {} }}}}", chain.repeat(1000));
            assert_eq!(check(&text).unwrap_err().0, 1, "{chain}");
            assert!(check(&format!("{{{{ {}", chain.repeat(1000))).is_err(), "{chain}, without an end");
        }
        assert!(check(&"{% elif a %}".repeat(1000)).is_err());
        assert_eq!(check(&"{{ a - b }}".repeat(100_000)), Ok(()));
        assert_eq!(check(&"--x=y ".repeat(1000)), Ok(()), "text outside of tags is text");
    }
}
