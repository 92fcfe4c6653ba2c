//! What a node sends as a stream of bytes: files, the kernel's log, a kubeconfig.

use std::io::Read;

use tonic::{Status, Streaming};

use crate::base::secret::Secret;

use super::api::{Talos, machine};
use super::error::Error;
use super::kind;
use super::proto::common::Data;
use super::proto::machine as wire;

/// More than any kubeconfig has.
const LARGEST: u64 = 1 << 20;

/// All pieces of a stream together.
pub(super) async fn joined(mut stream: Streaming<Data>) -> Result<Vec<u8>, Status> {
    let mut all = Vec::new();
    while let Some(piece) = stream.message().await? {
        if let Some(metadata) = piece.metadata.filter(|metadata| !metadata.error.is_empty()) {
            return Err(Status::unknown(metadata.error));
        }
        all.extend_from_slice(&piece.bytes);
    }
    Ok(all)
}

impl Talos {
    /// A regular file, one of /proc or /sys with them. There are no patterns and no directories.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Denied`] (it takes os:admin), and those of any question.
    pub async fn file(&self, path: &str) -> Result<Vec<u8>, Error> {
        let ask = |channel| {
            let request = wire::ReadRequest { path: path.to_owned() };
            async move { joined(machine(channel).read(request).await?.into_inner()).await }
        };
        self.read(&format!("Read {path}"), ask).await
    }

    /// The boot id, which differs after every boot, a kexec with them.
    ///
    /// # Errors
    /// As [`Talos::file`].
    pub async fn boot_id(&self) -> Result<String, Error> {
        let bytes = self.file("/proc/sys/kernel/random/boot_id").await?;
        let id = String::from_utf8_lossy(&bytes).trim().to_owned();
        if id.is_empty() { Err(self.unreadable("boot_id", "it is empty")) } else { Ok(id) }
    }

    /// The boot id; to read the file takes os:admin, the resource (from 1.14 on) does not.
    ///
    /// # Errors
    /// What keeps the node from answering.
    pub async fn this_boot(&self) -> Result<String, Error> {
        let denied = match self.boot_id().await {
            Err(error @ Error::Denied { .. }) => error,
            other => return other,
        };
        match self.single(&kind::BOOT_ID).await {
            Ok(Some(boot)) => Ok(boot.spec.boot_id),
            Ok(None) | Err(Error::NoSuchKind { .. }) => Err(denied),
            Err(error) => Err(error),
        }
    }

    /// The kernel's log so far.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn dmesg(&self) -> Result<String, Error> {
        let ask = |channel| async {
            let request = wire::DmesgRequest { follow: false, tail: false };
            joined(machine(channel).dmesg(request).await?.into_inner()).await
        };
        Ok(String::from_utf8_lossy(&self.read("Dmesg", ask).await?).into_owned())
    }

    /// A kubeconfig of an administrator, made for this request. Control planes alone make them.
    ///
    /// # Errors
    /// [`Error::BadAnswer`] where the archive that it comes in holds none, and those of any question.
    pub async fn kubeconfig(&self) -> Result<Secret, Error> {
        let ask = |channel| async { joined(machine(channel).kubeconfig(()).await?.into_inner()).await };
        let archive = self.read("Kubeconfig", ask).await?;
        let text = only_file(&archive).and_then(|bytes| String::from_utf8(bytes).ok());
        text.map(Secret::new).ok_or_else(|| self.unreadable("Kubeconfig", "it is no archive with one file in it"))
    }
}

/// The one file of a .tar.gz (POSIX.1-1988 ustar: a header of 512 bytes with name, size in octal and kind, then the
/// content).
fn only_file(archive: &[u8]) -> Option<Vec<u8>> {
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(archive).take(LARGEST).read_to_end(&mut tar).ok()?;
    let mut rest = tar.as_slice();
    loop {
        let (header, behind) = rest.split_at_checked(512)?;
        let size = std::str::from_utf8(header.get(124..136)?).ok()?.trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(size, 8).ok()?;
        match header.get(156)? {
            b'0' | 0 => return behind.get(..size).map(<[u8]>::to_vec),
            // A header in front of the file's own.
            _ => rest = behind.get(size.next_multiple_of(512)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::only_file;

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn entry(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 512];
        out[..10].copy_from_slice(b"kubeconfig");
        out[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        out[156] = kind;
        out.extend_from_slice(content);
        out.resize(512 + content.len().next_multiple_of(512), 0);
        out
    }

    #[test]
    fn the_file_is_found_behind_other_headers() {
        let plain = gz(&entry(b'0', b"apiVersion: v1\n"));
        assert_eq!(only_file(&plain).unwrap(), b"apiVersion: v1\n");
        let behind = gz(&[entry(b'x', b"13 size=15\n\n"), entry(b'0', b"apiVersion: v1\n")].concat());
        assert_eq!(only_file(&behind).unwrap(), b"apiVersion: v1\n");
        let none = [gz(b""), gz(&[0; 1024]), b"apiVersion: v1".to_vec(), gz(&entry(b'5', b"")), plain[..30].to_vec()];
        assert_eq!(none.iter().filter(|archive| only_file(archive).is_none()).count(), 5);
    }
}
