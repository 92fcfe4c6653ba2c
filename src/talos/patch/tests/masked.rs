//! What a configuration has of secrets is not shown, nor said.

use super::*;
use crate::talos::patch::mask;

/// Every place that may have a secret has one of these in it; a number makes each another one.
const PLANTED: &str = r#"version: v1alpha1
# old: plant-word
machine:
  type: controlplane
  token: plant-word # plant-word
  ca: {crt: plant-word, key: plant-word}
  acceptedCAs:
    - crt: plant-word
  files:
    - content: |
        password = plant-word
        plant-word
      permissions: 0o644
      path: /var/etc/shown-file
      op: create
    - {content: "plant-word", path: /var/b, op: create}
  env: {HTTPS_PROXY: "http://plant-word:plant-word@proxy:3128", TOKEN_X: plant-word}
  registries:
    mirrors: {docker.io: {endpoints: ["https://plant-word@mirror"]}}
    config:
      registry.lan:
        auth: {username: plant-word, password: plant-word, auth: plant-word, identityToken: plant-word}
        tls: {ca: plant-word, clientIdentity: {crt: plant-word, key: plant-word}}
  install:
    image: factory.talos.dev/shown-image:v1.11.5
    extraKernelArgs: ["siderolink.api=grpc://x?jointoken=plant-word"]
  kernel: {modules: [{name: shown-module}]}
  sysctls: {vm.shown: "1"}
  network:
    hostname: shown-host
    interfaces:
      - interface: wg0
        wireguard: {privateKey: plant-word, peers: [{publicKey: plant-word, presharedKey: plant-word}]}
  systemDiskEncryption:
    ephemeral: {provider: luks2, keys: [{static: {passphrase: plant-word}, slot: 0}]}
  kubelet:
    image: ghcr.io/siderolabs/shown-kubelet:v1.34
    extraArgs: {some-flag: plant-word}
    extraConfig: {serverTLSBootstrap: plant-word}
    credentialProviderConfig: {providers: [{env: [{name: A, value: plant-word}]}]}
  logging: {destinations: [{endpoint: "tcp://plant-word@log:1"}]}
  pods:
    - {metadata: {name: plant-word}, spec: {containers: [{env: [{name: A, value: plant-word}]}]}}
  nodeLabels: {shown.label/x: shown-value, example.com/api-token: plant-word}
  nodeAnnotations: {a: plant-word}
  seccompProfiles: [{name: x, value: {a: plant-word}}]
  udev: {rules: ["plant-word"]}
  brandNew: {thing: plant-word}
cluster:
  id: plant-word
  secret: plant-word
  token: plant-word
  clusterName: shown-cluster
  controlPlane: {endpoint: "https://shown-endpoint:6443"}
  ca: {crt: plant-word, key: plant-word}
  aggregatorCA: {crt: plant-word, key: plant-word}
  serviceAccount: {key: plant-word}
  secretboxEncryptionSecret: plant-word
  aescbcEncryptionSecret: plant-word
  etcd: {ca: {crt: plant-word, key: plant-word}, extraArgs: {a: plant-word}}
  apiServer:
    env: {A: plant-word}
    extraArgs: {oidc-client: plant-word}
    admissionControl: [{name: X, configuration: {a: plant-word}}]
    auditPolicy: {a: plant-word}
  controllerManager: {extraArgs: {a: plant-word}}
  scheduler: {config: {a: plant-word}}
  extraManifests: ["https://plant-word@x/y.yaml"]
  extraManifestHeaders: {Authorization: plant-word}
  inlineManifests:
    - name: secret
      contents: |-
        kind: Secret
        stringData:
          a: plant-word
    - name: other
      contents: "a: plant-word\nb: plant-word"
  unknownField: plant-word
---
apiVersion: v1alpha1
kind: ExtensionServiceConfig
name: tailscale
environment: [TS_AUTHKEY=plant-word]
configFiles: [{content: plant-word, mountPath: /x}]
---
apiVersion: v1alpha1
kind: TrustedRootsConfig
name: roots
certificates: plant-word
---
apiVersion: v1alpha1
kind: WireguardConfig
name: wg1
privateKey: plant-word
peers: [{publicKey: plant-word, presharedKey: plant-word}]
---
apiVersion: v1alpha1
kind: RegistryAuthConfig
name: registry.lan
username: plant-word
password: plant-word
---
apiVersion: v1alpha1
kind: SideroLinkConfig
apiUrl: "https://x?jointoken=plant-word"
---
apiVersion: v1alpha1
kind: KmsgLogConfig
name: log
url: "tcp://plant-word@log:1"
---
apiVersion: v1alpha1
kind: EnvironmentConfig
variables: {A: plant-word}
---
apiVersion: v1alpha1
kind: UserVolumeConfig
name: shown-volume
provisioning: {diskSelector: {match: shown_disk}}
encryption: {provider: luks2, keys: [{static: {passphrase: plant-word}}]}
---
apiVersion: v1alpha1
kind: KubeNodeConfig
labels: {a: shown-label}
annotations: {a: plant-word}
---
apiVersion: v1alpha1
kind: KubeAPIServerCAConfig
issuingCA: {cert: plant-word, key: plant-word}
---
apiVersion: v1alpha1
kind: KindOfTomorrow
name: shown-name
field: plant-word
list: [plant-word, {deep: plant-word}]
---
apiVersion: v1alpha1
kind: LinkConfig
name: shown-link
hint: &here plant-word
up: true
"#;

/// The planted text with a number of its own for each, and those.
fn planted(prefix: &str) -> (String, Vec<String>) {
    let mut parts = PLANTED.split("plant-word");
    let (mut text, mut all) = (parts.next().unwrap().to_owned(), Vec::new());
    for (number, part) in parts.enumerate() {
        let word = format!("{prefix}{number:03}");
        text.push_str(&word);
        text.push_str(part);
        all.push(word);
    }
    (text, all)
}

fn shown(text: &str) -> usize {
    text.match_indices("shown").count()
}

/// How many of them stand in a text.
fn leaked<'w>(text: &str, words: &'w [String]) -> Vec<&'w String> {
    words.iter().filter(|word| text.contains(word.as_str())).collect()
}

#[test]
fn no_secret_is_in_a_difference() {
    let ((old, before), (new, after)) = (planted("quiet-"), planted("calmer-"));
    // All of these are at places where a secret may be, but for the last one: that field is not masked.
    assert_eq!((before.len(), yaml::documents(&old).unwrap().len()), (80, 13));
    let hint = before.len() - 1;
    let diff = diff(&old, &new).unwrap();
    assert_eq!(leaked(&diff, &before[..hint]), Vec::<&String>::new(), "{diff}");
    assert_eq!(leaked(&diff, &after[..hint]), Vec::<&String>::new(), "{diff}");
    // The control: what may be seen is seen, and the search finds a value that is not masked.
    assert_eq!((leaked(&diff, &before), leaked(&diff, &after)), (vec![&before[hint]], vec![&after[hint]]));
    assert!(
        shown(&diff) >= 8 && diff.contains("-  token: … # …\n") && diff.contains("+  token: … # …\n"),
        "{} {diff}",
        shown(&diff)
    );
    let all = mask::lines(&old).unwrap();
    assert_eq!(
        (all.len(), shown(&all.join("\n")), leaked(&all.join("\n"), &before)),
        (old.lines().count(), shown(&old), vec![&before[hint]])
    );
    // A raw one would show them all.
    let raw = similar::TextDiff::from_lines(&old, &new).unified_diff().to_string();
    assert_eq!((leaked(&raw, &before).len(), leaked(&raw, &after).len()), (80, 80));
}

#[test]
fn a_difference_shows_what_was_patched() {
    let (old, _) = planted("quiet-");
    let patches = [module("nvidia", None), sysctl("vm.nr_hugepages", "1024"), label("a.b/c", "yes")];
    let after = patched(&old, &patches);
    let diff = diff(&old, &after.text).unwrap();
    let changed: Vec<&str> = diff.lines().filter(|line| line.starts_with(['+', '-'])).collect();
    assert_eq!(changed.len(), 6, "{diff}");
    assert!(
        changed.iter().any(|line| line.contains("{name: nvidia}"))
            && changed.iter().any(|line| line.contains("a.b/c: 'yes'")),
        "{diff}"
    );
    assert_eq!(super::super::diff(&old, &old), Ok(String::new()));
    assert!(super::super::diff(&old, "a: [").unwrap_err().to_string().contains("cannot be read as YAML"));
}

#[test]
fn a_secret_that_stands_where_values_are_shown_is_masked_there_too() {
    let text = "machine:\n  token: &t sesame-open\n  network: {hostname: *t}\n  type: sesame-open\n";
    assert_eq!(mask::lines(text).unwrap(), ["machine:", "  token: &t …", "  network: {hostname: *t}", "  type: …"]);
    let tagged = "machine:\n  token: !secret [a]\n";
    assert!(mask::lines(tagged).is_err());
}

#[test]
fn what_others_say_of_a_configuration_has_no_secret_in_it() {
    let (text, words) = planted("quiet-");
    let mask = Mask::of(&text);
    let quoted =
        words.iter().map(|word| format!("unknown keys found: {word} \"{word}\"")).collect::<Vec<_>>().join("\n");
    let hint = words.len() - 1;
    let comments = 2;
    let said = mask.text(&quoted);
    // Of a comment what may be a former token goes; what stands in a shown field may be said.
    let noted = Mask::of("machine: # once k1v9qe.1x0d8s7m2c4b6n3z, see v1.11.5\n  type: worker\n");
    assert_eq!(noted.text("# once k1v9qe.1x0d8s7m2c4b6n3z, see v1.11.5"), "# once …, see v1.11.5");
    let left: Vec<&String> = leaked(&said, &words);
    assert_eq!(left, [&words[0], &words[comments], &words[hint]], "{said}");
    assert_eq!(leaked(&quoted, &words).len(), 80);
    assert_eq!(said.matches("unknown keys found: ").count(), 80);
    // In base64 and in quotes.
    let coded = Mask::of("machine: {token: \"a\\\"b c/d\"}").text("x YSJiIGMvZA== y \"a\\\"b c/d\" z a\"b c/d");
    assert_eq!(coded, "x … y \"…\" z …");
    // Short ones as words alone; numbers only where the name says what they are.
    let short = Mask::of("machine: {token: abc, mtuu: 1500, brandNew: tcp}\ncluster: {secret: 1234}");
    assert_eq!(short.text("abc abcd 1500 tcp 1234 12345 (abc)"), "… abcd 1500 tcp … 12345 (…)");
    // Of what cannot be read, every word.
    assert_eq!(Mask::of("a: [ sesame-open\n").text("line 1: sesame-open"), "line 1: …");
    assert_eq!(format!("{:?}", Mask::of("machine: {token: sesame-open}")), "Mask { secrets: 1 }");
    let words = "Dry run summary:\nApplied configuration without a reboot.\nConfig diff:\n\n-  token: sesame-closed\n";
    assert_eq!(mask::said(&mask, words), "Dry run summary:\nApplied configuration without a reboot.");
    assert_eq!(mask::said(&mask, "a quiet-001 b"), "a … b");
}
