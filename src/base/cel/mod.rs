//! The part of CEL in which Talos chooses disks: fields of `disk`, `system_disk`, `glob`, units, comparisons, text, lists.
//!
//! An expression is evaluated as cel-go does: numbers have their kinds, `&&` and `||` pass over a side that cannot be
//! told where the other one decides. What is not known here is an error with its name, never a no.
//! The environment is that of siderolabs/talos `pkg/machinery/cel/celenv`.

mod eval;
mod parse;

pub use eval::Value;
use parse::Expr;

/// An expression that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Cel(Expr);

impl Cel {
    /// Reads an expression.
    ///
    /// # Errors
    /// What it is that cannot be read.
    pub fn read(text: &str) -> Result<Self, String> {
        parse::read(text).map(Self)
    }

    /// Whether it holds where `disk.serial`, `system_disk` and the like are these.
    ///
    /// # Errors
    /// What cannot be told: a name that `given` does not have, a function that is not known here, kinds that do not go
    /// together.
    pub fn holds(&self, given: &dyn Fn(&str) -> Option<Value>) -> Result<bool, String> {
        match eval::value(&self.0, given)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(format!("it comes to {}, not to yes or no", other.kind())),
        }
    }

    /// Whether a name with its field (`disk.dev_path`) or a part of a text in it is `what`.
    pub fn names(&self, what: &str) -> bool {
        self.0.names(what)
    }
}

/// `*` stands for any text, of no length too; there is nothing else special (ryanuber/go-glob, which Talos takes).
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(head) else { return false };
    let (between, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*').filter(|part| !part.is_empty()) {
        match left.split_once(part) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk(name: &str) -> Option<Value> {
        Some(match name {
            "disk.size" => Value::Uint(1_000_204_886_016),
            "disk.serial" => Value::Text("S5GXNF0R601234".into()),
            "disk.transport" => Value::Text("nvme".into()),
            "disk.dev_path" => Value::Text("/dev/nvme0n1".into()),
            "disk.rotational" | "system_disk" => Value::Bool(false),
            "disk.symlinks" => Value::List(vec![Value::Text("/dev/disk/by-id/nvme-eui.002538b411b2cee8".into())]),
            _ => return None,
        })
    }

    fn of(text: &str) -> Result<bool, String> {
        Cel::read(text)?.holds(&disk)
    }

    #[test]
    fn expressions_are_told_as_talos_tells_them() {
        let cases = [
            ("disk.serial == 'S5GXNF0R601234'", true),
            (r#"disk.serial == "S5GXNF0R601234" || disk.model == "x""#, true),
            ("disk.model == 'x' || disk.serial == 'S5GXNF0R601234'", true),
            ("disk.model == 'x' && disk.serial == 'another'", false),
            ("disk.size > 900u * GB && !disk.rotational", true),
            ("disk.size > 1u * TiB", false),
            ("disk.size >= 1000204886016u && disk.size <= 1000204886016u", true),
            ("disk.size > 100", true),
            ("disk.transport == \"nvme\" && !system_disk", true),
            ("glob('S5GX*', disk.serial)", true),
            ("glob('*1234', disk.serial) && glob('S5*R60*', disk.serial)", true),
            ("glob('sd[a-z]', disk.dev_path)", false),
            ("disk.serial.startsWith('S5') && disk.serial.endsWith('34') && disk.serial.contains('XNF')", true),
            ("size(disk.serial) == 14 && disk.serial.size() == 14", true),
            ("'/dev/disk/by-id/nvme-eui.002538b411b2cee8' in disk.symlinks", true),
            ("disk.serial in ['a', r\"b\"]", false),
            ("disk.symlinks.exists(link, link.endsWith('cee8') && disk.transport == 'nvme')", true),
            ("disk.symlinks.all(link, link == 'x')", false),
            ("disk.symlinks[0] != ''", true),
            ("(system_disk ? 1 : 2) == 2", true),
            ("1 + 2 * 3 - 4 / 2 % 3 == 5", true),
            ("-1 < 0 && 0x10 == 16 && 2.5 > 2.0", true),
            ("'a\\'b\\x41\\u0042' == \"a'bAB\"", true),
            ("!(false || !true) // a remark", true),
        ];
        assert_eq!(cases.len(), 24);
        for (text, wanted) in cases {
            assert_eq!(of(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        let cases = [
            ("disk.modalias == 'x'", "disk.modalias is not known"),
            ("disk.serial.matches('^S5')", "matches() is not known"),
            ("mac(disk.serial) == 'x'", "mac() is not known"),
            ("disk.size > 'x'", "a number and a text cannot be compared"),
            ("disk.serial", "it comes to a text, not to yes or no"),
            ("disk.size * 100000000000u > 1u", "the number is too large"),
            ("1 / 0 == 1", "the number is too large, or divided by 0"),
            ("1u + 1 == 2u", "u and without"),
            ("disk.symlinks[3] == ''", "there is no [3] in it"),
            ("disk.serial ==", "it ends too early"),
            ("disk.serial = 'x'", "`=` cannot be read"),
            ("'abc", "a text has no end"),
            ("a b", "`b` was not expected"),
            ("", "it ends too early"),
            ("99999999999999999999 > 1", "the number is too large"),
            ("disk.symlinks.exists(1, true)", "a name was expected"),
        ];
        assert_eq!(cases.len(), 16);
        for (text, wanted) in cases {
            let said = of(text).unwrap_err();
            assert!(said.contains(wanted), "{text}: {said}");
        }
        let deep = format!("{}true{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(of(&deep).unwrap_err().contains("too deep"));
        assert!(of(&"!".repeat(100_000)).unwrap_err().contains("too deep"));
    }

    #[test]
    fn what_it_names_is_seen() {
        let read = Cel::read("disk.size > 1u || '/dev/disk/by-path/x' in disk.symlinks").unwrap();
        assert!(read.names("disk.symlinks") && read.names("/dev/disk/by-path/") && read.names("disk.size"));
        assert!(!read.names("disk.dev_path"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[a-z0-9_.'\"!&|=<>()\\[\\]*/%+?:u, \\\\-]{0,40}", any: String) {
            let _ = of(&text);
            let _ = of(&any);
        }

        #[test]
        fn a_glob_is_what_stands_between_its_stars(parts in prop::collection::vec("[ab]{0,3}", 1..5), fill in "[ab]{0,3}") {
            prop_assert!(glob(&parts.join("*"), &parts.join(&fill)) || parts.len() == 1);
        }
    }

    #[test]
    fn a_glob_takes_its_parts_one_behind_the_other() {
        for (pattern, text, wanted) in [
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a**b", "ab", true),
            ("*ab*ab", "ab", false),
            ("*ab*ab", "abab", true),
            ("x*", "ax", false),
        ] {
            assert_eq!(glob(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
