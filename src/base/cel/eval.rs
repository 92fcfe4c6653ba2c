//! What an expression comes to.

use std::cmp::Ordering;

use super::glob;
use super::parse::Expr;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `true`, `false`.
    Bool(bool),
    /// `1`.
    Int(i64),
    /// `1u`.
    Uint(u64),
    /// `1.0`.
    Double(f64),
    /// `'a'`.
    Text(String),
    /// `[1, 2]`.
    List(Vec<Value>),
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "yes or no",
            Self::Int(_) | Self::Uint(_) | Self::Double(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
        }
    }
}

const UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("EiB", 1 << 60),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("EB", 1_000_000_000_000_000_000),
];

type Given<'g> = &'g dyn Fn(&str) -> Option<Value>;

pub(super) fn value(expr: &Expr, given: Given<'_>) -> Result<Value, String> {
    match expr {
        Expr::Value(value) => Ok(value.clone()),
        Expr::Name(name) => {
            let unit = || UNITS.iter().find(|(unit, _)| unit == name).map(|(_, factor)| Value::Uint(*factor));
            given(name).or_else(unit).ok_or_else(|| format!("{name} is not known here"))
        }
        Expr::List(all) => all.iter().map(|e| value(e, given)).collect::<Result<_, _>>().map(Value::List),
        Expr::Not(one) => Ok(Value::Bool(!truth(one, given)?)),
        Expr::Minus(one) => match value(one, given)? {
            Value::Int(n) => n.checked_neg().map(Value::Int).ok_or_else(|| TOO_LARGE.to_owned()),
            Value::Double(n) => Ok(Value::Double(-n)),
            other => Err(format!("`-` was not expected before {}", other.kind())),
        },
        Expr::Two("&&", a, b) => short(a, b, false, given),
        Expr::Two("||", a, b) => short(a, b, true, given),
        Expr::Two("in", a, b) => match (value(a, given)?, value(b, given)?) {
            (one, Value::List(all)) => Ok(Value::Bool(all.iter().any(|other| same(&one, other)))),
            (_, other) => Err(format!("nothing is in {}", other.kind())),
        },
        Expr::Two(sign, a, b) => two(sign, &value(a, given)?, &value(b, given)?),
        Expr::If(three) => {
            let [test, yes, no] = three.as_ref();
            value(if truth(test, given)? { yes } else { no }, given)
        }
        Expr::Index(of, index) => match (value(of, given)?, value(index, given)?) {
            (Value::List(all), index @ (Value::Int(_) | Value::Uint(_))) => {
                let at = match index {
                    Value::Int(n) => usize::try_from(n).ok(),
                    Value::Uint(n) => usize::try_from(n).ok(),
                    _ => None,
                };
                let found = at.and_then(|at| all.get(at)).cloned();
                found.ok_or_else(|| format!("there is no [{}] in it", at.map_or("-".to_owned(), |at| at.to_string())))
            }
            (of, _) => Err(format!("`[]` was not expected behind {}", of.kind())),
        },
        Expr::Call(of, name, arguments) => call(of.as_deref(), name, arguments, given),
    }
}

const TOO_LARGE: &str = "the number is too large, or divided by 0";

fn truth(expr: &Expr, given: Given<'_>) -> Result<bool, String> {
    match value(expr, given)? {
        Value::Bool(truth) => Ok(truth),
        other => Err(format!("{} is not yes or no", other.kind())),
    }
}

/// `||` is decided by a yes on either side, `&&` by a no, whatever the other side comes to.
fn short(a: &Expr, b: &Expr, decides: bool, given: Given<'_>) -> Result<Value, String> {
    let first = truth(a, given);
    if first == Ok(decides) {
        return Ok(Value::Bool(decides));
    }
    let second = truth(b, given);
    if second == Ok(decides) {
        return Ok(Value::Bool(decides));
    }
    first?;
    second.map(Value::Bool)
}

/// Numbers of different kinds are compared by what they are.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(_) | Value::Uint(_), Value::Int(_) | Value::Uint(_)) => Some(integer(a)?.cmp(&integer(b)?)),
        _ => double(a)?.partial_cmp(&double(b)?),
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    }
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Double(n) => Some(*n),
        #[expect(clippy::cast_precision_loss, reason = "as cel-go compares")]
        other => integer(other).map(|n| n as f64),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => order(a, b) == Some(Ordering::Equal),
    }
}

fn two(sign: &str, a: &Value, b: &Value) -> Result<Value, String> {
    let compared = |fits: fn(Ordering) -> bool| {
        let apart = || format!("{} and {} cannot be compared", a.kind(), b.kind());
        order(a, b).map(|order| Value::Bool(fits(order))).ok_or_else(apart)
    };
    match sign {
        "==" => Ok(Value::Bool(same(a, b))),
        "!=" => Ok(Value::Bool(!same(a, b))),
        "<" => compared(Ordering::is_lt),
        "<=" => compared(Ordering::is_le),
        ">" => compared(Ordering::is_gt),
        ">=" => compared(Ordering::is_ge),
        _ => reckon(sign, a, b),
    }
}

fn reckon(sign: &str, a: &Value, b: &Value) -> Result<Value, String> {
    let large = || TOO_LARGE.to_owned();
    match (a, b) {
        (Value::Text(a), Value::Text(b)) if sign == "+" => Ok(Value::Text(format!("{a}{b}"))),
        (Value::Int(a), Value::Int(b)) => {
            let (a, b) = (*a, *b);
            let done = match sign {
                "+" => a.checked_add(b),
                "-" => a.checked_sub(b),
                "*" => a.checked_mul(b),
                "/" => a.checked_div(b),
                _ => a.checked_rem(b),
            };
            done.map(Value::Int).ok_or_else(large)
        }
        (Value::Uint(a), Value::Uint(b)) => {
            let (a, b) = (*a, *b);
            let done = match sign {
                "+" => a.checked_add(b),
                "-" => a.checked_sub(b),
                "*" => a.checked_mul(b),
                "/" => a.checked_div(b),
                _ => a.checked_rem(b),
            };
            done.map(Value::Uint).ok_or_else(large)
        }
        (Value::Double(a), Value::Double(b)) => match sign {
            "+" => Ok(Value::Double(a + b)),
            "-" => Ok(Value::Double(a - b)),
            "*" => Ok(Value::Double(a * b)),
            "/" => Ok(Value::Double(a / b)),
            _ => Err("`%` was not expected between fractions".to_owned()),
        },
        (Value::Int(_) | Value::Uint(_), Value::Int(_) | Value::Uint(_)) => {
            Err(format!("`{sign}` was not expected between a number with u and without"))
        }
        (a, b) => Err(format!("`{sign}` was not expected between {} and {}", a.kind(), b.kind())),
    }
}

fn call(of: Option<&Expr>, name: &str, arguments: &[Expr], given: Given<'_>) -> Result<Value, String> {
    if let (Some(of), "exists" | "all", [variable, test]) = (of, name, arguments) {
        let Expr::Name(variable) = variable else { return Err("a name was expected".to_owned()) };
        let Value::List(all) = value(of, given)? else { return Err(format!("{name}() is for lists")) };
        let mut unsure = None;
        for item in all {
            let with = |asked: &str| if asked == variable { Some(item.clone()) } else { given(asked) };
            match truth(test, &with) {
                Ok(held) if held == (name == "exists") => return Ok(Value::Bool(held)),
                Ok(_) => {}
                Err(why) => unsure = Some(why),
            }
        }
        return unsure.map_or(Ok(Value::Bool(name == "all")), Err);
    }
    let of = of.map(|of| value(of, given)).transpose()?;
    let arguments: Vec<Value> = arguments.iter().map(|a| value(a, given)).collect::<Result<_, _>>()?;
    let length = |n: usize| i64::try_from(n).map(Value::Int).map_err(|_| TOO_LARGE.to_owned());
    match (of.as_ref(), name, arguments.as_slice()) {
        (None, "glob", [Value::Text(pattern), Value::Text(text)]) => Ok(Value::Bool(glob(pattern, text))),
        (Some(Value::Text(text)), "startsWith", [Value::Text(part)]) => Ok(Value::Bool(text.starts_with(part))),
        (Some(Value::Text(text)), "endsWith", [Value::Text(part)]) => Ok(Value::Bool(text.ends_with(part))),
        (Some(Value::Text(text)), "contains", [Value::Text(part)]) => Ok(Value::Bool(text.contains(part))),
        (Some(Value::Text(text)), "size", []) | (None, "size", [Value::Text(text)]) => length(text.chars().count()),
        (Some(Value::List(all)), "size", []) | (None, "size", [Value::List(all)]) => length(all.len()),
        (None, "uint", [Value::Uint(n)]) => Ok(Value::Uint(*n)),
        (None, "uint", [Value::Int(n)]) => u64::try_from(*n).map(Value::Uint).map_err(|_| TOO_LARGE.to_owned()),
        (None, "int", [Value::Int(n)]) => Ok(Value::Int(*n)),
        (None, "int", [Value::Uint(n)]) => i64::try_from(*n).map(Value::Int).map_err(|_| TOO_LARGE.to_owned()),
        (None, "glob" | "size" | "uint" | "int", _) | (Some(_), "startsWith" | "endsWith" | "contains" | "size", _) => {
            Err(format!("{name}() cannot take what it is given"))
        }
        _ => Err(format!("{name}() is not known here")),
    }
}
