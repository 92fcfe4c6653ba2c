//! The files of the repositories that come with the lab.

use std::path::Path;

use super::git;
use crate::lab::LabError;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../worlds/gitops/", $path)))),*]
    };
}

/// The repository of the cluster `usb-move`.
const FILES: &[(&str, &str)] = files![
    "README.md",
    "apps/frigate/configmap.yaml",
    "apps/frigate/deployment.yaml",
    "apps/frigate/kustomization.yaml",
    "apps/frigate/namespace.yaml",
    "apps/frigate/pvc.yaml",
    "apps/frigate/service.yaml",
    "apps/home/kustomization.yaml",
    "apps/home/mosquitto.yaml",
    "apps/home/namespace.yaml",
    "apps/home/whoami.yaml",
    "apps/kustomization.yaml",
    "clusters/homelab/apps.yaml",
    "clusters/homelab/flux-system/gotk-sync.yaml",
    "clusters/homelab/flux-system/kustomization.yaml",
    "clusters/homelab/images.yaml",
];

/// Makes the bare repository and a checkout of it.
pub(crate) fn create(bare: &Path, checkout: &Path) -> Result<(), LabError> {
    git::create(bare, checkout, FILES)
}
