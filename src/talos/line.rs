//! One connection to a node: TCP, TLS, and what the node said when it ended it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::base::wait;

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
            stream.set_nodelay(true).map_err(|error| NoLine::Unreachable(error.to_string()))?;
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
        Ok(Line { stream, hearing: hearing.clone() })
    }
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
}

impl Line {
    fn ended(&self, error: Option<&std::io::Error>) {
        let mut heard = lock(&self.hearing);
        heard.ended = true;
        if let Some(rustls::Error::AlertReceived(alert)) = error.and_then(tls_error) {
            heard.alert = Some(alert);
        }
    }

    /// A write that fails may hide the word that came before the end.
    fn listen(&mut self, cx: &mut Context<'_>) {
        let mut scrap = [0; 64];
        let mut buffer = ReadBuf::new(&mut scrap);
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            self.ended(Some(&error));
        }
    }

    fn wrote<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome {
            self.ended(Some(error));
            self.listen(cx);
        }
        outcome
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
        let line = self.get_mut();
        let outcome = Pin::new(&mut line.stream).poll_write(cx, bytes);
        line.wrote(cx, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let line = self.get_mut();
        let outcome = Pin::new(&mut line.stream).poll_flush(cx);
        line.wrote(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
