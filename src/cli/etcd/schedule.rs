//! `--schedule`: what takes a snapshot every night without anybody, on this machine or in the cluster.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

use crate::base::names::TalosAddress;
use crate::cli::exit::Exit;
use crate::cli::fail::{self, Words};
use crate::cli::out::Out;
use crate::cli::session::Session;
use crate::cli::words::quoted;

use super::args::{Schedule, SnapshotArgs};
use super::{ROLE, member};

const CRONJOB: &str = include_str!("cronjob.yaml");
/// The namespace in it.
const NAMESPACE: &str = "etcd-snapshots";
/// Of the image in it, where nobody said which version runs.
const NO_VERSION: &str = "VERSION";

/// Prints the parts; asks the nodes for their version where that matters, and changes nothing.
pub(super) async fn print(
    session: &Session,
    cluster: &str,
    args: &SnapshotArgs,
    part: Schedule,
    out: &Out,
) -> anyhow::Result<Exit> {
    let line = Line::of(session, cluster, args)?;
    let (service, timer) = (line.service()?, line.timer());
    let name = unit(cluster);
    let command = |part: &str| out.commands(&format!("`pvemig {} --schedule={part}`", line.typed())).replace('`', "");
    let at = |end: &str| format!("/etc/systemd/system/{name}.{end}");
    let text = match part {
        Schedule::Service => service,
        Schedule::Timer => timer,
        Schedule::Cronjob => cronjob(session, cluster, args, out).await?,
        Schedule::All => {
            let put = |end: &str| format!("# {} | sudo tee {}\n", command(end), at(end));
            let (first, second) = (put("service"), put("timer"));
            let begin = format!("# sudo systemctl daemon-reload && sudo systemctl enable --now {name}.timer\n");
            let look = format!("# sudo systemctl start {name}.service && journalctl -u {name}.service\n");
            let apply = format!("# {} | kubectl apply -f -\n", command("cronjob"));
            let cronjob = cronjob(session, cluster, args, out).await?;
            format!(
                "# On a machine with systemd, outside the cluster. This puts it there, begins it, and tries it:\n\
                 {first}{second}{begin}{look}\n{service}\n{timer}\n\
                 # Or in the cluster, with talosctl:\n{apply}\n{cronjob}"
            )
        }
    };
    let sealed = !(args.recipient.is_empty() && args.recipients_file.is_empty());
    if sealed && matches!(part, Schedule::All | Schedule::Cronjob) {
        out.notice("the CronJob encrypts nothing: its snapshots are for whoever can read the volume");
    }
    out.data(&text)?;
    if args.keep.is_none() {
        out.notice("without `--keep` no snapshot is ever removed");
    }
    Ok(Exit::Done)
}

/// The name of the units of a cluster.
fn unit(cluster: &str) -> String {
    format!("pvemig-etcd-{cluster}")
}

/// The command that a timer runs: every place in it absolute, since it begins in another directory.
struct Line {
    cluster: String,
    program: String,
    site: String,
    dir: String,
    rest: Vec<String>,
    /// Whose files it reads and writes: who asked.
    user: u32,
}

fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path)?;
    let shown = path.display().to_string();
    path.into_os_string().into_string().ok().filter(|path| !path.contains(char::is_control)).ok_or_else(|| {
        Words::usage(format!("{shown} cannot be written into a unit of systemd"), "give it a name of plain letters")
            .into()
    })
}

impl Line {
    fn of(session: &Session, cluster: &str, args: &SnapshotArgs) -> anyhow::Result<Self> {
        let mut rest = Vec::new();
        if let Some(keep) = args.keep {
            rest.extend(["--keep".to_owned(), keep.to_string()]);
        }
        for recipient in &args.recipient {
            rest.extend(["--recipient".to_owned(), recipient.trim().to_owned()]);
        }
        for file in &args.recipients_file {
            rest.extend(["--recipients-file".to_owned(), absolute(file)?]);
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            program: absolute(&std::env::current_exe()?)?,
            site: absolute(&session.site.path)?,
            dir: absolute(&args.to)?,
            rest,
            user: std::fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or_default(),
        })
    }

    /// As it is typed here.
    fn typed(&self) -> String {
        let words = ["etcd", "snapshot", &self.cluster, "--to", &self.dir].into_iter().map(str::to_owned);
        words.chain(self.rest.iter().cloned()).map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
    }

    fn service(&self) -> anyhow::Result<String> {
        let words = ["--site", &self.site, "etcd", "snapshot", &self.cluster, "--to", &self.dir].into_iter();
        let words: String =
            words.chain(self.rest.iter().map(String::as_str)).map(|w| format!(" {}", argument(w))).collect();
        let Self { cluster, user, .. } = self;
        let (program, dir) = (place(&self.program), place(&self.dir));
        let writable = place(&format!("-{}", self.dir));
        Ok(format!(
            "# {unit}.service\n\
             [Unit]\n\
             Description=Snapshot of etcd of Talos cluster {cluster}\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             # Not into the empty directory below a disk that is not mounted.\n\
             RequiresMountsFor={dir}\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             # Who may read the talosconfig of the site, and write there.\n\
             User={user}\n\
             ExecStart={program}{words}\n\
             TimeoutStartSec=1h\n\
             UMask=0077\n\
             NoNewPrivileges=yes\n\
             ProtectSystem=strict\n\
             ReadWritePaths={writable}\n",
            unit = unit(cluster)
        ))
    }

    fn timer(&self) -> String {
        let cluster = &self.cluster;
        format!(
            "# {unit}.timer\n\
             [Unit]\n\
             Description=Every night a snapshot of etcd of Talos cluster {cluster}\n\
             \n\
             [Timer]\n\
             OnCalendar=*-*-* 02:17:00\n\
             # Not all clusters of a house at once.\n\
             RandomizedDelaySec=30min\n\
             # One that was missed is made up for at the next start.\n\
             Persistent=true\n\
             \n\
             [Install]\n\
             WantedBy=timers.target\n",
            unit = unit(cluster)
        )
    }
}

/// A path as a unit of systemd takes it: `%` begins a specifier there.
fn place(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    let path = path.replace('%', "%%");
    if path.chars().all(plain) { path } else { format!("\"{}\"", path.replace('\\', r"\\").replace('"', "\\\"")) }
}

/// A word of a command there: `$` begins a variable.
fn argument(word: &str) -> String {
    place(&word.replace('$', "$$"))
}

/// A name that Kubernetes takes.
fn kubernetes_name(cluster: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    // A CronJob's may have 52 signs.
    let name: String = cluster.chars().map(plain).take(36).collect();
    format!("etcd-snapshot-{}", name.trim_matches('-'))
}

/// The manifests: with talosctl of the cluster's own version, since this program has no image.
async fn cronjob(session: &Session, cluster: &str, args: &SnapshotArgs, out: &Out) -> anyhow::Result<String> {
    let heard = member::ask(session, cluster).await.map_err(fail::failure)?;
    let version = heard.members.iter().find_map(|member| member.version.clone());
    if version.is_none() {
        let why = heard.others.first().map(|(node, why)| format!(" ({node}: {why})")).unwrap_or_default();
        out.notice(&format!(
            "no control plane said which Talos it runs{why}: put that, as `v1.11.5`, in place of {NO_VERSION} in the CronJob"
        ));
    }
    let mut nodes: Vec<String> = heard.members.iter().map(|member| member.node.clone()).collect();
    nodes.sort();
    let address = |node: &String| {
        let (_, node) = session.site.talos_node(node)?;
        node.address.parse::<TalosAddress>().ok().map(|address| address.host)
    };
    let nodes: Vec<String> = nodes.iter().filter_map(address).collect();
    Ok(manifests(
        cluster,
        args.keep,
        !(args.recipient.is_empty() && args.recipients_file.is_empty()),
        version.as_deref(),
        &nodes,
    ))
}

fn manifests(cluster: &str, keep: Option<u32>, sealed: bool, version: Option<&str>, nodes: &[String]) -> String {
    // From 1.14 on it is a document of its own.
    let minor = version.and_then(|v| v.trim_start_matches('v').split('.').nth(1)?.parse::<u32>().ok());
    let access = json!({ "allowedRoles": [ROLE], "allowedKubernetesNamespaces": [NAMESPACE] });
    let patch = if minor.is_some_and(|minor| minor >= 14) {
        let mut document = json!({ "apiVersion": "v1alpha1", "kind": "KubeTalosAPIAccessConfig" });
        document.as_object_mut().into_iter().for_each(|d| d.extend(access.as_object().cloned().unwrap_or_default()));
        document
    } else {
        let mut access = access;
        access["enabled"] = json!(true);
        json!({ "machine": { "features": { "kubernetesTalosAPIAccess": access } } })
    };
    let not_sealed = if sealed {
        "\n# It encrypts nothing: there is no image with both. Where the claim is for others to read, take the timer, or\n# github.com/siderolabs/talos-backup.\n#"
    } else {
        ""
    };
    let remove = keep.map(|keep| {
        // A name of the site file has no other sign that means something in it.
        let pattern =
            format!("^{}-[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{6}}Z\\.snapshot$", cluster.replace('.', "\\."));
        // In their order behind the new one: what is dated after it, by a clock that was ahead, is never the oldest.
        let lines = [
            format!("left={} seen=", keep.saturating_sub(1)),
            format!("for old in `ls -1 | {{ grep -E '{pattern}' || true; }} | sort -r`; do"),
            "  if [ \"$old\" = \"$name\" ]; then".to_owned(),
            "    seen=1".to_owned(),
            "  elif [ -z \"$seen\" ]; then".to_owned(),
            "    echo \"$old is dated after it: it does not count, and stays\"".to_owned(),
            "  elif [ \"$left\" = 0 ]; then".to_owned(),
            "    rm -- \"$old\"".to_owned(),
            "    echo \"removed $old\"".to_owned(),
            "  elif whole \"$old\"; then".to_owned(),
            "    left=$((left - 1))".to_owned(),
            "  else".to_owned(),
            "    echo \"$old is not whole: it does not count, and stays\"".to_owned(),
            "  fi".to_owned(),
            "done".to_owned(),
        ];
        lines.map(|line| format!("{}{line}", " ".repeat(18))).join("\n")
    });
    let nodes = if nodes.is_empty() { "CONTROL-PLANES".to_owned() } else { nodes.join(",") };
    CRONJOB
        .replace("@KEEP@\n", &remove.map(|lines| lines + "\n").unwrap_or_default())
        .replace("\n#@NOT_SEALED@", not_sealed)
        .replace("@CLUSTER@", cluster)
        .replace("@NAME@", &kubernetes_name(cluster))
        .replace("@NODES@", &nodes)
        .replace("@PATCH@", &patch.to_string())
        .replace("@VERSION@", version.unwrap_or(NO_VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_unit_mean_what_they_say() {
        assert_eq!((place("/srv/etcd").as_str(), place("/my disk/50%").as_str()), ("/srv/etcd", "\"/my disk/50%%\""));
        assert_eq!(argument("/a $b\"c\\d"), "\"/a $$b\\\"c\\\\d\"");
        assert_eq!(kubernetes_name("Home.Lab_2-"), "etcd-snapshot-home-lab-2");
        assert!(kubernetes_name(&"x".repeat(99)).len() <= 52);
    }

    #[test]
    fn manifests_are_of_the_version_and_name_no_placeholder() {
        let nodes = ["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        let mut seen = 0;
        for (version, patch) in [
            (
                Some("v1.11.5"),
                r#"{"machine":{"features":{"kubernetesTalosAPIAccess":{"allowedRoles":["os:etcd:backup"]"#,
            ),
            (Some("v1.14.0"), r#"{"apiVersion":"v1alpha1","kind":"KubeTalosAPIAccessConfig","allowedRoles":["#),
            (None, r#"{"machine":{"features":"#),
        ] {
            for keep in [None, Some(7)] {
                let text = manifests("homelab", keep, keep.is_some(), version, &nodes);
                assert!(
                    !text.contains('@') && text.contains(patch) && text.contains("-n 10.0.0.1,10.0.0.2 patch"),
                    "{text}"
                );
                assert!(text.contains(&format!("talosctl:{}\n", version.unwrap_or(NO_VERSION))));
                assert_eq!(
                    (text.contains("left=6 seen="), text.contains("encrypts nothing")),
                    (keep.is_some(), keep.is_some())
                );
                let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
                let kinds: Vec<_> = documents.iter().map(|d| d["kind"].as_str().unwrap_or_default()).collect();
                assert_eq!(kinds, ["Namespace", "ServiceAccount", "PersistentVolumeClaim", "CronJob"]);
                seen += 1;
            }
        }
        assert_eq!(seen, 6);
    }
}
