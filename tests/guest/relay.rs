//! What stands between us and a server: it counts connections, and lets those that there are die in several ways.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the next thing that a client says on a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// It is passed on.
    Open,
    /// Nobody hears it, as where a machine was powered off.
    Mute,
    /// It is answered by a reset, as where a machine was booted anew.
    Reset,
    /// It is answered by the end of the connection.
    Close,
}

#[derive(Clone, Copy)]
struct Turn {
    way: Way,
    /// For the connections before this one; later ones are open.
    until: usize,
}

pub(crate) struct Relay {
    pub(crate) port: u16,
    turn: watch::Sender<Turn>,
    begun: watch::Receiver<usize>,
    ended: watch::Receiver<usize>,
}

impl Relay {
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (turn, turned) = watch::channel(Turn { way: Way::Open, until: 0 });
        let (begin, begun) = watch::channel(0);
        let (end, ended) = watch::channel(0);
        let end = Arc::new(end);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = *begin.borrow();
                begin.send_modify(|begun| *begun += 1);
                let (turned, end) = (turned.clone(), end.clone());
                tokio::spawn(async move {
                    relay(near, to, || {
                        let Turn { way, until } = *turned.borrow();
                        if number < until { way } else { Way::Open }
                    })
                    .await;
                    end.send_modify(|ended| *ended += 1);
                });
            }
        });
        Self { port, turn, begun, ended }
    }

    /// The way that the connections go from now on which there are by now.
    pub(crate) fn turn(&self, way: Way) {
        self.turn.send_replace(Turn { way, until: self.connections() });
    }

    /// As [`Relay::turn`], for all that come as well.
    pub(crate) fn turn_all(&self, way: Way) {
        self.turn.send_replace(Turn { way, until: usize::MAX });
    }

    pub(crate) fn connections(&self) -> usize {
        *self.begun.borrow()
    }

    /// Waits until there were so many of them.
    pub(crate) async fn begun(&self, count: usize) {
        at_least(&self.begun, count).await;
    }

    /// Waits until so many of them have ended.
    pub(crate) async fn ended(&self, count: usize) {
        at_least(&self.ended, count).await;
    }
}

async fn at_least(number: &watch::Receiver<usize>, count: usize) {
    let mut number = number.clone();
    let wait = number.wait_for(|number| *number >= count);
    pvemig::base::wait::within(Duration::from_secs(60), wait).await.unwrap().unwrap();
}

async fn relay(mut near: TcpStream, to: u16, way: impl Fn() -> Way) {
    let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
    let (mut up, mut down) = ([0; 8192], [0; 8192]);
    loop {
        tokio::select! {
            read = near.read(&mut up) => match (read, way()) {
                (Ok(0) | Err(_), _) => return,
                (Ok(n), Way::Open) => if far.write_all(&up[..n]).await.is_err() { return },
                (Ok(_), Way::Mute) => while near.read(&mut up).await.is_ok_and(|n| n > 0) {},
                (Ok(_), Way::Close) => return,
                (Ok(_), Way::Reset) => return near.set_zero_linger().unwrap(),
            },
            read = far.read(&mut down) => match read {
                Ok(0) | Err(_) => return,
                Ok(n) => if near.write_all(&down[..n]).await.is_err() { return },
            },
        }
    }
}
