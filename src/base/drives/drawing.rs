//! The drawing of a machine's slots, in two layouts.

use super::{Layout, Plan, Wanted};
use crate::base::check::bytes;

/// The signs of a drawing: corner and crossing, line across, line down, arrow.
struct Signs {
    cross: [[&'static str; 3]; 3],
    across: &'static str,
    down: &'static str,
    from: &'static str,
}

const ASCII: Signs = Signs { cross: [["+"; 3]; 3], across: "-", down: "|", from: "<-" };
const LINES: Signs =
    Signs {
        cross: [["┌", "┬", "┐"], ["├", "┼", "┤"], ["└", "┴", "┘"]], across: "─", down: "│", from: "←"
    };

/// One table, a row for each slot: what is in it in one layout, and in another one. What moves is marked with where it comes
/// from; what leaves has a row of its own below. Whole in 80 columns and in more; `ascii` for what shows no lines.
pub fn drawing(machine: &str, plan: &Plan, from: &Layout, to: &Layout, width: usize, ascii: bool) -> Vec<String> {
    let signs = if ascii { &ASCII } else { &LINES };
    // Three columns, four lines down and two blanks in each cell.
    let room = width.clamp(60, 120) - 10;
    let first = room * 3 / 10;
    let second = (room - first) / 2;
    let widths = [first, second, room - first - second];
    let cell = |name: &str| -> Vec<String> {
        let mut lines = vec![name.to_owned()];
        lines.extend(plan.drives.get(name).map(facts).unwrap_or_default());
        lines
    };
    let mut rows: Vec<[Vec<String>; 3]> = Vec::new();
    for slot in &plan.slots {
        let (was, is) = (from.get(&slot.name), to.get(&slot.name));
        let before = was.map_or_else(|| vec!["-".to_owned()], |name| cell(name));
        let after = match is {
            None => vec!["-".to_owned()],
            // It stays: once is enough.
            Some(name) if was == Some(name) => vec![name.clone()],
            Some(name) => {
                let place = Plan::slot_of(from, name).unwrap_or("outside");
                let mut lines = cell(name);
                if let Some(head) = lines.first_mut() {
                    *head = format!("{name} {} {place}", signs.from);
                }
                lines
            }
        };
        let mut place = vec![slot.name.clone()];
        place.extend((!slot.position.is_empty()).then(|| slot.position.clone()));
        rows.push([place, before, after]);
    }
    for (slot, name) in from.iter().filter(|(_, name)| Plan::slot_of(to, name).is_none()) {
        let mut lines = cell(name);
        if let Some(head) = lines.first_mut() {
            *head = format!("{name} {} {slot}", signs.from);
        }
        rows.push([vec!["outside".to_owned()], vec!["-".to_owned()], lines]);
    }
    let in_none = |name: &&String| Plan::slot_of(from, name).is_none() && Plan::slot_of(to, name).is_none();
    for name in plan.drives.keys().filter(in_none) {
        let mut lines = cell(name);
        if let Some(head) = lines.first_mut() {
            *head = format!("{name}, not seen in a slot");
        }
        rows.push([vec!["outside".to_owned()], lines, vec![name.clone()]]);
    }
    let rule = |at: usize| {
        let [left, middle, right] = signs.cross.get(at).copied().unwrap_or(["+"; 3]);
        let parts: Vec<String> = widths.iter().map(|width| signs.across.repeat(width + 2)).collect();
        format!("{left}{}{right}", parts.join(middle))
    };
    let mut out = vec![rule(0)];
    out.extend(row(&[vec![machine.to_owned()], vec!["from".to_owned()], vec!["to".to_owned()]], widths, signs));
    for cells in &rows {
        out.push(rule(1));
        out.extend(row(cells, widths, signs));
    }
    out.push(rule(2));
    out
}

/// What tells a drive to a person who has it in the hand, and what it is for.
fn facts(wanted: &Wanted) -> Vec<String> {
    let or = |text: &str, none: &str| if text.trim().is_empty() { none.to_owned() } else { text.trim().to_owned() };
    let size = wanted.size.map(bytes);
    let what = [Some(wanted.model.trim()).filter(|model| !model.is_empty()), size.as_deref()];
    let what: Vec<&str> = what.into_iter().flatten().collect();
    let purposes: Vec<String> = wanted.purposes.iter().map(ToString::to_string).collect();
    let mut lines = vec![or(&wanted.serial, "no serial number")];
    lines.extend((!what.is_empty()).then(|| what.join(", ")));
    lines.extend((!purposes.is_empty()).then(|| purposes.join(", ")));
    lines
}

/// A row: as many lines as its longest cell has.
fn row(cells: &[Vec<String>; 3], widths: [usize; 3], signs: &Signs) -> Vec<String> {
    let wrapped: Vec<Vec<String>> = cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| cell.iter().flat_map(|line| wrap(line, width)).collect())
        .collect();
    let height = wrapped.iter().map(Vec::len).max().unwrap_or_default();
    (0..height)
        .map(|line| {
            let parts: Vec<String> = wrapped
                .iter()
                .zip(widths)
                .map(|(cell, width)| {
                    let text = cell.get(line).map_or("", String::as_str);
                    format!(" {text}{} ", " ".repeat(width.saturating_sub(text.chars().count())))
                })
                .collect();
            format!("{}{}{}", signs.down, parts.join(signs.down), signs.down)
        })
        .collect()
}

/// Lines of no more than so many characters, broken between words where that goes.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word: String = word.chars().filter(|c| !c.is_control()).collect();
        let room = width.saturating_sub(line.chars().count() + usize::from(!line.is_empty()));
        if word.chars().count() > room && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        while word.chars().count() > width {
            let rest = word.chars().skip(width).collect();
            lines.push(std::mem::replace(&mut word, rest).chars().take(width).collect());
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Purpose, Scenario, Slot};
    use super::*;

    fn plan() -> Plan {
        let slot = |name: &str, position: &str| Slot { name: name.into(), position: position.into(), port: None };
        let wanted = |serial: &str, model: &str, size, purpose| Wanted {
            serial: serial.into(),
            model: model.into(),
            size,
            purposes: vec![purpose],
            ..Wanted::default()
        };
        let drives = [
            ("sys", wanted("S5GXNF0R601234", "Samsung SSD 980 PRO 1TB", Some(1_000_204_886_016), Purpose::System)),
            ("media", wanted("22471A806001", "WD_BLACK SN770 2TB", None, Purpose::UserVolume("media".into()))),
            ("pool", wanted("2J4720113456", "", Some(1_024_209_543_168), Purpose::Mayastor("pool-nuc".into()))),
            ("old", wanted("", "", None, Purpose::Spare)),
        ];
        let layout = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        Plan {
            slots: vec![
                slot("M2_1", "beside the processor, under the heat sink"),
                slot("M2_2", "under the battery"),
                slot("M2_3", ""),
                slot("M2_4", "on the riser"),
            ],
            drives: drives.map(|(name, wanted)| (name.to_owned(), wanted)).into(),
            current: layout(&[("M2_1", "sys"), ("M2_2", "media"), ("M2_4", "old")]),
            target: layout(&[("M2_1", "sys"), ("M2_3", "media"), ("M2_2", "pool")]),
            scenario: Scenario::Data,
        }
    }

    #[test]
    fn a_drive_that_lies_outside_has_a_row_all_the_same() {
        let plan = plan();
        let without: Layout =
            plan.current.iter().filter(|(_, name)| *name != "media").map(|(a, b)| (a.clone(), b.clone())).collect();
        let lines = drawing("n1", &plan, &without, &without, 80, true);
        let row = lines.iter().find(|line| line.contains("outside")).unwrap();
        assert_eq!(row.matches("media").count(), 2, "{lines:#?}");
    }

    #[test]
    fn a_drawing_fits_into_eighty_columns() {
        let plan = plan();
        let drawn = drawing("talos-nuc", &plan, &plan.current, &plan.target, 80, true);
        let expected = "\
+-----------------------+--------------------------+---------------------------+
| talos-nuc             | from                     | to                        |
+-----------------------+--------------------------+---------------------------+
| M2_1                  | sys                      | sys                       |
| beside the processor, | S5GXNF0R601234           |                           |
| under the heat sink   | Samsung SSD 980 PRO 1TB, |                           |
|                       | 931.5 GiB                |                           |
|                       | system                   |                           |
+-----------------------+--------------------------+---------------------------+
| M2_2                  | media                    | pool <- outside           |
| under the battery     | 22471A806001             | 2J4720113456              |
|                       | WD_BLACK SN770 2TB       | 953.8 GiB                 |
|                       | user-volume media        | mayastor pool-nuc         |
+-----------------------+--------------------------+---------------------------+
| M2_3                  | -                        | media <- M2_2             |
|                       |                          | 22471A806001              |
|                       |                          | WD_BLACK SN770 2TB        |
|                       |                          | user-volume media         |
+-----------------------+--------------------------+---------------------------+
| M2_4                  | old                      | -                         |
| on the riser          | no serial number         |                           |
|                       | spare                    |                           |
+-----------------------+--------------------------+---------------------------+
| outside               | -                        | old <- M2_4               |
|                       |                          | no serial number          |
|                       |                          | spare                     |
+-----------------------+--------------------------+---------------------------+";
        assert_eq!(drawn.join("\n"), expected);
        assert!(drawn.iter().all(|line| line.is_ascii() && line.len() == 80), "{drawn:#?}");
        let lines = drawing("talos-nuc", &plan, &plan.current, &plan.target, 80, false);
        assert_eq!(lines.len(), drawn.len());
        assert!(lines.iter().all(|line| line.chars().count() == 80));
        assert!(lines[0].starts_with('┌') && lines[lines.len() - 1].ends_with('┘'));
    }

    #[test]
    fn the_way_back_is_drawn_the_other_way() {
        let plan = plan();
        let text = drawing("nuc", &plan, &plan.target, &plan.current, 120, true).join("\n");
        assert!(
            text.contains("media <- M2_3") && text.contains("old <- outside") && text.contains("pool <- M2_2"),
            "{text}"
        );
    }

    #[test]
    fn words_are_broken_only_where_they_must() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a abcdefghij b", 4), ["a", "abcd", "efgh", "ij b"]);
        assert_eq!((wrap("", 4), wrap("ab\u{1b}cd", 4)), (vec![String::new()], vec!["abcd".to_owned()]));
    }

    proptest! {
        #[test]
        fn every_line_is_as_wide_as_the_others(position: String, name in "\\PC{0,60}", width in 0..200_usize, ascii: bool) {
            let mut plan = plan();
            plan.slots[0].position = position;
            let drawn = drawing(&name, &plan, &plan.current, &plan.target, width, ascii);
            let wide = width.clamp(60, 120);
            prop_assert!(drawn.iter().all(|line| line.chars().count() == wide), "{drawn:#?}");
        }
    }
}
