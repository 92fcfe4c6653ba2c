//! etcd's members, its leader and its majority.

use pvemig::talos::proto::machine::{
    EtcdForfeitLeadershipRequest, EtcdLeaveClusterRequest, EtcdMember, EtcdMemberListRequest, EtcdMemberStatus,
    EtcdRemoveMemberByIdRequest, EtcdSnapshotRequest, RebootRequest, ShutdownRequest,
};
use sha2::Digest;

use super::*;

async fn members(b: &Bench, node: &str, query_local: bool) -> Result<Vec<EtcdMember>, Status> {
    let mut answer = b.machine(node).etcd_member_list(EtcdMemberListRequest { query_local }).await?.into_inner();
    assert_eq!((answer.messages.len(), &answer.messages[0].metadata), (1, &None));
    Ok(answer.messages.remove(0).members)
}

async fn status(b: &Bench, node: &str) -> EtcdMemberStatus {
    b.machine(node).etcd_status(()).await.unwrap().into_inner().messages.remove(0).member_status.unwrap()
}

async fn remove(b: &Bench, node: &str, id: u64) -> Result<(), Status> {
    b.machine(node).etcd_remove_member_by_id(EtcdRemoveMemberByIdRequest { member_id: id }).await.map(drop)
}

async fn off(b: &Bench, node: &str) {
    b.machine(node).shutdown(ShutdownRequest { force: true }).await.unwrap();
    b.wait("it is off", |w| w.talos.nodes[node].run.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_bear_the_loss_of_one_and_not_of_two() {
    let b = Bench::new("talos-three").await;
    let all = members(&b, MAC, true).await.unwrap();
    assert_eq!(all.iter().map(|m| m.hostname.as_str()).collect::<Vec<_>>(), [NUC, VM, MAC]);
    assert!(all.iter().all(|m| !m.is_learner && m.peer_urls[0].ends_with(":2380")));
    assert_eq!(status(&b, MAC).await.leader, all[0].id);
    let own = b.get(MAC, "etcd", "EtcdMembers.etcd.talos.dev", "local").await;
    assert_eq!(own["memberID"], format!("{:016x}", all[2].id));

    off(&b, NUC).await;
    assert_eq!(members(&b, MAC, false).await.unwrap().len(), 3);
    let now = status(&b, MAC).await;
    assert_eq!((now.leader, now.errors), (all[1].id, vec![]));

    off(&b, VM).await;
    refused(members(&b, MAC, false).await, Code::Unknown, "etcdserver: no leader");
    refused(members(&b, MAC, true).await, Code::Unknown, "etcdserver: no leader");
    let alarms = b.machine(MAC).etcd_alarm_list(()).await;
    refused(alarms, Code::Unknown, "failed to list etcd alarms: context deadline exceeded");
    refused(remove(&b, MAC, all[0].id).await, Code::Unknown, "etcdserver: no leader");
    let now = status(&b, MAC).await;
    assert_eq!((now.leader, now.errors), (0, vec!["etcdserver: no leader".to_owned()]));
    assert_eq!(b.status(MAC).await, ("running".into(), false));
    let etcd = b.services(MAC).await.into_iter().find(|s| s.id == "etcd").unwrap();
    assert!(!etcd.health.unwrap().healthy);

    assert!(b.lab.shared().change(|w| w.press_power(NUC)));
    b.wait("there is a leader", |w| w.talos.etcd.leader.is_some()).await;
    assert_eq!(members(&b, MAC, false).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_members_none_can_be_spared() {
    let b = Bench::with("talos-three", |w| {
        w.talos.etcd.members.retain(|m| m.name != VM);
        let config = &mut w.talos.nodes.get_mut(VM).unwrap().config;
        *config = config.replace("type: controlplane", "type: worker");
    })
    .await;
    assert_eq!(members(&b, MAC, false).await.unwrap().len(), 2);
    off(&b, NUC).await;
    refused(members(&b, MAC, false).await, Code::Unknown, "etcdserver: no leader");
    assert!(b.lab.shared().change(|w| w.press_power(NUC)));
    b.wait("there is a leader", |w| w.talos.etcd.leader.is_some()).await;
    assert_eq!(members(&b, MAC, false).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_a_member_leaves_and_joins_again_as_a_learner() {
    let b = Bench::with("talos-three", |w| w.talos.timing.learn = 1_000_000).await;
    let forfeit = async |node: &str| {
        let answer = b.machine(node).etcd_forfeit_leadership(EtcdForfeitLeadershipRequest {}).await.unwrap();
        answer.into_inner().messages.remove(0).member
    };
    assert_eq!(forfeit(MAC).await, "");
    assert_eq!(forfeit(NUC).await, VM);
    let all = members(&b, MAC, false).await.unwrap();
    assert_eq!(status(&b, MAC).await.leader, all[1].id);

    b.machine(NUC).etcd_leave_cluster(EtcdLeaveClusterRequest {}).await.unwrap();
    assert_eq!(members(&b, MAC, false).await.unwrap().len(), 2);
    // Its own etcd is down until it boots again, and it is not ready for that.
    refused(members(&b, NUC, true).await, Code::DeadlineExceeded, "error building etcd client");
    assert_eq!(members(&b, NUC, false).await.unwrap().len(), 2);
    assert_eq!(b.status(NUC).await, ("running".into(), false));
    refused(remove(&b, MAC, all[0].id).await, Code::NotFound, "member not found");

    let before = b.boot_id(NUC).await;
    b.machine(NUC).reboot(RebootRequest { mode: 0 }).await.unwrap();
    b.wait("it learns", |w| w.talos.etcd.members.iter().any(|m| m.name == NUC && m.learner)).await;
    b.back(NUC, &before).await;
    b.wait("it has a vote", |w| w.talos.etcd.members.iter().any(|m| m.name == NUC && !m.learner)).await;
    let now = members(&b, NUC, true).await.unwrap();
    assert_eq!((now.len(), now.iter().filter(|m| m.id == all[0].id).count()), (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_removed_and_a_snapshot_bears_its_digest() {
    let b = Bench::with("talos-three", |w| w.talos.etcd.members[1].alarm = Some("NOSPACE".into())).await;
    let all = members(&b, MAC, false).await.unwrap();
    let alarms = b.machine(MAC).etcd_alarm_list(()).await.unwrap().into_inner().messages.remove(0).member_alarms;
    assert_eq!(alarms.iter().map(|a| (a.member_id, a.alarm)).collect::<Vec<_>>(), [(all[1].id, 1)]);
    off(&b, NUC).await;
    // Two of three run: neither of them can be spared.
    refused(remove(&b, MAC, all[1].id).await, Code::Unknown, "etcdserver: unhealthy cluster");
    remove(&b, MAC, all[0].id).await.unwrap();
    assert_eq!(members(&b, MAC, false).await.unwrap().len(), 2);
    let mut stream = b.machine(MAC).etcd_snapshot(EtcdSnapshotRequest {}).await.unwrap().into_inner();
    let (mut bytes, mut pieces) = (Vec::new(), 0);
    while let Some(data) = stream.message().await.unwrap() {
        bytes.extend(data.bytes);
        pieces += 1;
    }
    let (pages, digest) = bytes.split_at(bytes.len() - 32);
    assert_eq!((pieces, sha2::Sha256::digest(pages).as_slice()), (4, digest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_handed_to_a_dead_member_comes_to_no_end() {
    let b = Bench::new("talos-three").await;
    off(&b, NUC).await;
    let all = members(&b, MAC, true).await.unwrap();
    assert_eq!(status(&b, MAC).await.leader, all[1].id);
    // The first other one is the one that is off, and etcd waits for it for as long as its caller.
    let mut asked = b.machine(VM);
    let forfeit = asked.etcd_forfeit_leadership(EtcdForfeitLeadershipRequest {});
    let minutes = b.lab.shared().until(std::time::Duration::from_secs(600), |_| None::<()>);
    tokio::select! {
        said = forfeit => panic!("{said:?}"),
        over = minutes => assert!(over.is_none()),
    }
    assert_eq!(status(&b, MAC).await.leader, all[1].id);
}
