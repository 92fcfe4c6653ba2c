//! What `pvemig privileges` prints is exactly what a migration takes: with it the run goes there, again and back without
//! one refusal; without any one of it the preflight says so by its name.

use std::collections::BTreeSet;
use std::process::Command;

use pvemig::lab::kube::kinds;
use pvemig::lab::pve::access::Acl;
use pvemig::lab::world::World;
use serde_json::{Value, json};

use super::{Bench, Ended, Problem, Why, protects, shown};
use crate::harness::estate::{Rig, at_rest};
use crate::harness::same::assert_same;
use crate::harness::{How, calls};

const APPLY: &str = "application/apply-patch+yaml";
const TOKEN: &str = "pvemig@pve!pvemig";

/// What the verb prints about the only migration of a lab's site, as JSON.
#[expect(clippy::disallowed_methods, reason = "the verb itself is asked")]
fn privileges(rig: &Rig, more: &[&str]) -> Value {
    let site = rig.dir().join("site.yaml");
    let said = Command::new(env!("CARGO_BIN_EXE_pvemig"))
        .args(["--json", "--site", site.to_str().unwrap(), "privileges", "frigate-coral"])
        .args(more)
        .env_clear()
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

fn texts<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v str> {
    value[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap())
}

/// Gives user and token of the Proxmox side what the verb printed for a version, and nothing else.
fn grant(world: &mut World, printed: &Value, version: u32) {
    let versions = printed["proxmox"]["versions"].as_array().unwrap();
    let own = versions.iter().find(|v| v["version"] == version).unwrap();
    let roles = own["roles"].as_object().unwrap();
    world.access.roles =
        roles.keys().map(|role| (role.clone(), texts(&own["roles"], role).map(str::to_owned).collect())).collect();
    let entry = |acl: &Value, who: &str| Acl {
        path: acl["path"].as_str().unwrap().into(),
        who: who.into(),
        role: acl["role"].as_str().unwrap().into(),
        propagate: true,
    };
    let who = ["user", "token"].map(|key| printed["proxmox"][key].as_str().unwrap());
    assert_eq!(who, ["pvemig@pve", TOKEN]);
    let acl = own["acl"].as_array().unwrap();
    world.access.acl = acl.iter().flat_map(|acl| who.map(|who| entry(acl, who))).collect();
}

/// A client of the lab's cluster that may do everything there.
async fn administrator(rig: &Rig) -> kube::Client {
    let file = kube::config::Kubeconfig::from_yaml(&rig.lab.reach().kubernetes.kubeconfig).unwrap();
    let options = kube::config::KubeConfigOptions { context: Some("admin".into()), ..Default::default() };
    let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

impl Bench {
    /// The world with mapping and token on hosts of a version, with exactly the rights that the verb prints, those that
    /// a run can do without among them.
    async fn least(version: &str) -> (Self, Value) {
        Self::least_of(version, &["--with-optional"], |_| {}).await
    }

    /// As [`Bench::least`], with what the verb prints with these options, of an edited site.
    async fn least_of(version: &str, more: &[&str], edit: impl FnOnce(&mut Value)) -> (Self, Value) {
        let mut world = at_rest("usb-move-token");
        world.hosts.values_mut().for_each(|host| host.version = version.into());
        (world.access.roles, world.access.acl) = Default::default();
        world.cluster_user = Some("system:serviceaccount:frigate:pvemig".into());
        let rig = Rig::of(world, edit).await;
        let client = administrator(&rig).await;
        let bench = Self { rig, client };
        let printed = privileges(&bench.rig, more);
        let major = version.split('.').next().unwrap().parse().unwrap();
        bench.rig.lab.shared().change(|world| grant(world, &printed, major));
        assert_eq!(printed["kubernetes"]["user"], "system:serviceaccount:frigate:pvemig");
        for manifest in printed["kubernetes"]["manifests"].as_array().unwrap() {
            let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap();
            let kind = kinds::of(text("/apiVersion"), text("/kind")).unwrap();
            let root = if kind.group.is_empty() { "/api" } else { "/apis" };
            let space =
                if kind.namespaced { format!("/namespaces/{}", text("/metadata/namespace")) } else { "".into() };
            let name = text("/metadata/name");
            let path = format!("{root}/{}{space}/{}/{name}?fieldManager=t", kind.api_version(), kind.resource);
            bench.send("PATCH", &path, APPLY, manifest.clone()).await;
        }
        (bench, printed)
    }

    /// The requests that were answered with 403.
    fn refused(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.rig.dir().join("requests.jsonl")).unwrap();
        log.lines().filter(|line| line.contains("\"status\":403")).map(str::to_owned).collect()
    }

    /// There, again and back; nothing is refused.
    async fn there_and_back(&self) {
        let refused = self.whole_way().await;
        assert!(refused.is_empty(), "{refused:#?}");
        println!("and no request was refused");
    }

    /// There, again and back; what was refused on the way.
    async fn whole_way(&self) -> Vec<String> {
        let (before, known) = (self.rig.picture().await, self.refused().len());
        let run = self.rig.forward(None, &How::default()).await;
        assert!(matches!(run.ended, Ok(Ended::Done)), "{:#?}", run.ended);
        let made = calls(&run.records);
        let again = self.rig.forward(None, &How::default()).await;
        assert!(matches!(again.ended, Ok(Ended::Done)) && calls(&again.records) == 0, "{:#?}", again.ended);
        let back = self.rig.backward(&run.id, &How::default()).await;
        assert!(matches!(back.ended, Ok(Ended::Undone)), "{:#?}", back.ended);
        assert_same(&before, &self.rig.picture().await, "after the undo");
        let back = calls(&back.records);
        assert!(made > 10 && back > 10);
        println!("{made} calls there, none the second time, {back} back");
        self.refused().split_off(known)
    }
}

/// What became of a right that was taken away.
#[derive(Debug, PartialEq)]
enum Told {
    /// A problem that names it.
    Blocked,
    /// A note that names it.
    Noted,
    /// Nothing.
    Silent,
}

/// `stays`: the steps of which the engine has shown that it does not drop what protects them.
async fn told(bench: &Bench, words: &str, stays: &mut BTreeSet<String>) -> (Told, String) {
    let check = bench.look().await.unwrap();
    let notes = check.notes.join("\n");
    let problems = super::problems_of(check);
    let found: Vec<&str> = problems.iter().filter(|p| p.text.contains(words)).map(protects).collect();
    let told = if !found.is_empty() && !found.contains(&"nothing") {
        // Where no step that it protects is known to have something to do by then, the run itself is asked.
        if !found.iter().any(|step| stays.contains(*step)) {
            let run = bench.rig.forward(None, &How::default()).await;
            let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("`{words}`: {:#?}", run.ended) };
            let Why::Blocked(left) = &stop.why else { panic!("`{words}`: {:#?}", stop.why) };
            assert_eq!((stop.key.as_str(), calls(&run.records)), ("00-preflight", 0));
            let left: Vec<&Problem> = left.iter().filter(|p| p.text.contains(words)).collect();
            assert!(!left.is_empty(), "`{words}` is dropped");
            stays.extend(left.into_iter().map(|p| protects(p).to_owned()));
        }
        Told::Blocked
    } else if problems.is_empty() && notes.contains(words) {
        Told::Noted
    } else {
        Told::Silent
    };
    (told, format!("`{words}` among\n{}{notes}", shown(&problems)))
}

fn expected(right: &Value) -> Told {
    match (right["needed"].as_bool().unwrap(), right["without"].is_string()) {
        (true, _) => Told::Blocked,
        (false, true) => Told::Noted,
        (false, false) => Told::Silent,
    }
}

async fn each_privilege(version: &str, counts: [usize; 3]) {
    let (bench, printed) = Bench::least(version).await;
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    assert!(bench.problems().await.is_empty());
    let versions = printed["proxmox"]["versions"].as_array().unwrap();
    let all = versions.iter().find(|v| v["version"] == major).unwrap()["privileges"].as_array().unwrap();
    let shared = bench.rig.lab.shared().clone();
    let roles = shared.read(|world| world.access.roles.clone());
    let (mut seen, mut stays) = ([0; 3], BTreeSet::new());
    for one in all {
        let (path, role) = (one["path"].as_str().unwrap(), one["role"].as_str().unwrap());
        let privilege = one["privilege"].as_str().unwrap();
        shared.change(|world| assert!(world.access.roles.get_mut(role).unwrap().remove(privilege)));
        // Of the USB lists it says what serves instead.
        let words = match privilege {
            "Sys.Modify" => format!("({privilege} on {path} is missing)"),
            _ => format!("lacks {privilege} on {path}"),
        };
        let (told, shown) = told(&bench, &words, &mut stays).await;
        assert_eq!(told, expected(one), "{shown}");
        seen[told as usize] += 1;
        shared.change(|world| world.access.roles.clone_from(&roles));
    }
    assert_eq!(seen, counts, "{all:#?}");
    // What is refused is seen.
    assert!(bench.refused().iter().any(|line| line.contains("/hardware/usb")), "{:#?}", bench.refused());
    assert_eq!(stays.len(), 2, "{stays:?}");
    println!("Proxmox {version}: {} needed, {} optional, {} on a condition", seen[0], seen[1], seen[2]);
    bench.there_and_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_privilege_that_is_printed_for_proxmox_9_is_needed_and_no_other() {
    each_privilege("9.1.4", [7, 5, 1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_privilege_that_is_printed_for_proxmox_8_is_needed_and_no_other() {
    each_privilege("8.4.14", [7, 5, 1]).await;
}

/// What is printed unasked is enough, and what is left out is missed by questions alone.
async fn the_least(version: &str) {
    let (bench, printed) = Bench::least_of(version, &[], |_| {}).await;
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    let versions = printed["proxmox"]["versions"].as_array().unwrap();
    let own = versions.iter().find(|v| v["version"] == major).unwrap();
    let given: usize = own["roles"].as_object().unwrap().values().map(|names| names.as_array().unwrap().len()).sum();
    assert_eq!((given, own["privileges"].as_array().unwrap().len()), (7, 13), "{own:#}");
    let refused = bench.whole_way().await;
    assert!(refused.iter().any(|line| line.contains("/hardware/usb")), "{refused:#?}");
    assert!(refused.iter().all(|line| !line.contains("\"class\":\"change\"")), "{refused:#?}");
    println!("Proxmox {version}: {given} privileges are enough; {} questions were refused", refused.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_unasked_is_enough_on_proxmox_9() {
    the_least("9.1.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_unasked_is_enough_on_proxmox_8() {
    the_least("8.4.14").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_that_is_printed_for_kubernetes_is_needed() {
    let (bench, printed) = Bench::least("9.1.4").await;
    assert!(bench.problems().await.is_empty());
    let rights = printed["kubernetes"]["rights"].as_array().unwrap();
    let shared = bench.rig.lab.shared().clone();
    let (mut seen, mut stays) = ([0; 3], BTreeSet::new());
    for right in rights {
        let text = |key: &str| right[key].as_str().unwrap_or_default();
        let kind = if text("namespace").is_empty() { kinds::cluster_roles() } else { kinds::roles() };
        let role = shared
            .read(|world| Value::clone(world.kube.store.get(kind, text("namespace"), "pvemig-frigate-coral").unwrap()));
        let mut less = role.clone();
        less["rules"] = without(&role["rules"], right);
        let put = |role: Value| shared.change(|world| world.kube.store.replace(kind, role, None).unwrap());
        put(less);
        let group = Some(text("group")).filter(|group| !group.is_empty());
        let whole = format!("{}{}", text("resource"), group.map(|group| format!(".{group}")).unwrap_or_default());
        let (told, shown) = told(&bench, &format!("{} {whole}", text("verb")), &mut stays).await;
        assert_eq!(told, expected(right), "{right:#}\n{shown}");
        seen[told as usize] += 1;
        put(role);
    }
    assert!(stays.len() >= 5, "{stays:?}");
    println!("Kubernetes: {} needed, {} optional, {} on a condition", seen[0], seen[1], seen[2]);
    assert_eq!(seen, [34, 6, 7]);
    assert!(bench.problems().await.is_empty());
}

/// The rules of a role less one verb on one object, or on all; it was in exactly one of them.
fn without(rules: &Value, right: &Value) -> Value {
    let (mut left, mut taken) = (Vec::new(), 0);
    for rule in rules.as_array().unwrap() {
        let has = |key: &str, value: &Value| rule[key].as_array().is_some_and(|all| all.contains(value));
        let named = match &right["name"] {
            Value::Null => rule.get("resourceNames").is_none(),
            name => has("resourceNames", name),
        };
        if !(named
            && has("apiGroups", &right["group"])
            && has("resources", &right["resource"])
            && has("verbs", &right["verb"]))
        {
            left.push(rule.clone());
            continue;
        }
        taken += 1;
        // What is left of it: the other verbs on its objects, and this one on the others.
        let less = |key: &str, value: &Value| -> Vec<Value> {
            rule[key].as_array().unwrap().iter().filter(|known| *known != value).cloned().collect()
        };
        let mut others = rule.clone();
        others["verbs"] = less("verbs", &right["verb"]).into();
        left.push(others);
        if right["name"].is_string() {
            let mut rest = rule.clone();
            rest["verbs"] = json!([right["verb"]]);
            rest["resourceNames"] = less("resourceNames", &right["name"]).into();
            if rest["resourceNames"] != json!([]) {
                left.push(rest);
            }
        }
    }
    assert_eq!(taken, 1, "{right:#}");
    left.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_estate_tells_is_named_by_the_preflight() {
    // The VM has the device by another mapping, and the one that the site names is not there yet.
    let edit = |site: &mut Value| site["devices"]["coral"]["mapping"] = json!("accelerator");
    let (bench, printed) = Bench::least_of("9.1.4", &["--with-optional"], edit).await;
    let notes: String = texts(&printed["proxmox"], "notes").collect();
    assert!(notes.contains("by another mapping than accelerator"), "{notes}");
    // To change it is inherited from what the making of mappings takes.
    let problems = bench.problems().await;
    let lacks = format!("{TOKEN} lacks Mapping.Use on /mapping/usb/coral");
    assert!(problems.len() == 1 && problems[0].text.contains(&lacks), "{}", shown(&problems));
    let shared = bench.rig.lab.shared().clone();
    shared.change(|world| {
        let same = world.access.acl.iter().filter(|acl| acl.path == "/mapping/usb/accelerator").cloned();
        let more: Vec<Acl> = same.map(|acl| Acl { path: "/mapping/usb/coral".into(), ..acl }).collect();
        assert_eq!(more.len(), 2);
        world.access.acl.extend(more);
    });
    assert!(bench.problems().await.is_empty());
    // What is only needed where there is no mapping is needed here.
    let roles = shared.read(|world| world.access.roles.clone());
    shared.change(|world| {
        let role = world.access.acl.iter().find(|acl| acl.path == "/mapping/usb").unwrap().role.clone();
        assert!(world.access.roles.get_mut(&role).unwrap().remove("Mapping.Modify"));
    });
    let lacks = "lacks Mapping.Modify on /mapping/usb, for making mapping accelerator";
    let (told, shown) = told(&bench, lacks, &mut BTreeSet::new()).await;
    assert_eq!(told, Told::Blocked, "{shown}");
    shared.change(|world| world.access.roles = roles);
    bench.there_and_back().await;
}
