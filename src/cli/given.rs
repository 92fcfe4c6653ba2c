//! What the command line, the environment and this machine give: the site file, where its journals are, who this is.

use std::path::PathBuf;

use anyhow::Context;
use etcetera::BaseStrategy;

use crate::blueprint::{self, Blueprint};
use crate::engine::point::Points;
use crate::engine::store::{Ids, Store};
use crate::site::Site;

use super::args::Global;
use super::fail::{self, Words};
use super::out::Out;
use super::reach;

/// `PVEMIG_CRASH_AT` kills the process at a crash point, for tests of a real kill.
pub(super) fn crash_point() -> anyhow::Result<Points> {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    match std::env::var("PVEMIG_CRASH_AT") {
        Ok(at) => Points::kill(&at).context("PVEMIG_CRASH_AT must be a number, or `STEP EVENT before|sent [N]`"),
        Err(_) => Ok(Points::count()),
    }
}

/// `--site`, `$PVEMIG_SITE`, `./site.yaml`, the configuration directory.
pub(super) fn site_path(global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(path) = &global.site {
        return Ok(path.clone());
    }
    let here = PathBuf::from("site.yaml");
    if here.exists() {
        return Ok(here);
    }
    let configured = etcetera::choose_base_strategy().context("there is no home directory")?.config_dir();
    let configured = configured.join("pvemig").join("site.yaml");
    if configured.exists() {
        return Ok(configured);
    }
    let text = format!("there is no site file: neither ./site.yaml nor {}", configured.display());
    Err(Words::usage(text, "`pvemig site example > site.yaml` writes one to begin with; `--site FILE` names another")
        .into())
}

/// The site of these options.
pub(super) fn load(global: &Global, out: &Out) -> anyhow::Result<Site> {
    let site = Site::load(&site_path(global)?).map_err(|error| fail::site_error(&error, out.width()))?;
    reach::learn(&site);
    Ok(site)
}

/// Refuses while others may read a secret file, all of them at once, instead of meeting one after the other on the way.
pub(super) fn refuse_wide(site: &Site, out: &Out) -> anyhow::Result<()> {
    let wide = site.wide_files();
    if wide.is_empty() { Ok(()) } else { Err(fail::site_error(&site.invalid(wide), out.width()).into()) }
}

/// The site as far as its file is good, and its journals where there are any. Nothing is made for it.
pub(super) fn glance(global: &Global) -> Option<(Site, Option<Store>)> {
    let (site, _) = Site::inspect(&site_path(global).ok()?).ok()?;
    let state = state_dir(global, &site).ok()?;
    let there = state.join(&site.name).join("runs").is_dir();
    let store = there.then(|| Store::at(&state, &site.name, Ids::Random));
    Some((site, store))
}

/// `--state`, `$PVEMIG_STATE`, the site file's `state`, the XDG state directory.
pub(super) fn state_dir(global: &Global, site: &Site) -> anyhow::Result<PathBuf> {
    if let Some(path) = global.state.as_ref().or(site.state.as_ref()) {
        // `git` and others are run in other places.
        return std::path::absolute(path).with_context(|| format!("the state directory {}", path.display()));
    }
    let base = etcetera::choose_base_strategy().context("there is no home directory")?;
    Ok(base.state_dir().unwrap_or_else(|| base.data_dir()).join("pvemig"))
}

/// This machine's name, for journals and marks.
pub(super) fn hostname() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// The blueprint of a migration of the site.
pub(super) fn blueprint_of(site: &Site, name: &str) -> anyhow::Result<&'static Blueprint> {
    let Some(migration) = site.migrations.get(name) else {
        let names: Vec<_> = site.migrations.keys().map(|n| format!("`{n}`")).collect();
        let help =
            if names.is_empty() { "the site file has none".into() } else { format!("there is {}", names.join(", ")) };
        return Err(Words::usage(format!("the site file has no migration `{name}`"), help).into());
    };
    blueprint::named(&migration.blueprint).ok_or_else(|| {
        let names: Vec<_> = blueprint::ALL.iter().map(|b| format!("`{}`", b.name)).collect();
        Words::usage(
            format!("migration `{name}` names blueprint `{}`, which does not exist", migration.blueprint),
            format!("there is {}", names.join(", ")),
        )
        .into()
    })
}
