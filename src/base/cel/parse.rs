//! The text of an expression, read.

use super::eval::Value;

/// How far an expression may be nested, and how many operators may follow one another.
const DEEP: usize = 64;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    /// As it stands there.
    Value(Value),
    /// A name, with its fields: `disk.serial`.
    Name(String),
    List(Vec<Expr>),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    /// An operator between two.
    Two(&'static str, Box<Expr>, Box<Expr>),
    /// `a ? b : c`.
    If(Box<[Expr; 3]>),
    /// `of.name(arguments)`, or a function without `of`.
    Call(Option<Box<Expr>>, String, Vec<Expr>),
    /// `of[index]`.
    Index(Box<Expr>, Box<Expr>),
}

impl Expr {
    pub(super) fn names(&self, what: &str) -> bool {
        match self {
            Self::Name(name) => name == what,
            Self::Value(Value::Text(text)) => text.contains(what),
            Self::Value(_) => false,
            Self::List(all) => all.iter().any(|e| e.names(what)),
            Self::Not(one) | Self::Minus(one) => one.names(what),
            Self::Two(_, a, b) | Self::Index(a, b) => a.names(what) || b.names(what),
            Self::If(three) => three.iter().any(|e| e.names(what)),
            Self::Call(of, _, all) => of.as_ref().is_some_and(|of| of.names(what)) || all.iter().any(|e| e.names(what)),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Value(Value),
    Word(String),
    Sign(&'static str),
}

/// The longest first.
const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ".", ",", "?", ":",
];

/// Operators by how tightly they bind, the loosest first.
const LEVELS: &[&[&str]] =
    &[&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">", "in"], &["+", "-"], &["*", "/", "%"]];

pub(super) fn read(text: &str) -> Result<Expr, String> {
    let mut reader = Reader { tokens: tokens(text)?, at: 0, deep: 0 };
    let read = reader.whole()?;
    match reader.tokens.get(reader.at) {
        None => Ok(read),
        Some(token) => Err(format!("`{}` was not expected", show(token))),
    }
}

fn show(token: &Token) -> String {
    match token {
        Token::Value(Value::Text(text)) => format!("'{text}'"),
        Token::Value(_) => "a number".to_owned(),
        Token::Word(word) => word.clone(),
        Token::Sign(sign) => (*sign).to_owned(),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some((value, after)) = string(rest)? {
            all.push(Token::Value(Value::Text(value)));
            rest = after;
        } else if first.is_ascii_digit() {
            let (value, after) = number(rest)?;
            all.push(Token::Value(value));
            rest = after;
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            all.push(match word {
                "in" => Token::Sign("in"),
                "true" => Token::Value(Value::Bool(true)),
                "false" => Token::Value(Value::Bool(false)),
                word => Token::Word(word.to_owned()),
            });
            rest = after;
        } else {
            let found = SIGNS.iter().find_map(|sign| Some((*sign, rest.strip_prefix(sign)?)));
            let (sign, after) = found.ok_or_else(|| format!("`{first}` cannot be read"))?;
            all.push(Token::Sign(sign));
            rest = after;
        }
        rest = rest.trim_start();
    }
    Ok(all)
}

fn number(text: &str) -> Result<(Value, &str), String> {
    let large = |_| "the number is too large".to_owned();
    if let Some(hex) = text.strip_prefix("0x") {
        let (digits, rest) = hex.split_at(hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len()));
        let value = u64::from_str_radix(digits, 16).map_err(|_| "the number is too large".to_owned())?;
        return whole(value, rest);
    }
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let fraction = rest.strip_prefix('.').filter(|after| after.starts_with(|c: char| c.is_ascii_digit()));
    if let Some(fraction) = fraction {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        let (fraction, rest) = fraction.split_at(end);
        let value = format!("{digits}.{fraction}").parse().map_err(|_| "a number cannot be read".to_owned())?;
        return Ok((Value::Double(value), rest));
    }
    whole(digits.parse().map_err(large)?, rest)
}

fn whole(value: u64, rest: &str) -> Result<(Value, &str), String> {
    if let Some(rest) = rest.strip_prefix(['u', 'U']) {
        return Ok((Value::Uint(value), rest));
    }
    Ok((Value::Int(i64::try_from(value).map_err(|_| "the number is too large".to_owned())?), rest))
}

/// A text in quotes, with what is behind it.
fn string(text: &str) -> Result<Option<(String, &str)>, String> {
    let (raw, body) = match text.strip_prefix(['r', 'R']).filter(|rest| rest.starts_with(['\'', '"'])) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let Some(quote) = ["'''", "\"\"\"", "'", "\""].into_iter().find(|quote| body.starts_with(quote)) else {
        return Ok(None);
    };
    let mut rest = body.get(quote.len()..).unwrap_or_default();
    let mut read = String::new();
    loop {
        if let Some(after) = rest.strip_prefix(quote) {
            return Ok(Some((read, after)));
        }
        let mut chars = rest.chars();
        match chars.next().ok_or_else(|| "a text has no end".to_owned())? {
            '\\' if !raw => {
                let (c, after) = escape(chars.as_str())?;
                read.push(c);
                rest = after;
            }
            c => {
                read.push(c);
                rest = chars.as_str();
            }
        }
    }
}

fn escape(text: &str) -> Result<(char, &str), String> {
    let bad = || "a text has a `\\` that cannot be read".to_owned();
    let mut chars = text.chars();
    let first = chars.next().ok_or_else(bad)?;
    let rest = chars.as_str();
    let digits = match first {
        'x' | 'X' => 2,
        'u' => 4,
        'U' => 8,
        'n' => return Ok(('\n', rest)),
        't' => return Ok(('\t', rest)),
        'r' => return Ok(('\r', rest)),
        '\\' | '\'' | '"' | '`' | '?' => return Ok((first, rest)),
        _ => return Err(bad()),
    };
    let code = rest.get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
    Ok((code.ok_or_else(bad)?, rest.get(digits..).unwrap_or_default()))
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    deep: usize,
}

impl Reader {
    fn take(&mut self, sign: &str) -> bool {
        let is = matches!(self.tokens.get(self.at), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(is);
        is
    }

    fn want(&mut self, sign: &str) -> Result<(), String> {
        if self.take(sign) {
            return Ok(());
        }
        Err(match self.tokens.get(self.at) {
            None => "it ends too early".to_owned(),
            Some(token) => format!("`{}` was not expected", show(token)),
        })
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        if self.deep >= DEEP {
            return Err("it is nested too deep".to_owned());
        }
        self.deep += 1;
        let read = read(self);
        self.deep -= 1;
        read
    }

    fn whole(&mut self) -> Result<Expr, String> {
        self.deeper(|reader| {
            let first = reader.level(LEVELS)?;
            if !reader.take("?") {
                return Ok(first);
            }
            let yes = reader.whole()?;
            reader.want(":")?;
            Ok(Expr::If(Box::new([first, yes, reader.whole()?])))
        })
    }

    fn level(&mut self, levels: &[&[&'static str]]) -> Result<Expr, String> {
        let Some((signs, tighter)) = levels.split_first() else { return self.unary() };
        let mut left = self.level(tighter)?;
        let mut many = 0;
        while let Some(sign) = signs.iter().find(|sign| self.take(sign)) {
            many += 1;
            if many > DEEP {
                return Err("it is nested too deep".to_owned());
            }
            left = Expr::Two(sign, Box::new(left), Box::new(self.level(tighter)?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        self.deeper(|reader| {
            if reader.take("!") {
                return Ok(Expr::Not(Box::new(reader.unary()?)));
            }
            if reader.take("-") {
                return Ok(Expr::Minus(Box::new(reader.unary()?)));
            }
            reader.member()
        })
    }

    fn member(&mut self) -> Result<Expr, String> {
        let mut read = self.primary()?;
        for _ in 0..DEEP {
            if self.take(".") {
                let word = self.word()?;
                read = match (self.take("("), read) {
                    (true, of) => Expr::Call(Some(Box::new(of)), word, self.list(")")?),
                    (false, Expr::Name(name)) => Expr::Name(format!("{name}.{word}")),
                    (false, _) => return Err(format!("`.{word}` was not expected")),
                };
            } else if self.take("[") {
                let index = self.whole()?;
                self.want("]")?;
                read = Expr::Index(Box::new(read), Box::new(index));
            } else {
                return Ok(read);
            }
        }
        Err("it is nested too deep".to_owned())
    }

    fn word(&mut self) -> Result<String, String> {
        match self.tokens.get(self.at) {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word.clone())
            }
            _ => Err("a name was expected".to_owned()),
        }
    }

    fn primary(&mut self) -> Result<Expr, String> {
        let token = self.tokens.get(self.at).cloned().ok_or_else(|| "it ends too early".to_owned())?;
        self.at += 1;
        match token {
            Token::Value(value) => Ok(Expr::Value(value)),
            Token::Word(word) if self.take("(") => Ok(Expr::Call(None, word, self.list(")")?)),
            Token::Word(word) => Ok(Expr::Name(word)),
            Token::Sign("(") => {
                let inner = self.whole()?;
                self.want(")")?;
                Ok(inner)
            }
            Token::Sign("[") => Ok(Expr::List(self.list("]")?)),
            Token::Sign(sign) => Err(format!("`{sign}` was not expected")),
        }
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expr>, String> {
        let mut all = Vec::new();
        while !self.take(end) {
            if !all.is_empty() {
                self.want(",")?;
            }
            all.push(self.whole()?);
        }
        Ok(all)
    }
}
