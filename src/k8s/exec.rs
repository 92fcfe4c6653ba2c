//! A reading command in a pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as ApiPod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::api::Kubernetes;
use super::classify;
use super::error::{Call, KubeError};
use super::resource::POD;
use crate::base::request::Request;
use crate::base::wait::within;

/// How much of each stream is kept; the rest is read and dropped, so that the command is not stopped by a full pipe.
const KEEP: usize = 1 << 20;

/// What a command gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// The first MiB of its output.
    pub stdout: Vec<u8>,
    /// The first MiB of its errors.
    pub stderr: Vec<u8>,
    /// True where there was more.
    pub cut: bool,
    /// Its exit code.
    pub code: i32,
}

impl Kubernetes {
    /// Runs a command that the site declares as reading in a container of a pod. It takes no permit, so never hand
    /// it a command that changes anything.
    ///
    /// The output counts only with the exit status: a cut stream looks like the end of the output.
    ///
    /// # Errors
    /// [`KubeError::LostAnswer`] where the stream ended without a status or `limit` passed, [`KubeError::Refused`]
    /// where the command could not be started, and what keeps the API from answering.
    pub async fn exec(
        &self,
        (namespace, pod): (&str, &str),
        container: Option<&str>,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutcome, KubeError> {
        let call = self.call("EXEC", format!("{}: {}", POD.name_of(namespace, pod), command.join(" ")), false);
        let params = AttachParams {
            container: container.map(str::to_owned),
            max_stdout_buf_size: Some(64 << 10),
            max_stderr_buf_size: Some(64 << 10),
            ..AttachParams::default()
        };
        let work = async {
            let api: Api<ApiPod> = Api::namespaced(self.client.clone(), namespace);
            let path = format!("{}/exec", POD.path(namespace, pod));
            let asked = Request::begin(self.clock, self.name(), format_args!("GET {path}"));
            let started = api.exec(pod, command.iter().cloned(), &params).await;
            asked.ended(if started.is_ok() { "101" } else { "not started" });
            let mut process = started.map_err(|error| not_started(&call, error))?;
            let streams = (process.stdout(), process.stderr(), process.take_status());
            let (Some(stdout), Some(stderr), Some(status)) = streams else {
                return Err(KubeError::BadAnswer { call: call.clone(), text: "a stream is missing".into() });
            };
            let drained = async { tokio::join!(drain(stdout), drain(stderr)) };
            tokio::pin!(drained, status);
            let (status, early) = tokio::select! {
                status = &mut status => (status, None),
                streams = &mut drained => (status.await, Some(streams)),
            };
            // Without a status the streams may never end; what came so far proves nothing.
            let Some(status) = status else {
                let source = "the stream ended without an exit status".into();
                return Err(KubeError::LostAnswer { call: call.clone(), source });
            };
            let code = exit_code(&call, status)?;
            let ((stdout, more), (stderr, still_more)) = match early {
                Some(streams) => streams,
                None => drained.await,
            };
            Ok(ExecOutcome { stdout, stderr, cut: more || still_more, code })
        };
        let outcome = within(limit, work).await;
        outcome.unwrap_or_else(|elapsed| Err(KubeError::LostAnswer { call: call.clone(), source: Box::new(elapsed) }))
    }
}

/// Reads a stream to its end and keeps the first part; true where there was more.
async fn drain(mut stream: impl AsyncRead + Unpin) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let mut more = false;
    let mut buffer = vec![0; 16 << 10];
    // An error of the in-memory pipe means that the connection ended; the status decides what that is worth.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = KEEP - kept.len();
        more |= count > room;
        kept.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
    }
    (kept, more)
}

/// The exit code in the status that ends a stream (channel 3 of `v5.channel.k8s.io`).
fn exit_code(call: &Call, status: Status) -> Result<i32, KubeError> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let exit = causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode")).and_then(|c| c.message.clone());
    match exit.and_then(|code| code.parse().ok()) {
        Some(code) => Ok(code),
        None => Err(KubeError::Refused {
            call: call.clone(),
            code: status.code.and_then(|c| u16::try_from(c).ok()).unwrap_or(0),
            text: status.message.or(status.reason).unwrap_or_else(|| "the command could not be run".into()),
        }),
    }
}

fn not_started(call: &Call, error: kube::Error) -> KubeError {
    match error {
        kube::Error::Api(status) => {
            let ours = classify::Status {
                kind: "Status".into(),
                status: "Failure".into(),
                message: status.message.clone(),
                reason: status.reason.clone(),
                code: status.code,
                ..classify::Status::default()
            };
            classify::by_status(call.clone(), status.code, ours)
        }
        kube::Error::UpgradeConnection(error) => {
            KubeError::BadAnswer { call: call.clone(), text: format!("no web socket: {error}") }
        }
        other => classify::transport(call.clone(), other),
    }
}
