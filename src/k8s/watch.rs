//! Watches: being told that something happened. What it was the caller looks up; a lost event costs a later look.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

use super::api::{Kubernetes, with_query};
use super::classify;
use super::error::KubeError;
use super::meta::Condition;
use super::resource::{NODE, POD, Resource};
use super::workload::Workload;
use crate::base::request::Request;

/// What happened: the type of the event (`ADDED`, `MODIFIED`, `DELETED`, `ERROR`) and the object with it.
#[derive(Debug, serde::Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    object: Value,
}

impl Event {
    fn is_ready(&self) -> bool {
        self.kind != "DELETED" && Condition::all_of(&self.object).iter().any(|c| c.kind == "Ready" && c.is_true())
    }

    fn is_gone(&self) -> bool {
        self.kind == "DELETED"
    }
}

impl Kubernetes {
    /// Ends when a node is told to be Ready, of whichever boot, or the server ends the watch.
    ///
    /// # Errors
    /// What keeps the API from telling.
    pub async fn stir_of_node(&self, name: &str) -> Result<(), KubeError> {
        let field = format!("metadata.name={name}");
        self.stir(&NODE, None, &[("fieldSelector", &field)], Event::is_ready).await
    }

    /// Ends when a pod has left a node, or the server ends the watch.
    ///
    /// # Errors
    /// What keeps the API from telling.
    pub async fn stir_of_pods_on(&self, node: &str) -> Result<(), KubeError> {
        let field = format!("spec.nodeName={node}");
        self.stir(&POD, None, &[("fieldSelector", &field)], Event::is_gone).await
    }

    /// Ends when a pod that a workload's selector chooses is Ready or gone, or the server ends the watch; never where
    /// it has no selector.
    ///
    /// # Errors
    /// What keeps the API from telling.
    pub async fn stir_of_pods_of(&self, workload: &Workload) -> Result<(), KubeError> {
        if workload.selector.is_empty() {
            return std::future::pending().await;
        }
        let query = [("labelSelector", workload.selector.as_str())];
        let worth = |event: &Event| event.is_ready() || event.is_gone();
        self.stir(&POD, Some(&workload.meta.namespace), &query, worth).await
    }

    async fn stir(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &[(&str, &str)],
        worth: impl Fn(&Event) -> bool,
    ) -> Result<(), KubeError> {
        // The version of the whole list stands in a page of one object as well.
        let page = [query, &[("limit", "1")]].concat();
        let uri = with_query(resource.list_path(namespace), &page);
        let list: Value =
            self.read(self.call("GET", resource.plural.to_string(), false), Method::GET, uri, None).await?;
        let since = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        // Nobody knows what is missed after the end of a watch, so that is worth a look as well.
        self.watch(resource, namespace, query, since, worth).await.map(|_| ())
    }

    /// Waits until something happens to what a list was read from, or the server ends the watch.
    /// True where something happened.
    pub(super) async fn stirred(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &[(&str, &str)],
        since: &str,
    ) -> Result<bool, KubeError> {
        self.watch(resource, namespace, query, since, |_| true).await
    }

    /// Waits for an event that is `worth` it; false where the server ends the watch.
    async fn watch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &[(&str, &str)],
        since: &str,
        worth: impl Fn(&Event) -> bool,
    ) -> Result<bool, KubeError> {
        let mut pairs = query.to_vec();
        pairs.extend([("watch", "true"), ("resourceVersion", since), ("timeoutSeconds", "60")]);
        let uri = with_query(resource.list_path(namespace), &pairs);
        let call = self.call("WATCH", resource.plural.to_string(), false);
        let request = http::Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Body::empty())
            .map_err(|e| KubeError::BadAnswer { call: call.clone(), text: e.to_string() })?;
        let asked = Request::begin(self.clock, self.name(), format_args!("WATCH {}", resource.list_path(namespace)));
        let answer = self.client.send(request).await.map_err(|e| classify::transport(call.clone(), e))?;
        asked.ended(answer.status().as_u16());
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            let bytes = answer.into_body().collect().await.map_err(|e| classify::transport(call.clone(), e))?;
            return Err(classify::refused(call, status, None, &bytes.to_bytes()));
        }
        let (mut body, mut lines) = (answer.into_body(), Lines::default());
        loop {
            match body.frame().await {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    if lines.of(&data).iter().any(|line| is_worth(line, &worth)) {
                        return Ok(true);
                    }
                }
                Some(Err(error)) => return Err(classify::transport(call, error)),
                None => return Ok(false),
            }
        }
    }
}

/// One event a line. What is no event, or tells that the watch is over (`410 Gone`), is worth a look.
fn is_worth(line: &[u8], worth: impl Fn(&Event) -> bool) -> bool {
    match serde_json::from_slice::<Event>(line) {
        Ok(event) => event.kind == "ERROR" || (event.kind != "BOOKMARK" && worth(&event)),
        Err(_) => true,
    }
}

/// Lines out of pieces.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The lines that are whole with this piece.
    fn of(&mut self, piece: &Bytes) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(piece);
        let mut whole = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let rest = self.0.split_off(end + 1);
            whole.push(std::mem::replace(&mut self.0, rest));
        }
        whole.retain(|line| !line.trim_ascii().is_empty());
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_any_pieces_and_only_those_that_are_worth_it_wake() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"status":{"conditions":[{"type":"Ready","status":"False"}]}}}"#,
            "\n\n",
            r#"{"type":"BOOKMARK","object":{"status":{"conditions":[{"type":"Ready","status":"True"}]}}}"#,
            "\n",
            r#"{"type":"MODIFIED","object":{"status":{"conditions":[{"type":"Ready","status":"True"}]}}}"#,
            "\n",
            r#"{"type":"DELETED","object":{"status":{"conditions":[{"type":"Ready","status":"True"}]}}}"#,
            "\n",
            r#"{"type":"ERROR","object":{"code":410}}"#,
            "\n",
        );
        for size in [1, 7, 64, text.len()] {
            let mut lines = Lines::default();
            let pieces = text.as_bytes().chunks(size).map(Bytes::copy_from_slice);
            let all: Vec<Vec<u8>> = pieces.flat_map(|piece| lines.of(&piece)).collect();
            let by = |worth: fn(&Event) -> bool| all.iter().map(|l| is_worth(l, worth)).collect::<Vec<_>>();
            assert_eq!(by(Event::is_ready), [false, false, true, false, true], "{size}");
            assert_eq!(by(Event::is_gone), [false, false, false, true, true], "{size}");
        }
        assert!(is_worth(b"nonsense\n", Event::is_gone));
    }
}
