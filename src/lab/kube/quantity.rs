//! Kubernetes quantities: `10Gi`, `500m`, `2`.

const UNITS: &[(&str, i128)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// A quantity in thousandths of its unit.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    if let Some(number) = text.strip_suffix('m') {
        return number.parse().ok();
    }
    let (number, factor) =
        UNITS.iter().find_map(|(unit, factor)| text.strip_suffix(unit).map(|n| (n, *factor))).unwrap_or((text, 1));
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if part.len() > 9 {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(part.len()).ok()?);
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    Some(digits * factor * 1_000 / scale)
}

/// A quantity in whole units, rounded down.
pub(crate) fn bytes(text: &str) -> Option<i128> {
    milli(text).map(|m| m / 1_000)
}

/// A quantity that stands as a text or as a number.
pub(crate) fn of(value: &serde_json::Value) -> i128 {
    match value {
        serde_json::Value::String(text) => milli(text).unwrap_or_default(),
        other => other.as_i64().map_or(0, |n| i128::from(n) * 1_000),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn quantities_are_read() {
        for (text, thousandths) in [
            ("1", 1_000),
            ("500m", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("10M", 10_000_000_000),
            ("0", 0),
            ("2Ki", 2_048_000),
        ] {
            assert_eq!(super::milli(text), Some(thousandths), "{text}");
        }
        assert_eq!(super::milli("x"), None);
    }
}
