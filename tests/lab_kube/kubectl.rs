//! The real kubectl.

use pvemig::lab::Class;

use super::{Kubectl, count, lab, lab_without_flux};

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The lines of a table without its head, as words.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(words).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_have_the_real_columns() {
    let (lab, _dir) = lab(1).await;
    let kubectl = Kubectl::new(&lab);
    let heads = [
        ("nodes", "NAME STATUS ROLES AGE VERSION", 3),
        ("pods -n frigate", "NAME READY STATUS RESTARTS AGE", 1),
        ("deploy -n home", "NAME READY UP-TO-DATE AVAILABLE AGE", 2),
        (
            "pv",
            "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON AGE",
            3,
        ),
        ("pvc -n frigate", "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE", 2),
        ("ds -n kube-system", "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE", 1),
        ("pdb -n home", "NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE", 1),
        ("ks -n flux-system", "NAME AGE READY STATUS", 2),
        ("gitrepo -n flux-system", "NAME URL AGE READY STATUS", 1),
        ("leases -n kube-node-lease", "NAME HOLDER AGE", 3),
        ("sc", "NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE", 1),
        ("crd", "NAME CREATED AT", 10),
        ("secret -n frigate", "NAME TYPE DATA AGE", 1),
    ];
    for (what, head, count) in heads {
        let table = kubectl.ok(&format!("get {what}")).await;
        assert_eq!(words(table.lines().next().unwrap()).join(" "), head, "{table}");
        assert_eq!(rows(&table).len(), count, "{table}");
    }
    assert_eq!(heads.len(), 13);
    let nodes = kubectl.ok("get nodes -o wide").await;
    assert_eq!(rows(&nodes)[0][..3], ["k3s-vm-pumped-piglet", "Ready", "<none>"]);
    assert_eq!(rows(&nodes)[1][..3], ["k3s-vm-pve-1", "Ready", "control-plane,etcd,master"]);
    assert!(nodes.contains("192.168.4.212") && nodes.contains("containerd://2.0.4-k3s2"), "{nodes}");
    let names = kubectl.ok("get pods -A -o name --field-selector spec.nodeName=k3s-vm-still-fawn").await;
    assert_eq!(names.lines().count(), 3, "{names}");
    let none = kubectl.refused("get scaledobjects -A").await;
    assert!(none.contains("the server doesn't have a resource type"), "{none}");
    assert!(kubectl.refused("get deploy -n home nobody").await.contains("deployments.apps \"nobody\" not found"));
    assert_eq!(count(&lab, Class::Change), 0, "{:?}", lab.shared().log.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_asks_for_everything_at_once() {
    let (lab, _dir) = lab(50).await;
    let kubectl = Kubectl::new(&lab);
    let nodes = kubectl.ok("get nodes -o wide").await;
    assert_eq!(nodes.lines().count(), 4, "{nodes}");
    assert!(kubectl.ok("get nodes -o yaml").await.contains("kind: List"));
    assert!(kubectl.ok("describe node k3s-vm-still-fawn").await.contains("Non-terminated Pods:"));
    let mixed = kubectl.ok("get ns,sc,runtimeclass,lease -A").await;
    assert!(mixed.contains("storageclass.storage.k8s.io/local-path"), "{mixed}");
    assert!(mixed.contains("runtimeclass.node.k8s.io/nvidia"), "{mixed}");
    let resources = kubectl.ok("api-resources").await;
    assert!(resources.contains("kustomizations") && resources.contains("selfsubjectaccessreviews"), "{resources}");
    assert!(kubectl.ok("version").await.contains("Server Version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_understands_every_kind() {
    let (lab, _dir) = lab(1).await;
    let kubectl = Kubectl::new(&lab);
    let asked = [
        ("node k3s-vm-pumped-piglet", "nvidia.com/gpu:     1"),
        ("node k3s-vm-pumped-piglet", "Non-terminated Pods:          (3 in total)"),
        ("pod -n frigate", "ClaimName:  frigate-media"),
        ("pvc -n frigate frigate-media", "Used By:       frigate-"),
        ("pv", "kubernetes.io/hostname in [k3s-vm-still-fawn]"),
        ("deploy -n frigate frigate", "StrategyType:       Recreate"),
        ("deploy -n home whoami", "2 desired | 2 updated | 2 total | 2 available"),
        ("sc local-path", "WaitForFirstConsumer"),
        ("ks -n flux-system apps", "Last Applied Revision:"),
        ("cm -n frigate frigate-config", "preset-nvidia-h264"),
    ];
    for (what, text) in asked {
        let said = kubectl.ok(&format!("describe {what}")).await;
        assert!(said.contains(text), "{what}: {said}");
    }
    assert_eq!(asked.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_taints_and_annotations_change() {
    let (lab, _dir) = lab_without_flux(20).await;
    let kubectl = Kubectl::new(&lab);
    kubectl.ok("label node k3s-vm-still-fawn coral=true").await;
    assert_eq!(kubectl.ok("get nodes -l coral=true -o name").await.lines().count(), 2);
    kubectl.ok("label node k3s-vm-pumped-piglet coral-").await;
    assert_eq!(kubectl.ok("get nodes -l coral=true -o name").await.trim(), "node/k3s-vm-still-fawn");
    assert!(kubectl.refused("label node k3s-vm-still-fawn coral=other").await.contains("already has a value"));
    assert!(kubectl.refused("label node k3s-vm-still-fawn x=a/b").await.contains("invalid"));
    kubectl.ok("taint node k3s-vm-still-fawn a=b:NoSchedule").await;
    kubectl.ok("taint node k3s-vm-still-fawn c=d:NoSchedule").await;
    kubectl.ok("taint node k3s-vm-still-fawn a-").await;
    let taints = kubectl.ok("get node k3s-vm-still-fawn -o jsonpath={.spec.taints}").await;
    assert_eq!(taints, r#"[{"effect":"NoSchedule","key":"c","value":"d"}]"#);
    kubectl.ok("annotate deploy -n frigate frigate who=me").await;
    let raw = kubectl.ok("get --raw /apis/apps/v1/namespaces/frigate/deployments/frigate").await;
    for manager in ["kustomize-controller", "kubectl-annotate"] {
        assert!(raw.contains(&format!("\"manager\":\"{manager}\"")), "{raw}");
    }
    assert_eq!(count(&lab, Class::Change), 6, "{:?}", lab.shared().log.seen());
    assert_eq!(kubectl.ok("get deploy -n frigate frigate -o jsonpath={.metadata.annotations.who}").await, "me");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_and_comes_back() {
    let (lab, _dir) = lab_without_flux(60).await;
    let kubectl = Kubectl::new(&lab);
    let refused = kubectl.refused("drain k3s-vm-still-fawn --timeout=60s").await;
    assert!(refused.contains("DaemonSet-managed Pods"), "{refused}");
    let drained = kubectl.ok("drain k3s-vm-still-fawn --ignore-daemonsets --timeout=60s").await;
    assert_eq!(drained.lines().filter(|l| l.starts_with("pod/") && l.ends_with(" evicted")).count(), 2, "{drained}");
    let node = kubectl.ok("get node k3s-vm-still-fawn").await;
    assert!(node.contains("Ready,SchedulingDisabled"), "{node}");
    let mosquitto = kubectl.ok("get pods -n home -l app.kubernetes.io/name=mosquitto").await;
    assert_eq!(rows(&mosquitto)[0][2], "Pending", "{mosquitto}");
    let why = kubectl.ok("describe pod -n home -l app.kubernetes.io/name=mosquitto").await;
    assert!(why.contains("1 node(s) were unschedulable"), "{why}");
    kubectl.ok("uncordon k3s-vm-still-fawn").await;
    kubectl.ok("wait -n home --for=condition=Ready pod -l app.kubernetes.io/name=mosquitto --timeout=30s").await;
    kubectl.ok("rollout status -n home deploy/whoami --timeout=30s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_without_room_refuses_a_drain() {
    let (lab, _dir) = lab_without_flux(60).await;
    let kubectl = Kubectl::new(&lab);
    kubectl.ok(r#"patch pdb -n home whoami --type=merge -p {"spec":{"minAvailable":2}}"#).await;
    let refused = kubectl.refused("drain k3s-vm-still-fawn --ignore-daemonsets --timeout=6s").await;
    assert!(refused.contains("Cannot evict pod as it would violate the pod's disruption budget"), "{refused}");
    assert!(refused.contains("global timeout reached"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_scaled_and_waited_for() {
    let (lab, _dir) = lab_without_flux(60).await;
    let kubectl = Kubectl::new(&lab);
    kubectl.ok("scale -n frigate deploy/frigate --replicas=0").await;
    let gone = kubectl.run("wait -n frigate --for=delete pod -l app.kubernetes.io/name=frigate --timeout=30s").await;
    assert!(gone.ok || gone.err.contains("no matching resources found"), "{}", gone.err);
    kubectl.ok("delete pvc -n frigate frigate-config --timeout=30s").await;
    kubectl.ok("scale -n frigate deploy/frigate --replicas=1").await;
    let status = kubectl.ok("get deploy -n frigate frigate").await;
    assert_eq!(rows(&status)[0][1], "0/1");
    assert!(
        kubectl.refused("scale -n frigate deploy/frigate --current-replicas=3 --replicas=2").await.contains("Expected")
    );
    kubectl.ok("delete pod -n home -l app.kubernetes.io/name=whoami --wait=false").await;
    kubectl.ok("rollout status -n home deploy/whoami --timeout=30s").await;
    kubectl.ok("rollout restart -n home deploy/whoami").await;
    kubectl.ok("rollout status -n home deploy/whoami --timeout=30s").await;
    assert_eq!(kubectl.ok("get rs -n home -l app.kubernetes.io/name=whoami -o name").await.lines().count(), 2);
}

const MANIFEST: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: made\n  namespace: home\ndata:\n  a: \"1\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_applied_both_ways() {
    let (lab, _dir) = lab(20).await;
    let kubectl = Kubectl::new(&lab);
    let file = kubectl.file("made.yaml", MANIFEST);
    assert!(kubectl.ok(&format!("apply --validate=false -f {file}")).await.contains("configmap/made created"));
    assert!(kubectl.ok(&format!("apply --validate=false -f {file}")).await.contains("configmap/made unchanged"));
    let changed = kubectl.file("changed.yaml", &MANIFEST.replace("\"1\"", "\"2\""));
    assert!(kubectl.ok(&format!("apply --validate=false -f {changed}")).await.contains("configmap/made configured"));
    let server = |file: &str| format!("apply --server-side --validate=false --field-manager=other -f {file}");
    let refused = kubectl.refused(&server(&file)).await;
    assert!(refused.contains("conflict with \"kubectl-client-side-apply\" using v1: .data.a"), "{refused}");
    kubectl.ok(&format!("{} --force-conflicts", server(&file))).await;
    assert_eq!(kubectl.ok("get cm -n home made -o jsonpath={.data.a}").await, "1");
    kubectl.ok("delete cm -n home made").await;
    assert!(kubectl.refused("get cm -n home made").await.contains("NotFound"));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_pods() {
    let (lab, _dir) = lab(60).await;
    let kubectl = Kubectl::new(&lab);
    assert!(kubectl.ok("logs -n frigate deploy/frigate").await.contains("frigate: started on k3s-vm-pumped-piglet"));
    let mut args: Vec<String> =
        words("exec -n frigate deploy/frigate -c frigate -- python3 -c").into_iter().map(Into::into).collect();
    args.push("from pycoral.utils.edgetpu import list_edge_tpus; print(list_edge_tpus())".into());
    let said = kubectl.args(args).await;
    if said.err.contains("over WebSocket (GET) only") {
        // kubectl before 1.30 knows SPDY only, which the front says it does not speak; the crate `kube` asks the same in
        // `client`.
        let version = kubectl.ok("version --client -o json").await;
        let minor = version.split("\"minor\": \"").nth(1).and_then(|m| m.split(['"', '+']).next()).unwrap();
        assert!(minor.parse::<u32>().unwrap() < 30, "{version}");
        return;
    }
    assert!(
        said.ok && said.out.starts_with("[{'type': 'usb', 'path': '/sys/bus/usb/devices/2-"),
        "{}{}",
        said.out,
        said.err
    );
    let failed = kubectl.refused("exec -n frigate deploy/frigate -- false").await;
    assert!(failed.contains("command terminated with exit code 1"), "{failed}");
    let missing = kubectl.refused("exec -n frigate deploy/frigate -- nothing").await;
    assert!(missing.contains("executable file not found in $PATH"), "{missing}");
    assert_eq!((count(&lab, Class::Look), count(&lab, Class::Change)), (2, 1), "{:?}", lab.shared().log.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_enforced_for_whom_the_world_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = pvemig::lab::load("usb-move").unwrap();
    world.cluster_user = Some("system:serviceaccount:frigate:pvemig".into());
    let options = pvemig::lab::LabOptions { world, dir: dir.path().to_owned(), speed: 20 };
    let lab = pvemig::lab::Lab::start(options).await.unwrap();
    let kubectl = Kubectl::new(&lab);
    let who = "User \"system:serviceaccount:frigate:pvemig\" cannot";
    let refused = [
        ("get nodes", "nodes is forbidden", "list resource \"nodes\" in API group \"\" at the cluster scope"),
        (
            "get deploy -n frigate frigate",
            "deployments.apps \"frigate\" is forbidden",
            "get resource \"deployments\" in API group \"apps\" in the namespace \"frigate\"",
        ),
        (
            "drain k3s-vm-still-fawn",
            "nodes \"k3s-vm-still-fawn\" is forbidden",
            "get resource \"nodes\" in API group \"\" at the cluster scope",
        ),
        ("get --raw /metrics", "forbidden", "get path \"/metrics\""),
    ];
    for (line, what, cannot) in refused {
        let said = kubectl.refused(line).await;
        assert!(said.contains(&format!("{what}: {who} {cannot}")), "{line}: {said}");
    }
    assert_eq!(refused.len(), 4);
    assert!(kubectl.ok("version").await.contains("Server Version"));
    assert_eq!(count(&lab, Class::Change), 0);

    // What the verb prints is taken by kubectl as it is.
    let file = kubectl.file("rights.yaml", &printed(&dir.path().join("site.yaml")));
    let said = kubectl.ok(&format!("--context admin apply --validate=false -f {file}")).await;
    assert_eq!(said.lines().filter(|line| line.ends_with(" created")).count(), 7, "{said}");
    // Verb, resource, subresource, namespace, name. `kubectl auth can-i` asks in protobuf, which the front does not read.
    let may = [
        (["patch", "nodes", "", "", "k3s-vm-still-fawn"], true),
        (["patch", "nodes", "", "", "k3s-vm-pve-1"], false),
        (["patch", "nodes", "", "", ""], false),
        (["list", "pods", "", "", ""], true),
        (["delete", "persistentvolumeclaims", "", "frigate", "frigate-media"], true),
        (["delete", "persistentvolumeclaims", "", "home", "frigate-media"], false),
        (["get", "pods", "exec", "frigate", "any"], true),
        (["delete", "pods", "", "frigate", "any"], false),
    ];
    for ([verb, resource, part, namespace, name], yes) in may {
        let attributes = serde_json::json!({"verb": verb, "resource": resource, "subresource": part,
            "namespace": namespace, "name": name});
        let review = serde_json::json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes}});
        let file = kubectl.file("review.json", &review.to_string());
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let said = kubectl.ok(&format!("create --raw {path} -f {file}")).await;
        assert!(said.contains(&format!("\"allowed\":{yes}")), "{verb} {resource} {name}: {said}");
    }
    assert_eq!(may.len(), 8);
    // Everything is what one rule of everything gives, cluster-wide.
    let review = serde_json::json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "*", "group": "*", "resource": "*"}}});
    let file = kubectl.file("everything.json", &review.to_string());
    let create = format!("create --raw /apis/authorization.k8s.io/v1/selfsubjectaccessreviews -f {file}");
    assert!(kubectl.ok(&create).await.contains("\"allowed\":false"));
    let role = |kind: &str, verbs: &str| {
        let api = "rbac.authorization.k8s.io";
        let (name, subject) = (kind.to_lowercase(), "{kind: ServiceAccount, name: pvemig, namespace: frigate}");
        format!(
            "apiVersion: {api}/v1\nkind: ClusterRole\nmetadata: {{name: {name}}}\nrules: [{{apiGroups: ['*'], \
             resources: ['*'], verbs: [{verbs}]}}]\n---\napiVersion: {api}/v1\nkind: {kind}\nmetadata: {{name: all, \
             namespace: {space}}}\nroleRef: {{apiGroup: {api}, kind: ClusterRole, name: {name}}}\nsubjects: [{subject}]\n",
            space = if kind == "RoleBinding" { "frigate" } else { "''" },
        )
    };
    for (kind, verbs, yes) in
        [("RoleBinding", "'*'", false), ("ClusterRoleBinding", "get, list", false), ("ClusterRoleBinding", "'*'", true)]
    {
        let file = kubectl.file("role.yaml", &role(kind, verbs));
        kubectl.ok(&format!("--context admin apply --validate=false -f {file}")).await;
        assert!(kubectl.ok(&create).await.contains(&format!("\"allowed\":{yes}")), "{kind} {verbs}");
    }
    kubectl.ok("--context admin delete clusterrolebinding all").await;
    kubectl.ok("--context admin delete rolebinding -n frigate all").await;
    kubectl.ok("label node k3s-vm-still-fawn a=b").await;
    let other = kubectl.refused("label node k3s-vm-pve-1 a=b").await;
    assert!(other.contains("cannot get resource \"nodes\""), "{other}");
    // A binding to a role that is not there gives nothing, and says so.
    kubectl.ok("--context admin delete clusterrole pvemig-frigate-coral").await;
    let said = kubectl.refused("get nodes").await;
    let gone = "at the cluster scope: RBAC: clusterrole.rbac.authorization.k8s.io \"pvemig-frigate-coral\" not found";
    assert!(said.contains(gone), "{said}");
}

/// The manifests of the verb `privileges`.
#[expect(clippy::disallowed_methods, reason = "the verb itself is asked")]
fn printed(site: &std::path::Path) -> String {
    let mut verb = std::process::Command::new(env!("CARGO_BIN_EXE_pvemig"));
    verb.args(["privileges", "frigate-coral", "--only", "kubernetes", "--site"]).arg(site).env_clear();
    let said = verb.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}
