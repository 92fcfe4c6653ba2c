//! The ssh connections of an estate: one login for each way in, and a channel of its own for each command.
//!
//! A connection that is kept proves nothing: the machine behind it may have gone off without a word. So a command goes
//! out only on a channel that the server has just opened; where it opens none, there is a fresh login. Up to then
//! nothing was sent that could have run.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::base::clock::Clock;
use crate::base::wait::within;

use super::command::Output;
use super::error::Error;
use super::ssh::{self, Connection, Login, SshTarget};

/// For all farewells together: nobody waits for them.
const FAREWELL: Duration = Duration::from_millis(100);

/// The connections that are kept. Shared by all guests of an estate.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<Places>>);

type Places = Vec<(SshTarget, Arc<Place>)>;

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions(…)")
    }
}

/// Where the connection to one target is kept.
#[derive(Default)]
struct Place {
    kept: Mutex<Option<Arc<Connection>>>,
    /// Held during a login: who comes meanwhile waits for its end. When the last one failed, and how.
    login: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

impl Place {
    /// The kept connection, unless it has ended or is `tried`.
    fn kept(&self, tried: Option<&Arc<Connection>>) -> Option<Arc<Connection>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let new = |kept: &&Arc<Connection>| kept.is_open() && tried.is_none_or(|tried| !Arc::ptr_eq(kept, tried));
        kept.as_ref().filter(new).cloned()
    }

    fn keep(&self, connection: Option<Arc<Connection>>) -> Option<Arc<Connection>> {
        std::mem::replace(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner), connection)
    }

    /// No further command goes over this connection; it ends with the last one on it.
    fn forget(&self, connection: &Arc<Connection>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|kept| Arc::ptr_eq(kept, connection));
    }
}

impl Sessions {
    fn place(&self, target: &SshTarget) -> Arc<Place> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, place)) = places.iter().find(|(known, _)| known.is_same(target)) {
            return place.clone();
        }
        let place = Arc::<Place>::default();
        places.push((target.clone(), place.clone()));
        place
    }

    /// A channel for one command: on the kept connection, else by a login, whose connection is kept from then on.
    ///
    /// # Errors
    /// Those of the login. What became of a kept connection is none.
    pub(super) async fn open(&self, target: &SshTarget, clock: Clock) -> Result<Session, Error> {
        let (place, begun) = (self.place(target), clock.instant());
        let mut tried: Option<Arc<Connection>> = None;
        loop {
            if let Some(kept) = place.kept(tried.as_ref()) {
                match kept.login(target, clock).await {
                    Ok(login) => return Ok(Session { place, login, over: false }),
                    // It answers, and says no: servers limit the channels of a connection (sshd_config: MaxSessions).
                    Err(Error::Protocol { .. }) => {}
                    Err(_) => place.forget(&kept),
                }
                tried = Some(kept);
                continue;
            }
            let mut failed = place.login.lock().await;
            if place.kept(tried.as_ref()).is_some() {
                continue;
            }
            // Who has waited for a login does not wait for the same silence once more.
            if let Some(error) = failed.as_ref().filter(|(at, _)| *at >= begun).and_then(|(_, error)| same(error)) {
                return Err(error);
            }
            let login = ssh::login(target, clock).await;
            *failed = login.as_ref().err().and_then(same).map(|error| (clock.instant(), error));
            let login = login?;
            place.keep(Some(login.connection().clone()));
            drop(failed);
            return Ok(Session { place, login, over: false });
        }
    }

    /// Takes leave of all servers, so that their logs do not speak of lost connections. Whether it arrives is no
    /// matter; it takes 100 ms at most.
    pub async fn farewell(&self) {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kept = places.iter().filter_map(|(_, place)| place.keep(None));
        let _arrived = within(FAREWELL, join_all(kept.filter_map(Arc::into_inner).map(Connection::farewell))).await;
    }
}

/// The same failure for another one who waited for it, where it took its time.
fn same(error: &Error) -> Option<Error> {
    Some(match error {
        Error::TimedOut { at, phase, limit } => Error::TimedOut { at: at.clone(), phase: *phase, limit: *limit },
        Error::Unreachable { at, why } => Error::Unreachable { at: at.clone(), why: why.clone() },
        Error::NameNotFound { at, name, why } => {
            Error::NameNotFound { at: at.clone(), name: name.clone(), why: why.clone() }
        }
        _ => return None,
    })
}

/// A channel for one command. Where that does not come to a clean end, its connection is not used for another one.
pub(super) struct Session {
    place: Arc<Place>,
    login: Login,
    over: bool,
}

impl Session {
    /// Runs one command and waits for its end.
    pub(super) async fn exec(mut self, argv: &[String], limit: Duration) -> Result<Output, Error> {
        let answer = self.login.exec(argv, limit).await;
        self.over = answer.is_ok();
        answer
    }

    /// Gives the channel back unused.
    pub(super) async fn leave(mut self) {
        self.over = self.login.leave().await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.over {
            self.place.forget(self.login.connection());
        }
    }
}
