//! The talosconfig: who to be and where, as talosctl writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use crate::base::fault::{Effect, Fault};
use crate::base::private::{self, PrivateError};
use crate::base::secret::Secret;

use super::certificate::ClientCertificate;

/// A talosconfig with all its contexts.
#[derive(Debug, Clone)]
pub struct Talosconfig {
    path: PathBuf,
    current: String,
    contexts: BTreeMap<String, Fields>,
}

/// One context, ready to be used.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its name.
    pub name: String,
    /// The file that it is from.
    pub file: PathBuf,
    /// The addresses that may pass requests on.
    pub endpoints: Vec<String>,
    /// The nodes that are meant where none is named.
    pub nodes: Vec<String>,
    /// As whom it speaks.
    pub certificate: ClientCertificate,
    /// The authorities of the nodes, in PEM form; several while the authority is replaced.
    pub(super) ca: Vec<u8>,
    /// The chain of the client certificate.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Its key, in a PEM form that the TLS library knows.
    pub(super) key: Secret,
    /// The key as it stands in the file; held, so that it is known for what it is.
    _key: Secret,
}

/// What is wrong with a talosconfig. The file, the context and the field are in each text, and nothing of the content.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant says what its fields are")]
pub enum TalosconfigError {
    /// It is not there, or others may read it.
    #[error("the talosconfig cannot be used")]
    Private(#[source] PrivateError),
    /// It is not of the form.
    #[error("{} is no talosconfig{}", path.display(), place.map(|(line, column)| format!(", see line {line}, column {column}")).unwrap_or_default())]
    Shape { path: PathBuf, place: Option<(u64, u64)> },
    /// It has no context of this name.
    #[error("{} has no context `{context}`: it has {}", path.display(), listed(known))]
    NoContext { path: PathBuf, context: String, known: Vec<String> },
    /// None is named and the file says of none that it is the current one.
    #[error("{} names no current context: it has {}", path.display(), listed(known))]
    NoCurrent { path: PathBuf, known: Vec<String> },
    /// A field that is needed is missing or of no use.
    #[error("{}, context `{context}`: `{field}` {why}", path.display())]
    Field { path: PathBuf, context: String, field: &'static str, why: String },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// What makes a talosconfig without one that works.
pub(super) const FROM_SECRETS: &str =
    "`talosctl gen config --with-secrets secrets.yaml --output-types talosconfig NAME ENDPOINT`";

impl Fault for TalosconfigError {
    fn effect(&self) -> Effect {
        Effect::None
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Private(source) => return source.help(),
            Self::Shape { .. } => "name the file that `talosctl gen config` or `talosctl config new` wrote".into(),
            Self::NoContext { .. } | Self::NoCurrent { .. } => {
                "name one of them as `context`; `talosctl config contexts` lists them".into()
            }
            Self::Field { field: "auth" | "proxy-url", path, context, .. } => format!(
                "make a talosconfig with a client certificate of its own: `talosctl --talosconfig {} --context {context} -n \
                 CONTROL-PLANE config new mine --roles os:admin`",
                path.display()
            ),
            // What is broken makes no other one.
            Self::Field { .. } => {
                format!(
                    "take the talosconfig that the cluster was made with, or make one from its secrets: {FROM_SECRETS}"
                )
            }
        })
    }
}

/// As the file has it.
#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(default)]
    context: String,
    contexts: BTreeMap<String, RawContext>,
}

#[derive(Deserialize)]
struct RawContext {
    #[serde(default)]
    endpoints: Vec<String>,
    #[serde(default)]
    nodes: Vec<String>,
    /// The one endpoint of old files.
    target: Option<String>,
    ca: Option<String>,
    crt: Option<String>,
    key: Option<String>,
    auth: Option<serde::de::IgnoredAny>,
    #[serde(rename = "proxy-url")]
    proxy_url: Option<String>,
}

impl std::fmt::Debug for RawContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawContext")
    }
}

/// What is kept of a context; the key as a secret from the start.
#[derive(Debug, Clone)]
struct Fields {
    endpoints: Vec<String>,
    nodes: Vec<String>,
    ca: Option<String>,
    crt: Option<String>,
    key: Option<Secret>,
    auth: bool,
    proxy: bool,
}

impl From<RawContext> for Fields {
    fn from(raw: RawContext) -> Self {
        let mut endpoints = raw.endpoints;
        endpoints.extend(raw.target.filter(|target| !target.is_empty()));
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            endpoints,
            nodes: raw.nodes,
            ca: some(raw.ca),
            crt: some(raw.crt),
            key: some(raw.key).map(Secret::new),
            auth: raw.auth.is_some(),
            proxy: some(raw.proxy_url).is_some(),
        }
    }
}

impl Context {
    /// Whether nodes with a certificate of this authority (PEM) are trusted by it.
    pub fn is_of(&self, ca: &str) -> bool {
        let read = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect::<Vec<_>>();
        let own = read(&self.ca);
        let asked = read(ca.as_bytes());
        !asked.is_empty() && asked.iter().any(|certificate| own.contains(certificate))
    }
}

impl Talosconfig {
    /// Reads a file; only its owner may read it where it holds keys, which it always does.
    ///
    /// # Errors
    /// [`TalosconfigError`].
    pub fn read(path: &Path) -> Result<Self, TalosconfigError> {
        let bytes = private::read(path).map_err(TalosconfigError::Private)?;
        let shape = |place| TalosconfigError::Shape { path: path.to_owned(), place };
        let text = std::str::from_utf8(&bytes).map_err(|_| shape(None))?;
        // The error's own text quotes the file.
        let raw: Raw =
            serde_saphyr::from_str(text).map_err(|error| shape(error.location().map(|at| (at.line(), at.column()))))?;
        let contexts = raw.contexts.into_iter().map(|(name, context)| (name, context.into())).collect();
        Ok(Self { path: path.to_owned(), current: raw.context, contexts })
    }

    /// The names of the contexts.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.contexts.keys().map(String::as_str)
    }

    /// A context by name, or the current one.
    ///
    /// # Errors
    /// [`TalosconfigError`].
    pub fn context(&self, name: Option<&str>) -> Result<Context, TalosconfigError> {
        let known = || self.contexts().map(str::to_owned).collect();
        let name = match name {
            Some(name) => name,
            None if self.current.is_empty() => {
                return Err(TalosconfigError::NoCurrent { path: self.path.clone(), known: known() });
            }
            None => &self.current,
        };
        let no_context =
            || TalosconfigError::NoContext { path: self.path.clone(), context: name.to_owned(), known: known() };
        let fields = self.contexts.get(name).ok_or_else(no_context)?;
        let bad = |field: &'static str, why: &str| TalosconfigError::Field {
            path: self.path.clone(),
            context: name.to_owned(),
            field,
            why: why.to_owned(),
        };
        if fields.proxy {
            return Err(bad("proxy-url", "is not supported: nodes are asked directly"));
        }
        if fields.auth && fields.crt.is_none() {
            return Err(bad("auth", "is not supported: a client certificate is needed"));
        }
        let pem = |field: &'static str, text: &Option<String>| -> Result<Vec<u8>, TalosconfigError> {
            let text = text.as_deref().ok_or_else(|| bad(field, "is missing"))?;
            STANDARD.decode(text.trim()).map_err(|_| bad(field, "is not base64"))
        };
        let ca = pem("ca", &fields.ca)?;
        crate::base::tls::roots(&ca).map_err(|_| bad("ca", "holds no certificate in PEM form"))?;
        let crt = pem("crt", &fields.crt)?;
        let chain = CertificateDer::pem_slice_iter(&crt).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| bad("crt", "holds no certificate in PEM form"))?;
        let certificate = chain.first().and_then(|leaf| ClientCertificate::of(leaf.as_ref()));
        let certificate = certificate.ok_or_else(|| bad("crt", "holds no certificate that can be read"))?;
        let held = fields.key.clone().ok_or_else(|| bad("key", "is missing"))?;
        let key = STANDARD.decode(held.expose().trim()).map_err(|_| bad("key", "is not base64"))?;
        let key = String::from_utf8(key).map_err(|_| bad("key", "holds no key in PEM form"))?;
        let key = Secret::new(relabelled(&key));
        let parsed = PrivateKeyDer::from_pem_slice(key.expose().as_bytes());
        let parsed = parsed.map_err(|_| bad("key", "holds no key in PEM form"))?;
        fits(&chain, parsed).map_err(|why| bad("key", &why))?;
        Ok(Context {
            name: name.to_owned(),
            file: self.path.clone(),
            endpoints: fields.endpoints.clone(),
            nodes: fields.nodes.clone(),
            certificate,
            ca,
            chain,
            key,
            _key: held,
        })
    }
}

/// Talos writes the PKCS#8 form of an Ed25519 key under a label of its own (siderolabs/crypto `PEMTypeEd25519Private`),
/// which TLS libraries do not know.
fn relabelled(pem: &str) -> String {
    pem.replace("-----BEGIN ED25519 PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----")
        .replace("-----END ED25519 PRIVATE KEY-----", "-----END PRIVATE KEY-----")
}

/// Whether key and certificate belong together.
fn fits(chain: &[CertificateDer<'static>], key: PrivateKeyDer<'static>) -> Result<(), String> {
    let provider = rustls::crypto::ring::default_provider();
    match rustls::sign::CertifiedKey::from_der(chain.to_vec(), key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err("does not belong to the certificate in `crt`".into()),
        Err(_) => Err("is of a kind that cannot be used".into()),
    }
}
