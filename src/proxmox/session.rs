//! Credentials as headers: a token's, or a ticket with its CSRF token.

use std::future::Future;
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::base::clock::Clock;
use crate::base::fault::Effect;
use crate::base::secret::Secret;

use super::api::Auth;
use super::error::Error;
use super::wire::{Answer, Body, Call, seg};

/// A ticket lives two hours (PVE::Ticket); it is renewed well before that.
const RENEW: Duration = Duration::from_secs(90 * 60);

/// The one set of credentials of a cluster, and the login that it has opened.
pub(super) struct Sessions {
    auth: Auth,
    token: HeaderMap,
    login: Mutex<Option<Login>>,
}

struct Login {
    cookie: HeaderValue,
    csrf: HeaderValue,
    since: Instant,
    /// Held, so that they are known for what they are.
    _secrets: [Secret; 2],
}

impl Sessions {
    pub(super) fn new(auth: Auth) -> Result<Self, String> {
        let mut token = HeaderMap::new();
        match &auth {
            Auth::Token { id, secret } => {
                if !id.split_once('!').is_some_and(|(user, name)| user.contains('@') && !name.is_empty()) {
                    return Err(format!("token id `{id}` is not like `root@pam!pvemig`"));
                }
                let value = format!("PVEAPIToken={id}={}", secret.expose());
                token.insert(AUTHORIZATION, sensitive(&value).ok_or("the token's secret has odd characters in it")?);
            }
            Auth::Ticket { user, .. } if !user.contains('@') => {
                return Err(format!("user `{user}` has no realm, like `root@pam`"));
            }
            Auth::Ticket { .. } => {}
        }
        Ok(Self { auth, token, login: Mutex::new(None) })
    }

    pub(super) fn caller(&self) -> &str {
        match &self.auth {
            Auth::Token { id, .. } => id,
            Auth::Ticket { user, .. } => user,
        }
    }

    /// Drops the login, so that the next call makes a new one. False for a token, which has none to renew.
    pub(super) async fn forget(&self) -> bool {
        self.login.lock().await.take();
        matches!(self.auth, Auth::Ticket { .. })
    }

    /// The headers for a request; logs in through `post` where no fresh login is at hand. Logging in changes nothing.
    pub(super) async fn headers<F: Future<Output = Result<Answer, Error>>>(
        &self,
        method: &Method,
        clock: Clock,
        post: impl FnOnce(Call) -> F,
    ) -> Result<HeaderMap, Error> {
        let Auth::Ticket { user, password } = &self.auth else { return Ok(self.token.clone()) };
        let mut login = self.login.lock().await;
        let now = clock.instant();
        let login = match login.take() {
            Some(open) if is_fresh(open.since, now) => login.insert(open),
            _ => login.insert(open(user, password, now, post).await?),
        };
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, login.cookie.clone());
        if method != Method::GET {
            headers.insert(HeaderName::from_static("csrfpreventiontoken"), login.csrf.clone());
        }
        Ok(headers)
    }
}

fn is_fresh(since: Instant, now: Instant) -> bool {
    now.duration_since(since) < RENEW
}

async fn open<F: Future<Output = Result<Answer, Error>>>(
    user: &str,
    password: &Secret,
    since: Instant,
    post: impl FnOnce(Call) -> F,
) -> Result<Login, Error> {
    let mut call = Call::new(Method::POST, "/access/ticket", "login");
    call.body = Body::Form(vec![("username", user.to_owned()), ("password", password.expose().to_owned())]);
    let data = post(call).await?.data;
    let field = |name: &str| data.get(name).and_then(Value::as_str);
    let at = || "login".to_owned();
    if data
        .get("NeedTFA")
        .is_some_and(|v| v.as_u64() == Some(1) || v.as_str() == Some("1") || v.as_bool() == Some(true))
    {
        return Err(Error::SecondFactor { at: at(), user: user.to_owned() });
    }
    let bad = |what: &str| Error::BadAnswer { at: at(), why: format!("no usable {what} in it"), effect: Effect::None };
    let secret = |name: &str| Secret::new(field(name).unwrap_or_default());
    let cookie = field("ticket").map(|ticket| format!("PVEAuthCookie={}", seg(ticket)));
    Ok(Login {
        cookie: cookie.as_deref().and_then(sensitive).ok_or_else(|| bad("ticket"))?,
        csrf: field("CSRFPreventionToken").and_then(sensitive).ok_or_else(|| bad("CSRF token"))?,
        since,
        _secrets: [secret("ticket"), secret("CSRFPreventionToken")],
    })
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_renewed_well_before_its_two_hours() {
        let since = Clock::real().instant();
        assert!(is_fresh(since, since) && is_fresh(since, since + Duration::from_secs(89 * 60)));
        assert!(!is_fresh(since, since + Duration::from_secs(90 * 60)));
    }
}
