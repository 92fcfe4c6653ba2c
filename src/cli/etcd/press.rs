//! What a snapshot goes through on its way to the disk: it is encrypted where that is wanted, and counted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::base::age::{Encryptor, Recipient};
use crate::base::digest::hex;

/// A writer to a file. In the file are only bytes that have gone through it.
pub(super) struct Press {
    file: File,
    age: Option<Encryptor>,
    /// What is not in the file yet, from `at` on.
    ready: Vec<u8>,
    at: usize,
    hash: Sha256,
    written: u64,
}

/// A file as it is on the disk.
pub(super) struct Pressed {
    pub(super) size: u64,
    /// As `sha256sum` says it.
    pub(super) sha256: String,
}

impl Press {
    /// Without recipients the content is written as it is.
    pub(super) fn new(file: File, recipients: &[Recipient]) -> io::Result<Self> {
        let (age, ready) = match recipients {
            [] => (None, Vec::new()),
            some => {
                let (age, begin) = Encryptor::new(some).map_err(io::Error::other)?;
                (Some(age), begin)
            }
        };
        Ok(Self { file, age, ready, at: 0, hash: Sha256::new(), written: 0 })
    }

    /// Writes the end; only with it an encrypted file is whole.
    pub(super) async fn finish(mut self) -> io::Result<Pressed> {
        if let Some(age) = self.age.take() {
            age.finish(&mut self.ready).map_err(io::Error::other)?;
        }
        self.flush().await?;
        Ok(Pressed { size: self.written, sha256: hex(&self.hash.finalize()) })
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.ready.get(self.at..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.file).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.hash.update(rest.get(..count).unwrap_or_default());
            self.written += count as u64;
            self.at += count;
        }
        self.ready.clear();
        self.at = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Press {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let press = self.get_mut();
        ready!(press.poll_drain(cx))?;
        match &mut press.age {
            Some(age) => age.write(bytes, &mut press.ready).map_err(io::Error::other)?,
            None => press.ready.extend_from_slice(bytes),
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let press = self.get_mut();
        ready!(press.poll_drain(cx))?;
        Pin::new(&mut press.file).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
