//! The words of a shell line.

use std::collections::BTreeSet;

use super::fault::glob;
use super::reading::Looker;

/// The commands of a shell line, each with what joins it to those before.
pub(super) fn commands(script: &str) -> Vec<(&'static str, String)> {
    let mut out = vec![("", String::new())];
    let (mut quote, mut chars) = (None, script.chars().peekable());
    while let Some(c) = chars.next() {
        let mut push = |join: &'static str| out.push((join, String::new()));
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            (';' | '\n', None) => {
                push(";");
                continue;
            }
            ('&', None) if chars.peek() == Some(&'&') => {
                chars.next();
                push("&&");
                continue;
            }
            ('|', None) if chars.peek() == Some(&'|') => {
                chars.next();
                push("||");
                continue;
            }
            _ => {}
        }
        if let Some((_, command)) = out.last_mut() {
            command.push(c);
        }
    }
    out
}

/// The words of one command, with globs expanded where a machine is given, and whether standard error is thrown away.
///
/// # Errors
/// What a shell can do and this one cannot.
pub(super) fn words(command: &str, looker: Option<&Looker>) -> Result<(Vec<String>, bool), String> {
    let mut out = Vec::new();
    let mut quiet = false;
    for (word, quoted) in split(command)? {
        match word.as_str() {
            "2>/dev/null" if !quoted => quiet = true,
            "2>&1" if !quoted => {}
            plain if !quoted && plain.contains(['|', '>', '<', '`', '$', '&']) => {
                return Err(format!("`{plain}` is not modelled"));
            }
            pattern if !quoted && pattern.contains('*') && looker.is_some() => {
                let slashes = pattern.matches('/').count();
                let mut hits: BTreeSet<String> = BTreeSet::new();
                for path in looker.iter().flat_map(|l| l.all()) {
                    let cut: Vec<&str> = path.split('/').take(slashes + 1).collect();
                    let cut = cut.join("/");
                    if glob(pattern, &cut) && cut.matches('/').count() == slashes {
                        hits.insert(cut);
                    }
                }
                if hits.is_empty() {
                    out.push(word);
                } else {
                    out.extend(hits);
                }
            }
            _ => out.push(word),
        }
    }
    Ok((out, quiet))
}

/// Words with whether any part of them was quoted.
fn split(command: &str) -> Result<Vec<(String, bool)>, String> {
    let (mut out, mut word, mut quote, mut quoted, mut any) = (Vec::new(), String::new(), None, false, false);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None) => {
                word.extend(chars.next());
                any = true;
            }
            ('\\', Some('"')) => word.extend(chars.next()),
            ('\'' | '"', None) => {
                quote = Some(c);
                (quoted, any) = (true, true);
            }
            (c, Some(q)) if c == q => quote = None,
            (c, None) if c.is_whitespace() => {
                if any {
                    out.push((std::mem::take(&mut word), quoted));
                }
                (quoted, any) = (false, false);
            }
            _ => {
                word.push(c);
                any = true;
            }
        }
    }
    if quote.is_some() {
        return Err("unterminated quoted string".into());
    }
    if any {
        out.push((word, quoted));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_line_is_split_as_a_shell_would() {
        assert_eq!(plain(r#"a 'b c' "d \" e" f\ g"#), ["a", "b c", "d \" e", "f g"]);
        let parts = commands("a && 'b;c' || d; e");
        assert_eq!(
            parts.iter().map(|(j, c)| (*j, c.trim())).collect::<Vec<_>>(),
            [("", "a"), ("&&", "'b;c'"), ("||", "d"), (";", "e")]
        );
        assert!(words("a | b", None).is_err());
        assert!(words("a 'b", None).is_err());
    }

    fn plain(line: &str) -> Vec<String> {
        words(line, None).unwrap().0
    }
}
