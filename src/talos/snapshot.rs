//! Etcd's data, from a control plane and to one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tonic::Status;

use crate::base::digest::hex;
use crate::base::fault::Effect;
use crate::base::permit::Permit;
use crate::base::wait::{self, limit};

use super::api::{Talos, machine};
use super::error::Error;
use super::proto::common::Data;
use super::proto::machine as wire;

/// The digest at the end of a snapshot.
const DIGEST: usize = 32;
/// A piece of a snapshot on its way to a node.
const PIECE: usize = 64 << 10;

/// A snapshot that was held against its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// In bytes, its digest with them.
    pub size: u64,
    /// The SHA-256 of the data, which is also at its end.
    pub sha256: String,
}

impl Talos {
    /// Stores a snapshot of etcd in a new file that its owner alone may read; it holds the cluster's secrets. The file is
    /// there under its name only when the digest at its end is that of its content; one that has the name already is left
    /// as it is. Nothing is changed on the node.
    ///
    /// # Errors
    /// [`Error::BadSnapshot`], [`Error::File`], and those of any question.
    pub async fn etcd_snapshot(&self, to: &Path) -> Result<Snapshot, Error> {
        let failed = |source| Error::File { path: to.to_owned(), source };
        let mut partial = to.as_os_str().to_owned();
        partial.push(".partial");
        let partial = std::path::PathBuf::from(partial);
        if tokio::fs::try_exists(to).await.map_err(failed)? {
            return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
        }
        // What an earlier try left may have been made wider since.
        match tokio::fs::remove_file(&partial).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut options = tokio::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&partial).await.map_err(failed)?;
        let done = match self.etcd_snapshot_into(&mut file, to).await {
            Ok(snapshot) => match file.sync_all().await {
                Ok(()) => tokio::fs::rename(&partial, to).await.map_err(failed).map(|()| snapshot),
                Err(error) => Err(failed(error)),
            },
            Err(error) => Err(error),
        };
        if done.is_err()
            && let Err(error) = tokio::fs::remove_file(&partial).await
        {
            tracing::warn!("{} stays: {error}", partial.display());
        }
        done
    }

    /// Copies a snapshot of etcd to a writer, which is flushed and not shut down; `to` names it in errors. Only where this
    /// is Ok was the digest at its end that of its content: what was written before is of no use without it. Nothing is
    /// changed on the node.
    ///
    /// # Errors
    /// [`Error::BadSnapshot`], [`Error::File`] where it cannot be written, and those of any question.
    pub async fn etcd_snapshot_into(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        to: &Path,
    ) -> Result<Snapshot, Error> {
        let copied = wait::within(self.limits.snapshot, self.copy_snapshot(writer, to)).await;
        copied.unwrap_or_else(|elapsed| Err(Error::NoAnswer { at: self.at(), why: format!("the snapshot: {elapsed}") }))
    }

    /// Copies the stream and holds it against the digest at its end (etcd's `snapshot save` appends it).
    async fn copy_snapshot(&self, file: &mut (impl AsyncWrite + Unpin), to: &Path) -> Result<Snapshot, Error> {
        let failed = |source| Error::File { path: to.to_owned(), source };
        let mut client = machine(self.questions());
        let open = async { Ok(client.etcd_snapshot(wire::EtcdSnapshotRequest {}).await?.into_inner()) };
        let mut stream = self.once("EtcdSnapshot", self.limits.read, open).await?;
        let (mut hash, mut tail, mut size) = (Sha256::new(), Vec::new(), 0_u64);
        let silence = limit::SILENCE.min(self.limits.snapshot);
        let silent =
            |elapsed| Error::NoAnswer { at: self.at(), why: format!("in the middle of the snapshot: {elapsed}") };
        loop {
            let piece = wait::within(silence, stream.message()).await.map_err(silent)?;
            let Some(piece) = piece.map_err(|status| self.broken(&status))? else { break };
            if let Some(metadata) = piece.metadata.filter(|metadata| !metadata.error.is_empty()) {
                return Err(self.broken(&Status::unknown(metadata.error)));
            }
            file.write_all(&piece.bytes).await.map_err(failed)?;
            size += piece.bytes.len() as u64;
            tail.extend_from_slice(&piece.bytes);
            // The last bytes may be the digest.
            let known = tail.len().saturating_sub(DIGEST);
            hash.update(tail.get(..known).unwrap_or_default());
            tail.drain(..known);
        }
        file.flush().await.map_err(failed)?;
        let bad = |why: &str| Error::BadSnapshot { at: self.at(), why: format!("{why} ({size} bytes)") };
        if size <= DIGEST as u64 {
            return Err(bad("it is cut short"));
        }
        let sum = hash.finalize();
        if sum.as_slice() != tail.as_slice() {
            return Err(bad("the digest at its end is not that of its content"));
        }
        Ok(Snapshot { size, sha256: hex(sum.as_slice()) })
    }

    /// Sends a snapshot to a control plane whose etcd waits in `Preparing`; [`Talos::bootstrap`] with `recover` then
    /// starts it from that.
    ///
    /// # Errors
    /// [`Error::NotReady`] where etcd is not waiting for it, [`Error::File`], and what else keeps the node from it.
    pub async fn etcd_recover(&self, permit: &Permit, from: &Path) -> Result<(), Error> {
        let failed = |source| Error::File { path: from.to_owned(), source };
        let mut file = tokio::fs::File::open(from).await.map_err(failed)?;
        let size = file.metadata().await.map_err(failed)?.len();
        let (send_piece, pieces) = tokio::sync::mpsc::channel::<Data>(4);
        let ended = Arc::new(AtomicBool::new(false));
        let stream = futures::stream::unfold((pieces, ended.clone()), |(mut pieces, ended)| async move {
            let piece = pieces.recv().await;
            ended.store(piece.is_none(), Ordering::SeqCst);
            Some((piece?, (pieces, ended)))
        });
        // Where the file cannot be read to its end the call is dropped: half a snapshot is not ended as if it were one.
        let unread = |error: std::io::Error| Status::aborted(format!("the snapshot cannot be read: {error}"));
        let read = async move {
            loop {
                let mut bytes = vec![0; PIECE];
                let count = file.read(&mut bytes).await.map_err(unread)?;
                bytes.truncate(count);
                // The other side stops listening where the node refuses it half way.
                if count == 0 || send_piece.send(Data { metadata: None, bytes }).await.is_err() {
                    return Ok(());
                }
            }
        };
        // It is only laid down there: etcd is begun from what was sent last.
        let note = self.note_safe(&format!("EtcdRecover, {size} bytes"));
        let send = |channel| async move {
            let mut client = machine(channel);
            let (answer, ()) = futures::try_join!(client.etcd_recover(stream), read)?;
            Ok(answer.into_inner())
        };
        let (_, answer) = self.change(permit, self.limits.snapshot, note, send).await?;
        self.only(answer.messages, |m| m.metadata.as_ref(), true)?;
        if ended.load(Ordering::SeqCst) {
            return Ok(());
        }
        let why = "it came before the snapshot was sent to its end".into();
        Err(Error::BadAnswer { at: self.at(), why, effect: Effect::Maybe })
    }
}
