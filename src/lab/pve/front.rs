//! The front's manners at the wire: paths, errors, parameters.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, StatusCode};

use crate::lab::Shared;
use crate::lab::wire::{Answer, Class, Front, Service, answer, with_reason};

/// Proxmox's manner: HTTP/1.1, 5 s idle, 100 requests on a connection, 512 KiB (pve-http-server `AnyEvent.pm`).
pub(super) const SERVICE: Service = Service {
    front: Front::Proxmox,
    classify,
    handle: |shared, request| handle(shared, request).boxed(),
    error,
    http2: false,
    keep_alive: (100, Duration::from_secs(5)),
    body_limit: 512 * 1024,
};

fn classify(_shared: &Shared, _request: &Request<Bytes>) -> Class {
    Class::Read
}

async fn handle(_shared: std::sync::Arc<Shared>, request: Request<Bytes>) -> Answer {
    error(
        StatusCode::NOT_IMPLEMENTED,
        &format!("Method '{} {}' not implemented", request.method(), request.uri().path()),
    )
}

/// An error as the API layer gives it: the text in the reason phrase and in the body.
pub(super) fn error(status: StatusCode, text: &str) -> Answer {
    let body = serde_json::json!({ "data": null, "message": format!("{text}\n") });
    with_reason(answer(status, "application/json;charset=UTF-8", body.to_string()), text)
}
