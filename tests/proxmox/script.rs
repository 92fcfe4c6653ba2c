//! A server that plays a list of replies, one a request, byte for byte, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::permit::{CallId, Handle, Ledger, Note, Permit, Refused, Thing};
use pvemig::base::secret::Secret;
use pvemig::proxmox::{Auth, Endpoint, Limits, Proxmox, VmRef};
use serde_json::Value;

/// One reply.
pub(crate) enum Reply {
    /// Status, reason phrase, body; the connection is closed, as the real server does on errors.
    Say(u16, &'static str, String),
    /// 200 with a body; the connection stays open for the next request.
    Keep(String),
    /// As `Keep`, but nobody ever reads from the connection again; the next request must come over another one.
    Shelve(String),
    /// Reads the request and closes without a word.
    Drop,
    /// Promises more bytes than it sends.
    Half(String),
    /// Reads the request and says nothing until the end.
    Hang,
}

pub(crate) fn ok(body: &str) -> Reply {
    Reply::Say(200, "OK", body.to_owned())
}

/// A fixture's response, as text.
pub(crate) fn fixture(name: &str) -> String {
    let path = format!("{}/fixtures/proxmox/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).expect(&path);
    assert!(file["origin"].as_str().is_some_and(|o| o.len() > 20), "{path} says where it is from");
    file["response"].to_string()
}

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /api2/json/version`, the query included.
    pub(crate) line: String,
    /// Lower-case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

/// The running script. Everything that happens, in order, is in `events`.
pub(crate) struct Script {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    pub(crate) events: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

impl Script {
    pub(crate) fn play(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, events) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (stop, stopped) = channel::<()>();
        let (asked2, events2) = (asked.clone(), events.clone());
        let thread = std::thread::spawn(move || {
            let mut hung = Vec::new();
            let mut open: Option<BufReader<TcpStream>> = None;
            for reply in replies {
                // A connection that was kept is read from first; a client that opened another one is served there.
                let (mut stream, request) = loop {
                    let mut stream = match open.take() {
                        Some(stream) => stream,
                        None => BufReader::new(listener.accept().unwrap().0),
                    };
                    stream.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    if let Some(request) = request(&mut stream) {
                        break (stream, request);
                    }
                    let over = stopped.try_recv() == Err(TryRecvError::Disconnected);
                    assert!(!over, "the script was not played to its end");
                };
                events2.lock().unwrap().push(request.line.clone());
                asked2.lock().unwrap().push(request);
                let head = |status: u16, reason: &str, length: usize, more: &str| {
                    format!(
                        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
                    )
                };
                let text = match &reply {
                    Reply::Say(status, reason, body) => {
                        head(*status, reason, body.len(), "Connection: close\r\n") + body
                    }
                    Reply::Keep(body) | Reply::Shelve(body) => head(200, "OK", body.len(), "") + body,
                    Reply::Half(body) => head(200, "OK", body.len() + 100, "") + body,
                    Reply::Drop | Reply::Hang => String::new(),
                };
                stream.get_mut().write_all(text.as_bytes()).unwrap();
                match reply {
                    Reply::Keep(_) => open = Some(stream),
                    Reply::Hang | Reply::Shelve(_) => hung.push(stream),
                    _ => {}
                }
            }
            if !hung.is_empty() {
                let _over = stopped.recv();
            }
        });
        Self { url, asked, events, thread, stop }
    }

    /// Everything that was asked; the whole script must have been played.
    pub(crate) fn end(self) -> Vec<Asked> {
        drop(self.stop);
        // Wakes a script that still waits for a request.
        let _woken = TcpStream::connect(self.url.trim_start_matches("http://"));
        self.thread.join().unwrap();
        self.asked.lock().unwrap().clone()
    }
}

fn request(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut first = String::new();
    if stream.read_line(&mut first).unwrap_or(0) == 0 {
        return None;
    }
    let line = first.trim_end().strip_suffix(" HTTP/1.1").expect("HTTP/1.1").to_owned();
    let mut headers = Vec::new();
    loop {
        let mut text = String::new();
        stream.read_line(&mut text).unwrap();
        let Some((name, value)) = text.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let asked = Asked { line, headers, body: String::new() };
    assert_eq!(asked.header("transfer-encoding"), None, "the server refuses chunked bodies");
    let length = asked.header("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some(Asked { body: String::from_utf8(body).unwrap(), ..asked })
}

/// A client with a token and short deadlines.
pub(crate) fn token(url: &str) -> Proxmox {
    token_at(&[url], Duration::from_secs(20))
}

pub(crate) fn token_at(urls: &[&str], deadline: Duration) -> Proxmox {
    let auth = Auth::Token { id: "root@pam!pvemig".into(), secret: Secret::new("s3cr3t-uuid") };
    let limits = Limits { connect: Duration::from_secs(5), read: deadline, change: deadline };
    Proxmox::with_limits(endpoint(urls, auth), limits).unwrap()
}

pub(crate) fn ticket(url: &str) -> Proxmox {
    let auth = Auth::Ticket { user: "root@pam".into(), password: Secret::new("p&ss wörd") };
    Proxmox::new(endpoint(&[url], auth)).unwrap()
}

pub(crate) fn endpoint(urls: &[&str], auth: Auth) -> Endpoint {
    let urls = urls.iter().map(ToString::to_string).collect();
    Endpoint { cluster: "home".into(), urls, trust: None, auth, clock: Clock::fast(1000) }
}

pub(crate) fn vm() -> VmRef {
    VmRef { node: "still-fawn".into(), vmid: 108 }
}

/// A ledger that writes into the script's events, so that the order of note, request and handle shows.
pub(crate) struct Journal {
    pub(crate) events: Arc<Mutex<Vec<String>>>,
    pub(crate) notes: Mutex<Vec<Note>>,
    pub(crate) refuse: Option<Refused>,
}

impl Journal {
    pub(crate) fn of(script: &Script) -> (Permit, Arc<Self>) {
        Self::with(script.events.clone(), None)
    }

    pub(crate) fn with(events: Arc<Mutex<Vec<String>>>, refuse: Option<Refused>) -> (Permit, Arc<Self>) {
        let journal = Arc::new(Self { events, notes: Mutex::default(), refuse });
        (Permit::mint(journal.clone()), journal)
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }
}

impl Ledger for Journal {
    fn note(&self, note: &Note) -> Result<CallId, Refused> {
        if let Some(refuse) = &self.refuse {
            return Err(refuse.clone());
        }
        self.events.lock().unwrap().push(format!("note {}", note.text));
        let mut notes = self.notes.lock().unwrap();
        notes.push(note.clone());
        Ok(CallId(notes.len() as u64))
    }
    fn got(&self, call: CallId, handle: &Handle) -> Result<(), Refused> {
        self.events.lock().unwrap().push(format!("got {} {} {}", call.0, handle.kind, handle.value));
        Ok(())
    }
    fn progress(&self, _: &str) {}
    fn file(&self, _: &str, _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }
    fn may_destroy(&self, _: &Thing) -> Result<(), Refused> {
        Ok(())
    }
}
