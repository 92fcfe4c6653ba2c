//! Machine configurations: modes, dry runs, trials, refusals, and what each version makes of them.

pub(super) use pvemig::talos::proto::machine::apply_configuration_request::Mode;
use pvemig::talos::proto::machine::{ApplyConfiguration, ApplyConfigurationRequest};

use super::*;

async fn send(b: &Bench, node: &str, request: ApplyConfigurationRequest) -> Result<ApplyConfiguration, Status> {
    let mut answer = b.machine(node).apply_configuration(request).await?.into_inner();
    assert_eq!((answer.messages.len(), &answer.messages[0].metadata), (1, &None));
    Ok(answer.messages.remove(0))
}

pub(super) async fn apply(b: &Bench, node: &str, text: &str, mode: Mode) -> Result<ApplyConfiguration, Status> {
    let data = text.as_bytes().to_vec();
    send(b, node, ApplyConfigurationRequest { data, mode: mode.into(), ..Default::default() }).await
}

async fn config(b: &Bench, id: &str) -> String {
    let found = b.get_as("lab", MAC, ("config", "MachineConfigs.config.talos.dev", id)).await.unwrap();
    found.spec.unwrap().yaml_spec
}

/// A change that takes effect at once, and one that waits for a reboot.
fn changed(text: &str) -> (String, String) {
    let (live, later) =
        (text.replace("\"1024\"", "\"2048\""), text.replace("  certSANs", "  env: { A: b }\n  certSANs"));
    assert!(live != text && later != text);
    (live, later)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_does_what_it_says() {
    let b = Bench::new("talos-three").await;
    let old = config(&b, "v1alpha1").await;
    let (live, later) = changed(&old);
    let dry = ApplyConfigurationRequest {
        data: live.clone().into_bytes(),
        mode: Mode::Auto.into(),
        dry_run: true,
        ..Default::default()
    };
    let said = send(&b, MAC, dry).await.unwrap();
    assert!(
        said.mode_details.starts_with("Dry run summary:\nApplied configuration without a reboot (skipped in dry-run).")
    );
    assert!(said.mode_details.contains("-    vm.nr_hugepages: \"1024\"\n+    vm.nr_hugepages: \"2048\"\n"), "{said:?}");
    assert_eq!((b.count(Class::Change), config(&b, "v1alpha1").await), (0, old.clone()));

    let said = apply(&b, MAC, &live, Mode::Auto).await.unwrap();
    assert_eq!((said.mode(), said.mode_details.as_str()), (Mode::NoReboot, "Applied configuration without a reboot"));
    assert_eq!((config(&b, "v1alpha1").await, config(&b, "persistent").await), (live.clone(), live.clone()));
    let memory = b.machine(MAC).memory(()).await.unwrap().into_inner().messages.remove(0).meminfo.unwrap();
    assert_eq!((memory.hugepagestotal, memory.hugepagesize), (2_048, 2_048));

    refused(apply(&b, MAC, &later, Mode::NoReboot).await, Code::InvalidArgument, "can't be applied in immediate mode");
    let said = apply(&b, MAC, &later, Mode::Staged).await.unwrap();
    assert_eq!(
        (said.mode(), config(&b, "v1alpha1").await, config(&b, "persistent").await),
        (Mode::Staged, live, later)
    );
    let before = b.boot_id(MAC).await;
    let said = apply(&b, MAC, &old, Mode::Reboot).await.unwrap();
    assert_eq!(said.mode(), Mode::Reboot);
    b.back(MAC, &before).await;
    assert_eq!(config(&b, "v1alpha1").await, old);
    assert_eq!(b.count(Class::Change), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_ends_by_itself_and_never_reaches_the_disk() {
    let b = Bench::new("talos-three").await;
    let old = config(&b, "v1alpha1").await;
    let (live, _) = changed(&old);
    let said = apply(&b, MAC, &live, Mode::Try).await.unwrap();
    assert!(said.mode() == Mode::Try && said.mode_details.contains("will be automatically reverted"));
    assert_eq!(config(&b, "persistent").await, old);
    b.wait("it is over", |w| w.talos.nodes[MAC].run.as_ref().unwrap().active == old).await;
    // Another one makes it stay.
    apply(&b, MAC, &live, Mode::Try).await.unwrap();
    apply(&b, MAC, &live, Mode::NoReboot).await.unwrap();
    assert!(b.lab.shared().read(|w| w.talos.nodes[MAC].run.as_ref().unwrap().trying.is_none()));
    assert_eq!((config(&b, "persistent").await, b.count(Class::Change)), (live, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_differ_in_reboots_and_in_kinds() {
    let document = "---\napiVersion: v1alpha1\nkind: KernelModuleConfig\nname: nvme_tcp\n";
    let loaded = |w: &World| w.talos.nodes[MAC].run.as_ref().unwrap().loaded.contains("nvme_tcp");
    let mut counted = 0;
    for (version, auto_reboots, knows_kind) in
        [("1.11.5", true, false), ("1.12.11", true, false), ("1.13.9", true, false), ("1.14.0", false, true)]
    {
        let set = |w: &mut World| {
            w.talos.nodes.get_mut(MAC).unwrap().slots.values_mut().for_each(|i| i.version = version.into());
        };
        let b = Bench::with("talos-three", set).await;
        let old = config(&b, "v1alpha1").await;
        let (_, later) = changed(&old);
        let kind = apply(&b, MAC, &format!("{old}{document}"), Mode::NoReboot).await;
        match knows_kind {
            true => assert_eq!((kind.unwrap().mode(), b.lab.shared().read(loaded)), (Mode::NoReboot, true)),
            false => refused(kind, Code::InvalidArgument, "not registered"),
        }
        if !auto_reboots {
            refused(apply(&b, MAC, &old, Mode::Reboot).await, Code::Unimplemented, "");
        }
        let said = apply(&b, MAC, &later, Mode::Auto).await.unwrap();
        assert_eq!(said.mode() == Mode::Reboot, auto_reboots, "{version}");
        let boot = b.get_as("lab", NUC, ("runtime", "BootIDs.runtime.talos.dev", "boot-id")).await;
        refused(boot, Code::PermissionDenied, "resource type \"BootIDs.runtime.talos.dev\" is not supported");
        counted += 1;
    }
    assert_eq!(counted, 4);
}
