//! `pvemig site check|example`.

use jiff::Timestamp;

use crate::base::clock::Clock;
use crate::base::fault::Fault;
use crate::base::survey::renewal;
use crate::blueprint;
use crate::site::{self, Problem, Site};
use crate::talos::{ClientCertificate, Dates, Talosconfig, TalosconfigError};

use super::args::{Global, SiteArgs, SiteVerb};
use super::exit::Exit;
use super::fail;
use super::given::site_path;
use super::out::Out;
use super::session::plural;

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
    let makes = blueprint::cluster_build::makes(&site);
    let to_come = |problem: &Problem| {
        let cluster = makes.iter().find(|name| problem.path == format!("kubernetes.{name}.kubeconfig"))?;
        let file = &site.kubernetes.get(*cluster)?.kubeconfig;
        // A link to nothing is there, and wrong.
        std::fs::symlink_metadata(file).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound).then_some(file)
    };
    for problem in site.check_references() {
        match to_come(&problem) {
            Some(file) => out.notice(&format!("there is no {} yet: 06 of cluster-build makes it", file.display())),
            None => problems.push(problem),
        }
    }
    let (more, notices) = talosconfigs(&site, Clock::real().now());
    problems.extend(more);
    for (name, migration) in &site.migrations {
        match blueprint::named(&migration.blueprint) {
            Some(blueprint) => {
                if let Err(site::SiteError::Invalid(invalid)) = blueprint.build(&site, name) {
                    problems.extend(invalid.problems);
                }
                problems.extend(blueprint.files(&site, name));
            }
            None => {
                let names: Vec<_> = blueprint::ALL.iter().map(|b| b.name).collect();
                let text = format!("there is no blueprint `{}`", migration.blueprint);
                let help = format!("there is {}", names.join(", "));
                problems.push(Problem::new(format!("migrations.{name}.blueprint"), text, help));
            }
        }
    }
    notices.iter().for_each(|text| out.notice(text));
    if !problems.is_empty() {
        return Err(fail::site_error(&site.invalid(problems), width).into());
    }
    let counts = [
        (site.proxmox.len(), "Proxmox cluster"),
        (site.kubernetes.len(), "Kubernetes cluster"),
        (site.nodes.len(), "node"),
        (site.talos_node_names.len(), "Talos node"),
        (site.devices.len(), "device"),
        (site.migrations.len(), "migration"),
    ];
    let counts: Vec<_> = counts.into_iter().map(|(n, word)| plural(n, word)).collect();
    out.data(&format!("{}: good ({})\n", path.display(), counts.join(", ")))?;
    Ok(Exit::Done)
}

/// What is wrong with the contexts of the talosconfigs, and what will be soon. Files that cannot be used at all are the
/// site's own affair.
fn talosconfigs(site: &Site, now: Timestamp) -> (Vec<Problem>, Vec<String>) {
    let (mut problems, mut notices) = (Vec::new(), Vec::new());
    for (name, cluster) in &site.talos {
        let at = format!("talos.{name}");
        let opened =
            Talosconfig::read(&cluster.talosconfig).and_then(|config| config.context(cluster.context.as_deref()));
        let context = match opened {
            Ok(context) => context,
            Err(TalosconfigError::Private(_)) => continue,
            Err(error) => {
                let of_context =
                    matches!(error, TalosconfigError::NoContext { .. } | TalosconfigError::NoCurrent { .. });
                let key = if of_context && cluster.context.is_some() { "context" } else { "talosconfig" };
                let help = error.help().unwrap_or_default();
                problems.push(Problem::new(format!("{at}.{key}"), error.to_string(), help));
                continue;
            }
        };
        let (context_name, file) = (&context.name, context.file.display());
        let whose = format!("the client certificate of context `{context_name}` in {file}");
        let at = format!("{at}.talosconfig");
        let ClientCertificate { from, until, .. } = &context.certificate;
        match context.certificate.dates(now) {
            Dates::Good => {}
            Dates::NearEnd => {
                let days = context.certificate.left(now).as_hours() / 24;
                notices.push(format!(
                    "{whose} ends in {}, on {until}: `talosctl -n CONTROL-PLANE {}` makes another one as long as this one holds",
                    plural(usize::try_from(days).unwrap_or_default(), "day"),
                    renewal(&file.to_string(), Some(context_name.as_str()), &context.certificate.roles),
                ));
            }
            Dates::Ended => {
                let help = "make another one from the secrets of the cluster: `talosctl gen config` with \
                            `--with-secrets`, or take the admin's talosconfig";
                problems.push(Problem::new(at, format!("{whose} ended on {until}"), help));
            }
            Dates::Early => {
                let text = format!("{whose} holds only from {from} on");
                problems.push(Problem::new(at, text, "is the clock of this machine right? `date -u` shows it"));
            }
        }
    }
    (problems, notices)
}
