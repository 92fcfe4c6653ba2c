//! `pvemig explain STEP`.

use crate::blueprint;
use crate::engine::step::Risk;

use super::args::{ExplainArgs, Global};
use super::exit::Exit;
use super::fail::Words;
use super::out::Out;
use super::plan::wrap;
use super::session::{Session, site_path};

/// What a step does, what can go wrong, what one would type by hand. With a site file: with its real names.
pub(super) fn explain(global: &Global, args: &ExplainArgs, out: &Out) -> anyhow::Result<Exit> {
    let found = blueprint::ALL.iter().find_map(|b| Some((b, b.row(&args.step)?)));
    let Some((blueprint, row)) = found else {
        return Err(Words::usage(format!("there is no step `{}`", args.step), known_steps()).into());
    };
    let mut text = format!("{} (blueprint {}, version {})\n", row.id, blueprint.name, blueprint.version);
    let risk = match row.risk {
        Risk::Reads => "only looks; may ask a person to act",
        Risk::Reverts => "changes things, and can take them back",
        Risk::Destroys => "changes things that cannot be brought back",
    };
    text.push_str(&format!("  it {risk}\n"));
    if let Some(closer) = row.holds_until {
        text.push_str(&format!("  a hold: {closer} takes it back\n"));
    }
    if !row.aliases.is_empty() {
        text.push_str(&format!("  also called {}\n", row.aliases.join(", ")));
    }
    for (flag, _, help) in row.flags {
        text.push_str(&format!("  --{flag:<10} {help}\n"));
    }
    // Without a readable site file the reasons are still worth reading: those of the example estate.
    let home = Some(std::path::PathBuf::from("/root"));
    let example = crate::site::Site::parse(crate::site::example(), std::path::Path::new("site.yaml"), home)
        .map_err(|error| super::fail::site_error(&error, out.width()))?;
    let session = match Session::open(global, out) {
        Ok(session) => Some(session),
        // A file that was named is meant.
        Err(error) if global.site.is_some() => return Err(error),
        Err(error) => {
            // No site file at all is as usual as one; a broken one is worth a word.
            if site_path(global).is_ok() {
                out.say(&format!(
                    "notice: the site file cannot be used (`pvemig site check`), so this is the example's: {error}"
                ));
            }
            None
        }
    };
    let real = session.as_ref().and_then(|session| {
        let of = |name: &String| session.migration(name).ok();
        session.site.migrations.keys().filter_map(of).find(|(b, _)| b.name == blueprint.name)
    });
    let names = if real.is_some() { "" } else { "example: " };
    let steps = match real {
        Some((_, steps)) => steps,
        None => example_steps(&example, blueprint)?,
    };
    if let Some(step) = steps.iter().find(|s| s.id() == row.id) {
        text.push_str(&format!("\n{names}{}\n\n", step.title()));
        for line in step.why() {
            for (n, part) in wrap(&line, out.width().saturating_sub(4)).into_iter().enumerate() {
                text.push_str(&format!("  {} {part}\n", if n == 0 { "-" } else { " " }));
            }
        }
    }
    out.data(&text)?;
    Ok(Exit::Done)
}

fn example_steps(
    site: &crate::site::Site,
    blueprint: &blueprint::Blueprint,
) -> anyhow::Result<Vec<blueprint::BoxedStep>> {
    let name = site.migrations.iter().find(|(_, m)| m.blueprint == blueprint.name).map(|(name, _)| name);
    let Some(name) = name else { return Ok(Vec::new()) };
    blueprint.build(site, name).map_err(|error| super::fail::site_error(&error, 80).into())
}

/// All steps in one line.
pub(super) fn known_steps() -> String {
    let ids: Vec<_> = blueprint::ALL.iter().flat_map(|b| b.rows).map(|r| r.id).collect();
    format!("the steps are {}", ids.join(", "))
}
