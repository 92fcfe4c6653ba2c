//! One connection to a node: TCP, TLS, and what the node said when it ended it.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::base::wait::{self, limit};

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLine {
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Tls(rustls::Error),
}

/// How to reach a node.
pub(super) struct Dial {
    pub(super) host: String,
    pub(super) port: u16,
    /// The name that its certificate has to have.
    pub(super) name: ServerName<'static>,
    pub(super) tls: Arc<ClientConfig>,
}

/// What was heard on a connection.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Heard {
    /// The node has sent something after the handshake.
    pub(super) anything: bool,
    /// The node has ended the connection, or the network has.
    pub(super) ended: bool,
    /// The node's reason to end it.
    pub(super) alert: Option<AlertDescription>,
}

/// What was heard on the newest connection of a channel.
pub(super) type Hearing = Arc<Mutex<Heard>>;

impl Dial {
    /// Connects, both steps within `limit`.
    pub(super) async fn line(&self, limit: Duration, hearing: &Hearing) -> Result<Line, NoLine> {
        let open = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
            let stream = stream.map_err(|error| NoLine::Unreachable(error.to_string()))?;
            prepare(&stream).map_err(|error| NoLine::Unreachable(error.to_string()))?;
            TlsConnector::from(self.tls.clone()).connect(self.name.clone(), stream).await.map_err(|error| {
                match tls_error(&error) {
                    Some(tls) => NoLine::Tls(tls),
                    None => NoLine::Unreachable(format!("TLS: {error}")),
                }
            })
        };
        let none = || NoLine::Unreachable(format!("no connection within {}", wait::show(limit)));
        let stream = wait::within(limit, open).await.map_err(|_| none())??;
        *lock(hearing) = Heard::default();
        Ok(Line { stream, hearing: hearing.clone(), broken: None })
    }
}

/// A watch may be silent for hours, and a machine that is reset does not end its connections. The kernel finds out, not
/// pings of HTTP/2: apid keeps the default of Go's gRPC, which ends the connection of who pings more often than every five
/// minutes (grpc-go keepalive.EnforcementPolicy).
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let probes =
        TcpKeepalive::new().with_time(limit::PROBE).with_interval(limit::PROBE_AGAIN).with_retries(limit::PROBES);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

pub(super) fn lock(hearing: &Hearing) -> std::sync::MutexGuard<'_, Heard> {
    hearing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The TLS library's error inside an input error.
fn tls_error(error: &std::io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}

/// The connection; it listens to how it ends.
pub(super) struct Line {
    stream: TlsStream<TcpStream>,
    hearing: Hearing,
    /// Why nothing more can be written, while the node's last word is waited for.
    broken: Option<std::io::Error>,
}

impl Line {
    fn ended(&self, error: Option<&std::io::Error>) {
        let mut heard = lock(&self.hearing);
        heard.ended = true;
        if let Some(rustls::Error::AlertReceived(alert)) = error.and_then(tls_error) {
            heard.alert = Some(alert);
        }
    }

    /// A write that fails may hide the word that came before the end: it is heard first. Pending where it is still on its
    /// way; where the other end is closed an end comes, be it without a word.
    fn listen(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 64];
        loop {
            let mut buffer = ReadBuf::new(&mut scrap);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => lock(&self.hearing).anything = true,
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Ready(Err(error)) => {
                    self.ended(Some(&error));
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<TcpStream>>, &mut Context<'_>) -> Poll<std::io::Result<T>>,
    ) -> Poll<std::io::Result<T>> {
        let error = match self.broken.take() {
            Some(error) => error,
            None => match write(Pin::new(&mut self.stream), cx) {
                Poll::Ready(Err(error)) => error,
                other => return other,
            },
        };
        self.ended(Some(&error));
        let closed = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        if self.listen(cx).is_pending() && closed {
            self.broken = Some(error);
            return Poll::Pending;
        }
        Poll::Ready(Err(error))
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let line = self.get_mut();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut line.stream).poll_read(cx, buffer);
        match &outcome {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => lock(&line.hearing).anything = true,
            Poll::Ready(Ok(())) => line.ended(None),
            Poll::Ready(Err(error)) => line.ended(Some(error)),
            Poll::Pending => {}
        }
        outcome
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.get_mut().write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.get_mut().write(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_asks_whether_a_silent_node_is_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        let set = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert_eq!((set, socket.tcp_keepalive_retries().unwrap()), ((limit::PROBE, limit::PROBE_AGAIN), limit::PROBES));
    }
}
