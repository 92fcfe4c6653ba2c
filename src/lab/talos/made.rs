//! What `talosctl gen config` makes before there is a cluster: one machine configuration for all control planes, with the
//! authorities of the cluster in it (siderolabs/talos `pkg/machinery/config/generate`). A person adds a patch for each
//! machine.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

use super::certificates::{Authority, dated};
use crate::lab::{LabError, wire};

/// What is made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Made {
    /// Where the Kubernetes API is to be reached.
    pub endpoint: String,
    /// The installer's image.
    pub installer: String,
    /// The patch of each machine, by the node's name.
    pub patches: BTreeMap<String, String>,
}

/// The secrets of a cluster that each of its configurations has: with `--with-secrets` they are those of before.
#[derive(Clone)]
pub struct Known {
    joins: String,
    boots: String,
    id: String,
    secret: String,
}

impl Known {
    fn fresh() -> Result<Self, LabError> {
        let (id, secret) = (URL_SAFE.encode(random::<32>()?), STANDARD.encode(random::<32>()?));
        Ok(Self { joins: token()?, boots: token()?, id, secret })
    }

    /// Those of a cluster that there is, from a configuration of it.
    pub(super) fn of(config: &str) -> Option<Self> {
        let main: serde_json::Value = serde_saphyr::from_str(config).ok()?;
        let at = |pointer: &str| main.pointer(pointer)?.as_str().map(str::to_owned);
        let (joins, boots) = (at("/machine/token")?, at("/cluster/token")?);
        Some(Self { joins, boots, id: at("/cluster/id")?, secret: at("/cluster/secret")? })
    }
}

/// What stands in for sops: it takes the same arguments, and a file that says `data:`.
const SOPS: &str = "#!/bin/sh\n# Stands in for sops in the lab: `sops-stand-in -d FILE`.\n[ \"$1\" = -d ] || exit 2\n\
                    exec sed -n 's/^data: //p' \"$2\" | base64 -d\n";

fn random<const N: usize>() -> Result<[u8; N], LabError> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}

/// A token of six and sixteen letters (siderolabs/talos `generate/secrets/bundle.go`, `genToken`).
fn token() -> Result<String, LabError> {
    const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let letter = |byte: &u8| LETTERS.get(usize::from(*byte) % LETTERS.len()).map_or('x', |letter| char::from(*letter));
    let letters: String = random::<22>()?.iter().map(letter).collect();
    let (head, tail) = letters.split_at(6);
    Ok(format!("{head}.{tail}"))
}

/// Certificate and key of an authority, PEM in base64; `kind`: what its one name is.
fn authority(kind: DnType, name: &str) -> Result<(String, String), LabError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(kind, name);
    dated(&mut params, 10);
    let made = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    Ok((STANDARD.encode(made.pem()), STANDARD.encode(made.key().serialize_pem())))
}

impl Made {
    /// Name, text and mode of each file: the configuration, the same one encrypted with what decrypts it, the patches.
    ///
    /// # Errors
    /// [`LabError`] where the system gives no random bytes.
    pub fn files(
        &self,
        cluster: &str,
        version: &str,
        known: Option<&Known>,
        machine: &Authority,
        kubernetes: &wire::Authority,
    ) -> Result<Vec<(String, String, u32)>, LabError> {
        let config = self.config(cluster, version, known, machine, kubernetes)?;
        let encrypted = format!(
            "data: {}\nsops:\n    mac: ENC[AES256_GCM,data:bGFi,type:str]\n    version: 3.9.4\n",
            STANDARD.encode(&config)
        );
        let mut files = vec![
            ("worker.yaml".to_owned(), config.replacen("type: controlplane", "type: worker", 1), 0o600),
            ("controlplane.yaml".to_owned(), config, 0o600),
            ("controlplane.sops.yaml".to_owned(), encrypted, 0o644),
            ("sops-stand-in".to_owned(), SOPS.to_owned(), 0o755),
        ];
        files.extend(self.patches.iter().map(|(node, text)| (format!("{node}.yaml"), text.clone(), 0o644)));
        Ok(files)
    }

    fn config(
        &self,
        cluster: &str,
        version: &str,
        known: Option<&Known>,
        machine: &Authority,
        kubernetes: &wire::Authority,
    ) -> Result<String, LabError> {
        let (os, os_key) = machine.written();
        let (kube, kube_key) = (STANDARD.encode(kubernetes.pem()), STANDARD.encode(kubernetes.key_pem()));
        let (etcd, etcd_key) = authority(DnType::OrganizationName, "etcd")?;
        let (proxy, proxy_key) = authority(DnType::CommonName, "front-proxy")?;
        let accounts = STANDARD.encode(KeyPair::generate()?.serialize_pem());
        let Known { joins, boots, id, secret } = match known {
            Some(known) => known.clone(),
            None => Known::fresh()?,
        };
        let secretbox = STANDARD.encode(random::<32>()?);
        let Self { endpoint, installer, .. } = self;
        let host = endpoint.trim_start_matches("https://").split(':').next().unwrap_or_default();
        Ok(format!(
            "version: v1alpha1
debug: false
persist: true
machine:
    type: controlplane
    token: {joins}
    ca:
        crt: {os}
        key: {os_key}
    certSANs: []
    kubelet:
        image: ghcr.io/siderolabs/kubelet:{version}
        defaultRuntimeSeccompProfileEnabled: true
        disableManifestsDirectory: true
    network: {{}}
    install:
        image: {installer}
        wipe: false
    registries: {{}}
    features:
        rbac: true
        stableHostname: true
        apidCheckExtKeyUsage: true
        diskQuotaSupport: true
        kubePrism:
            enabled: true
            port: 7445
        hostDNS:
            enabled: true
            forwardKubeDNSToHost: true
cluster:
    id: {id}
    secret: {secret}
    controlPlane:
        endpoint: {endpoint}
    clusterName: {cluster}
    network:
        dnsDomain: cluster.local
        podSubnets:
            - 10.244.0.0/16
        serviceSubnets:
            - 10.96.0.0/12
    token: {boots}
    secretboxEncryptionSecret: {secretbox}
    ca:
        crt: {kube}
        key: {kube_key}
    aggregatorCA:
        crt: {proxy}
        key: {proxy_key}
    serviceAccount:
        key: {accounts}
    apiServer:
        image: registry.k8s.io/kube-apiserver:{version}
        certSANs:
            - {host}
        disablePodSecurityPolicy: true
    controllerManager:
        image: registry.k8s.io/kube-controller-manager:{version}
    proxy:
        image: registry.k8s.io/kube-proxy:{version}
    scheduler:
        image: registry.k8s.io/kube-scheduler:{version}
    discovery:
        enabled: true
        registries:
            kubernetes:
                disabled: true
            service: {{}}
    etcd:
        ca:
            crt: {etcd}
            key: {etcd_key}
    extraManifests: []
    inlineManifests: []
    allowSchedulingOnControlPlanes: true
"
        ))
    }
}
