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
    /// The waits of each connection since the last [`Wire::clear`]; what an older one still does is nobody's.
    waits: Mutex<Vec<Waits>>,
}

/// From the first byte of a question, or the connection's beginning, to the last byte of its answer; the last one may
/// still be without an answer, and begins and ends at once then.
type Waits = Arc<Mutex<Vec<(Instant, Instant)>>>;

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

    /// For how long at least one answer was waited for, between these two.
    pub(crate) fn waited(&self, begin: Instant, end: Instant) -> Duration {
        let connections = self.waits.lock().unwrap();
        let mut waits: Vec<_> = connections.iter().flat_map(|waits| waits.lock().unwrap().clone()).collect();
        waits.sort();
        let (mut sum, mut until) = (Duration::ZERO, begin);
        for (from, to) in waits {
            let to = to.min(end);
            sum += to.saturating_duration_since(from.max(until));
            until = until.max(to);
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
    let waits: Waits = Arc::new(Mutex::new(vec![(begun, begun)]));
    wire.waits.lock().unwrap().push(waits.clone());
    let answered = waits.clone();
    let up = carry(wire.clone(), from_client, to_server, round / 2, move || {
        let mut waits = waits.lock().unwrap();
        // What follows a question that has no answer yet belongs to it.
        if waits.last().is_none_or(|(from, to)| to > from) {
            let now = Instant::now();
            waits.push((now, now));
        }
    });
    let down = carry(wire.clone(), from_server, to_client, round / 2, move || {
        if let Some((_, to)) = answered.lock().unwrap().last_mut() {
            *to = Instant::now();
        }
    });
    tokio::join!(up, down);
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
