//! `pvemig site check|example`.

use crate::blueprint;
use crate::site::{self, Site};

use super::args::{Global, SiteArgs, SiteVerb};
use super::exit::Exit;
use super::fail;
use super::out::Out;
use super::session::{plural, site_path};

pub(super) fn site(global: &Global, args: &SiteArgs, out: &Out) -> anyhow::Result<Exit> {
    match args.verb {
        SiteVerb::Example => {
            out.data(site::example())?;
            Ok(Exit::Done)
        }
        SiteVerb::Check => check(global, out),
    }
}

/// Every problem at once: of the file itself, of the migrations' parameters, of the files and variables that it names.
fn check(global: &Global, out: &Out) -> anyhow::Result<Exit> {
    let path = site_path(global)?;
    let width = out.width();
    let (site, mut problems) = Site::inspect(&path).map_err(|error| fail::site_error(&error, width))?;
    problems.extend(site.check_references());
    for (name, migration) in &site.migrations {
        match blueprint::named(&migration.blueprint) {
            Some(blueprint) => {
                if let Err(site::SiteError::Invalid(invalid)) = blueprint.build(&site, name) {
                    problems.extend(invalid.problems);
                }
            }
            None => {
                let names: Vec<_> = blueprint::ALL.iter().map(|b| b.name).collect();
                let text = format!("there is no blueprint `{}`", migration.blueprint);
                let help = format!("there is {}", names.join(", "));
                problems.push(site::Problem::new(format!("migrations.{name}.blueprint"), text, help));
            }
        }
    }
    if !problems.is_empty() {
        return Err(fail::site_error(&site.invalid(problems), width).into());
    }
    let counts = [
        (site.proxmox.len(), "Proxmox cluster"),
        (site.kubernetes.len(), "Kubernetes cluster"),
        (site.nodes.len(), "node"),
        (site.devices.len(), "device"),
        (site.migrations.len(), "migration"),
    ];
    let counts: Vec<_> = counts.into_iter().map(|(n, word)| plural(n, word)).collect();
    out.data(&format!("{}: good ({})\n", path.display(), counts.join(", ")))?;
    Ok(Exit::Done)
}
