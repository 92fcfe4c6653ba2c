//! A relay between the program and a server: adds a round trip to every exchange, counts connections, and knows when
//! somebody waited for an answer.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What all relays of one measurement saw.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    connections: AtomicUsize,
    bytes: AtomicUsize,
    /// From the first byte of a question, or a connection's beginning, to the last byte of its answer.
    waits: Mutex<Vec<(Instant, Instant)>>,
}

impl Wire {
    /// Forgets what was seen.
    pub(crate) fn clear(&self) {
        self.connections.store(0, Ordering::SeqCst);
        self.bytes.store(0, Ordering::SeqCst);
        self.waits.lock().unwrap().clear();
    }

    /// Connections that were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Bytes that came from either side.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// For how long at least one answer was waited for.
    pub(crate) fn waited(&self) -> Duration {
        let mut waits = self.waits.lock().unwrap().clone();
        waits.sort();
        let (mut sum, mut until) = (Duration::ZERO, None::<Instant>);
        for (from, to) in waits {
            let from = until.map_or(from, |until| from.max(until));
            sum += to.saturating_duration_since(from);
            until = Some(until.map_or(to, |until| until.max(to)));
        }
        sum
    }
}

/// Relays to `upstream`; each way takes half of `round`.
pub(crate) async fn relay(wire: Arc<Wire>, upstream: SocketAddr, round: Duration) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            wire.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(connection(wire.clone(), client, upstream, round));
        }
    });
    address
}

async fn connection(wire: Arc<Wire>, client: TcpStream, upstream: SocketAddr, round: Duration) {
    let begun = Instant::now();
    // The handshake of TCP is a round trip of its own.
    tokio::time::sleep(round).await;
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When the open question was begun, and when something of its answer was last delivered.
    let open = Arc::new(Mutex::new((Some(begun), begun)));
    let asked = open.clone();
    let told = wire.clone();
    let up = carry(wire.clone(), from_client, to_server, round / 2, move || {
        let (since, last) = &mut *asked.lock().unwrap();
        if let Some(since) = since.filter(|since| *last > *since) {
            told.waits.lock().unwrap().push((since, *last));
        }
        if since.is_none_or(|since| *last > since) {
            *since = Some(Instant::now());
        }
    });
    let answered = open.clone();
    let down =
        carry(wire.clone(), from_server, to_client, round / 2, move || answered.lock().unwrap().1 = Instant::now());
    tokio::join!(up, down);
    let (since, last) = *open.lock().unwrap();
    if let Some(since) = since.filter(|since| last > *since) {
        wire.waits.lock().unwrap().push((since, last));
    }
}

/// Carries bytes from one side to the other, each piece `late`; `passed` hears of each: of a question when it comes,
/// of an answer when it is delivered.
async fn carry(
    wire: Arc<Wire>,
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
    late: Duration,
    passed: impl Fn() + Send + 'static,
) {
    let (pieces, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let passed = Arc::new(passed);
    let delivered = passed.clone();
    let write = async move {
        let mut queue = VecDeque::new();
        while let Some(piece) = due.recv().await {
            queue.push_back(piece);
            while let Some((at, bytes)) = queue.pop_front() {
                tokio::time::sleep_until(at.into()).await;
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
                delivered();
            }
        }
        let _gone = to.shutdown().await;
    };
    let read = async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(n) = from.read(&mut buffer).await {
            wire.bytes.fetch_add(n, Ordering::SeqCst);
            if n == 0 || pieces.send((Instant::now() + late, buffer[..n].to_vec())).is_err() {
                return;
            }
            passed();
        }
    };
    tokio::join!(read, write);
}
