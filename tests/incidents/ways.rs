//! Ways into the guest: ssh that is refused, hangs or lies, and agents that are off, silent or curtailed.

use pvemig::lab::world::SshManner;
use pvemig::lab::{FaultEffect, FaultRule, Front, World};

use super::{DEVICE, Rig, assert_noted, assert_stopped, go, rig};

const GUEST: &[&str] = &["06-", "07-", "08-"];

fn guest(world: &mut World) -> &mut pvemig::lab::world::Guest {
    &mut world.vms.get_mut(&108).unwrap().guest
}

/// With ssh in this manner the agent carries the steps of the guest, and each says what ssh said.
async fn agent_carries(manner: SshManner, says: &str) {
    let rig = rig("usb-move", DEVICE, |world| guest(world).ssh = manner).await;
    assert_noted(&go(&rig).await, GUEST, &["agent of vm 108 (cluster home): answered", says]);
}

/// Each login would wait for its whole deadline: a way in that was silent lately is left out, and that is said.
async fn silent(manner: SshManner) {
    let rig = rig("usb-move", DEVICE, |world| guest(world).ssh = manner).await;
    let run = go(&rig).await;
    assert_noted(&run, GUEST, &["agent of vm 108 (cluster home): answered", "key exchange"]);
    assert_noted(&run, &["07-", "08-"], &["so it was left out"]);
}

/// A line of the known hosts of the guest is marked as revoked.
async fn revoked() {
    let rig = rig("usb-move", DEVICE, |_| {}).await;
    let file = rig.dir().join("known_hosts");
    let text = std::fs::read_to_string(&file).unwrap();
    let revoked: String = text.lines().map(|line| format!("@revoked {line}\n")).collect();
    assert!(revoked.len() > text.len());
    std::fs::write(&file, revoked).unwrap();
    assert_noted(&go(&rig).await, GUEST, &["agent of vm 108 (cluster home): answered", "marks as revoked"]);
}

/// Without ssh, an agent in this manner is no way in: the preflight says so before anything is changed.
async fn no_way_in(agent: impl FnOnce(&mut World), says: &str) {
    let rig = rig("usb-move", &[], |world| {
        guest(world).ssh = SshManner::Refuses;
        agent(world);
    })
    .await;
    let run = go(&rig).await;
    assert_stopped(&run, "00-preflight", &["no way into the guest of vm 108 (k3s-vm-still-fawn)", says]);
    assert_eq!(rig.changes(), 0);
}

fn not_configured(world: &mut World) {
    assert!(world.vms.get_mut(&108).unwrap().config.remove("agent").is_some());
}

/// With ssh it does not matter, and 06 says what the agent cannot do.
async fn agent_without_exec() {
    let rig = rig("usb-move", DEVICE, |world| guest(world).agent.exec_allowed = false).await;
    let run = go(&rig).await;
    assert_noted(&run, &["06-"], &["ssh: yes", "agent: channel yes, answers yes, may run programs no"]);
}

/// The answer with a program's end is lost, and the agent gives it once only: the next way in is asked.
async fn read_twice() {
    let rig = rig("usb-move", DEVICE, |world| guest(world).ssh = SshManner::Refuses).await;
    let lost = FaultRule::on(Front::Proxmox, FaultEffect::ResetAfter).path("*/agent/exec-status");
    rig.lab.fault(lost.times(1));
    let said = ["and its result cannot be read any more", "qm guest exec 108: answered"];
    assert_noted(&go(&rig).await, &["06-"], &said);
    assert!(met(&rig) >= 1);
}

fn met(rig: &Rig) -> u32 {
    rig.lab.shared().clear_faults().iter().map(|rule| rule.met).min().unwrap()
}

/// Proxmox does not say what is plugged in, and the host's ssh shows another key than the known one: nobody has seen the
/// device, and nothing is changed on a guess.
async fn host_key_of_a_host() {
    let rig = rig("usb-move", &[], |world| {
        for host in world.hosts.values_mut() {
            host.ssh = SshManner::OtherHostKey;
        }
    })
    .await;
    rig.lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::Refuse).path("*/hardware/usb"));
    let run = go(&rig).await;
    assert_stopped(&run, "00-preflight", &["whether coral", "cannot be seen", "host key"]);
    assert_eq!(rig.changes(), 0);
}

incidents! {
    ssh_is_refused: agent_carries(SshManner::Refuses, "connection refused");
    ssh_hangs_after_the_connection: silent(SshManner::Silent);
    ssh_sends_its_banner_and_falls_silent: silent(SshManner::BannerOnly);
    ssh_refuses_the_key: agent_carries(SshManner::RefusesKeys, "is not accepted");
    ssh_shows_another_host_key: agent_carries(SshManner::OtherHostKey, "the host key is not the one in");
    ssh_is_cut_in_the_middle: agent_carries(SshManner::Cuts, "the connection was lost (running the command)");
    the_host_key_is_revoked: revoked();
    a_host_shows_another_host_key: host_key_of_a_host();
    the_agent_is_off: no_way_in(not_configured, "guest agent: not configured for this VM");
    the_agent_is_not_installed: no_way_in(|w| guest(w).agent.installed = false, "guest agent: it does not answer");
    the_agent_is_silent: no_way_in(|w| guest(w).agent.silent = true, "guest agent: it does not answer");
    the_agent_may_not_run_programs: no_way_in(
        |w| guest(w).agent.exec_allowed = false,
        "guest agent: the guest's settings forbid the command"
    );
    the_agent_may_not_run_programs_and_ssh_is_there: agent_without_exec();
    the_agents_answer_is_lost_and_cannot_be_read_twice: read_twice();
}
