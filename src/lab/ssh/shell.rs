//! What a login shell makes of a command line before anything runs.

/// The words of a command line that is one plain command; None where only a shell can say what it means.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '$' | '`' => return None,
                        '\\' => match chars.next()? {
                            '\n' => {}
                            c @ ('$' | '`' | '"' | '\\') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next()? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '[' | '{' | '!' | '\n' => return None,
            '#' | '~' if word.is_none() => return None,
            // An assignment, which is no program's business.
            '=' if words.is_empty() => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// The command that `sh` would run: the line's own words, or the shell itself with the whole line.
pub(super) fn argv(line: &str) -> Vec<String> {
    words(line)
        .filter(|words| !words.is_empty())
        .unwrap_or_else(|| vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_commands_are_split_as_a_shell_splits_them() {
        let cases: [(&str, &[&str]); 7] = [
            ("lsusb", &["lsusb"]),
            ("  cat   /etc/hostname ", &["cat", "/etc/hostname"]),
            (r"printf 'it'\''s' '' 'a  b'", &["printf", "it's", "", "a  b"]),
            (r#"echo "a \"b\" \x" c\ d"#, &["echo", r#"a "b" \x"#, "c d"]),
            (
                "find -L /sys '(' -name speed ')' -exec grep -H . '{}' +",
                &["find", "-L", "/sys", "(", "-name", "speed", ")", "-exec", "grep", "-H", ".", "{}", "+"],
            ),
            ("dd if=/a of=/b", &["dd", "if=/a", "of=/b"]),
            ("a#b ~c/d~", &["sh", "-c", "a#b ~c/d~"]),
        ];
        for (line, expected) in cases {
            assert_eq!(argv(line), expected, "{line}");
        }
    }

    #[test]
    fn what_only_a_shell_understands_is_left_to_one() {
        let lines =
            ["a | b", "a && b", "a; b", "a > f", "echo $X", "echo \"$X\"", "ls *", "X=1 a", "'open", "", "a\nb"];
        for line in lines {
            assert_eq!(argv(line), ["sh", "-c", line]);
        }
    }
}
