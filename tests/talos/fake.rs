//! A server of tonic's that writes down what it is sent and says what a test wants it to: below the generated code, so
//! that paths, numbers and bytes are held against those of Talos and not against our own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming, TlsConnectInfo};
use tonic::transport::{Server, ServerTlsConfig};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `/machine.MachineService/Version`.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The messages in it.
    pub(crate) messages: Vec<Vec<u8>>,
    /// The client certificate in DER form.
    pub(crate) client: Option<Vec<u8>>,
}

/// What a call is answered with.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// Messages and OK.
    Ok(Vec<Vec<u8>>),
    /// Messages, and then a status other than OK.
    Status(Vec<Vec<u8>>, u32, &'static str),
    /// Messages, and then the stream is reset.
    Breaks(Vec<Vec<u8>>),
    /// Messages, and then the answer ends without any status.
    Ends(Vec<Vec<u8>>),
    /// Messages, the last of them half, and then the answer ends without any status.
    Half(Vec<Vec<u8>>),
    /// Messages, and then nothing for ever.
    Hangs(Vec<Vec<u8>>),
    /// Messages that are packed in a way that nobody asked for, and OK.
    Packed(Vec<Vec<u8>>),
    /// Messages and OK, before the request is there as a whole.
    Early(Vec<Vec<u8>>),
}

/// What is said to the calls of a path, one after the other; the last one for ever.
type Script = Arc<Mutex<BTreeMap<String, Vec<Says>>>>;

#[derive(Clone, Default)]
pub(crate) struct Fake {
    script: Script,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Serves on a port of its own; the port.
    pub(crate) async fn serve(&self, tls: ServerTlsConfig) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        self.serve_from(listener, tls);
        port
    }

    /// Serves what a listener takes.
    pub(crate) fn serve_from(&self, listener: TcpListener, tls: ServerTlsConfig) {
        let mut router = Server::builder().tls_config(tls).unwrap();
        let router = router.add_service(Machine(self.clone())).add_service(State(self.clone()));
        let router = router.add_service(Images(self.clone())).add_service(Lifecycle(self.clone()));
        tokio::spawn(async move { router.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() });
    }

    pub(crate) fn on(&self, path: &str, says: Says) {
        self.script.lock().unwrap().entry(path.to_owned()).or_default().push(says);
    }

    /// How often a path was asked so far.
    pub(crate) fn times(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path == path).count()
    }

    /// Says this from now on, in place of what was to be said.
    pub(crate) fn instead(&self, path: &str, says: Says) {
        self.script.lock().unwrap().insert(path.to_owned(), vec![says]);
    }

    /// What was asked so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn says(&self, path: &str) -> Says {
        let mut script = self.script.lock().unwrap();
        match script.get_mut(path) {
            Some(says) if says.len() > 1 => says.remove(0),
            Some(says) => says[0].clone(),
            None => Says::Status(Vec::new(), 12, "unknown method"),
        }
    }

    fn answer(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
        let fake = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let tls = parts.extensions.get::<TlsConnectInfo<TcpConnectInfo>>().unwrap();
            let client = tls.peer_certs().map(|certificates| certificates[0].to_vec());
            let path = parts.uri.path().to_owned();
            let says = fake.says(&path);
            let messages = match says {
                Says::Early(_) => Vec::new(),
                _ => match body.collect().await {
                    Ok(body) => messages(&body.to_bytes()),
                    Err(_) => return Ok(Response::new(Body::empty())),
                },
            };
            fake.asked.lock().unwrap().push(Asked { path, headers: parts.headers, messages, client });
            Ok(response(says))
        })
    }
}

fn messages(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !body.is_empty() {
        assert_eq!(body[0], 0, "compressed");
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        out.push(body[5..5 + length].to_vec());
        body = &body[5 + length..];
    }
    out
}

fn response(says: Says) -> Response<Body> {
    let status = |code: u32, text: &str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        trailers.insert("grpc-message", text.replace('"', "%22").parse().unwrap());
        vec![Ok(Frame::trailers(trailers))]
    };
    let broken = || vec![Err(std::io::Error::other("broken"))];
    let (half, packed) = (matches!(says, Says::Half(_)), matches!(says, Says::Packed(_)));
    let (messages, end, hangs) = match says {
        Says::Ok(messages) | Says::Early(messages) | Says::Packed(messages) => (messages, status(0, ""), false),
        Says::Status(messages, code, text) => (messages, status(code, text), false),
        Says::Breaks(messages) => (messages, broken(), false),
        Says::Ends(messages) | Says::Half(messages) => (messages, Vec::new(), false),
        Says::Hangs(messages) => (messages, Vec::new(), true),
    };
    let last = messages.len().saturating_sub(1);
    let frame = |(number, message): (usize, Vec<u8>)| {
        let mut bytes = BytesMut::new();
        bytes.put_u8(0);
        bytes.put_u32(message.len() as u32);
        bytes.extend_from_slice(&message);
        if half && number == last {
            bytes.truncate(bytes.len() / 2);
        }
        Ok(Frame::data(bytes.freeze()))
    };
    let frames: Vec<Result<Frame<Bytes>, std::io::Error>> =
        messages.into_iter().enumerate().map(frame).chain(end).collect();
    let stream = futures::stream::iter(frames);
    let body = match hangs {
        true => Body::new(StreamBody::new(stream.chain(futures::stream::pending()))),
        false => Body::new(StreamBody::new(stream)),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    if packed {
        response.headers_mut().insert("grpc-encoding", "br".parse().unwrap());
    }
    response
}

/// One of the services; their names are the first parts of the paths.
macro_rules! service {
    ($kind:ident, $name:literal) => {
        #[derive(Clone)]
        struct $kind(Fake);

        impl NamedService for $kind {
            const NAME: &'static str = $name;
        }

        impl tower::Service<Request<Body>> for $kind {
            type Response = Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }
            fn call(&mut self, request: Request<Body>) -> Self::Future {
                self.0.answer(request)
            }
        }
    };
}

service!(Machine, "machine.MachineService");
service!(State, "cosi.resource.State");
service!(Images, "machine.ImageService");
service!(Lifecycle, "machine.LifecycleService");

/// A number under a tag, as protobuf writes it.
pub(crate) fn num(tag: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(tag << 3)), varint(value)].concat()
}

/// Bytes under a tag.
pub(crate) fn raw(tag: u32, bytes: &[u8]) -> Vec<u8> {
    [varint(u64::from(tag << 3 | 2)), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A text under a tag.
pub(crate) fn text(tag: u32, value: &str) -> Vec<u8> {
    raw(tag, value.as_bytes())
}

/// A message under a tag.
pub(crate) fn msg(tag: u32, fields: &[Vec<u8>]) -> Vec<u8> {
    raw(tag, &fields.concat())
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
