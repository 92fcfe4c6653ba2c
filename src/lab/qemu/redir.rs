//! A USB device over the network, as QEMU's `usb-redir` takes it (spice `usbredirproto.h`, protocol 0.7): enough of a
//! device for a kernel to enumerate it. All numbers are little endian.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::lab::usb::HostUsb;

const HELLO: u32 = 0;
const CONNECT: u32 = 1;
const INTERFACES: u32 = 4;
const ENDPOINTS: u32 = 5;
const SET_CONFIGURATION: u32 = 6;
const GET_CONFIGURATION: u32 = 7;
const CONFIGURATION: u32 = 8;
const SET_ALTERNATE: u32 = 9;
const GET_ALTERNATE: u32 = 10;
const ALTERNATE: u32 = 11;
const CONTROL: u32 = 100;

/// Device version in CONNECT, packet sizes in ENDPOINTS, 64-bit ids, 32-bit bulk lengths: what xHCI asks for.
const CAPABILITIES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6;
const STALL: u8 = 4;
/// The largest packet: a control transfer with its data.
const LARGEST: u32 = 70_000;

/// A device that a QEMU process gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    vendor: u16,
    product: u16,
    name: String,
    /// Mbit/s behind the controller that it is on.
    speed: u32,
}

impl Device {
    /// A host's device on a controller that knows USB 3 or not; behind one that does not it falls back to high speed.
    pub(super) fn new(usb: &HostUsb, xhci: bool) -> Self {
        let (vendor, product) = usb.id.split_once(':').unwrap_or_default();
        let number = |hex: &str| u16::from_str_radix(hex, 16).unwrap_or_default();
        let speed = if xhci { usb.speed } else { usb.speed.min(480) };
        Self { vendor: number(vendor), product: number(product), name: usb.product.clone(), speed }
    }

    fn is_super(&self) -> bool {
        self.speed >= 5000
    }

    /// Answers until QEMU hangs up.
    pub(super) async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let mut wire = Wire { stream, wide: false };
        let mut hello = b"pvemig lab".to_vec();
        hello.resize(64, 0);
        hello.extend(CAPABILITIES.to_le_bytes());
        wire.send(HELLO, 0, &hello).await?;
        let (kind, _, theirs) = wire.receive().await?;
        let bits = theirs.get(64..68).and_then(|bits| bits.try_into().ok()).map_or(0, u32::from_le_bytes);
        if kind != HELLO || bits & CAPABILITIES != CAPABILITIES {
            return Err(io::Error::other("this QEMU lacks what a device behind xHCI needs"));
        }
        wire.wide = true;
        wire.send(ENDPOINTS, 0, &self.endpoints()).await?;
        wire.send(INTERFACES, 0, &interfaces()).await?;
        wire.send(CONNECT, 0, &self.connect()).await?;
        let (mut configuration, mut alternate) = (1, 0);
        loop {
            let (kind, id, body) = wire.receive().await?;
            match (kind, body.as_slice()) {
                (SET_CONFIGURATION, [wanted, ..]) => {
                    configuration = *wanted;
                    wire.send(CONFIGURATION, id, &[0, configuration]).await?;
                }
                (GET_CONFIGURATION, _) => wire.send(CONFIGURATION, id, &[0, configuration]).await?,
                (SET_ALTERNATE, [interface, wanted, ..]) => {
                    alternate = *wanted;
                    wire.send(ALTERNATE, id, &[0, *interface, alternate]).await?;
                }
                (GET_ALTERNATE, [interface, ..]) => wire.send(ALTERNATE, id, &[0, *interface, alternate]).await?,
                (CONTROL, body) => {
                    let Some((head, data)) = body.split_first_chunk::<10>() else { continue };
                    wire.send(CONTROL, id, &self.control(*head, data)).await?;
                }
                // A reset needs no answer; there is no endpoint that anything else could be for.
                _ => {}
            }
        }
    }

    /// `endpoint, request, type, status, value, index, length` and what follows.
    fn control(&self, mut head: [u8; 10], data: &[u8]) -> Vec<u8> {
        let [_, request, kind, _, value_low, value_high, _, _, length_low, length_high] = head;
        let wanted = usize::from(u16::from_le_bytes([length_low, length_high]));
        let answer = match (kind & 0x80 != 0, request) {
            // GET_STATUS, GET_DESCRIPTOR; what is told to the device is taken as it is.
            (true, 0) => Some(vec![0, 0]),
            (true, 6) => self.descriptor(value_high, value_low),
            (true, _) => None,
            (false, _) => Some(Vec::new()),
        };
        let mut body = answer.clone().unwrap_or_default();
        body.truncate(wanted);
        let length = if kind & 0x80 == 0 { data.len() } else { body.len() };
        head[3] = if answer.is_some() { 0 } else { STALL };
        let [low, high] = u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
        (head[8], head[9]) = (low, high);
        [&head, body.as_slice()].concat()
    }

    fn descriptor(&self, kind: u8, index: u8) -> Option<Vec<u8>> {
        let [vendor, product] = [self.vendor.to_le_bytes(), self.product.to_le_bytes()];
        let named = u8::from(!self.name.is_empty()) * 2;
        Some(match (kind, index) {
            (1, 0) => {
                // USB 3 counts the packet size in powers of two.
                let (usb, packet) = if self.is_super() { (3, 9) } else { (2, 64) };
                [&[18, 1, 0, usb, 0, 0, 0, packet], &vendor[..], &product, &[0, 1, 0, named, 0, 1]].concat()
            }
            // One configuration, one interface of the vendor's own class, no endpoint.
            (2, 0) => vec![9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 0xff, 0, 0, 0],
            (3, 0) => vec![4, 3, 9, 4],
            (3, 2) if named != 0 => {
                let text: Vec<u8> = self.name.encode_utf16().take(100).flat_map(u16::to_le_bytes).collect();
                [&[u8::try_from(text.len() + 2).ok()?, 3], text.as_slice()].concat()
            }
            // What it can beyond USB 2: link power management (no), full, high and super speed.
            (15, 0) if self.is_super() => {
                vec![5, 15, 22, 0, 2, 7, 16, 2, 0, 0, 0, 0, 10, 16, 3, 0, 0x0e, 0, 1, 10, 0xff, 7]
            }
            _ => return None,
        })
    }

    fn connect(&self) -> Vec<u8> {
        let speed = match self.speed {
            5000.. => 3,
            480.. => 2,
            12.. => 1,
            _ => 0,
        };
        let [vendor, product] = [self.vendor.to_le_bytes(), self.product.to_le_bytes()];
        [&[speed, 0, 0, 0], &vendor[..], &product, &[0, 1]].concat()
    }

    /// Types, intervals, interfaces and packet sizes of 32 endpoints: there is the control endpoint alone, both ways.
    fn endpoints(&self) -> Vec<u8> {
        let mut body = vec![255; 32];
        (body[0], body[16]) = (0, 0);
        body.resize(96, 0);
        let packet: u16 = if self.is_super() { 512 } else { 64 };
        body.extend((0..32).flat_map(|at| if at % 16 == 0 { packet } else { 0 }.to_le_bytes()));
        body
    }
}

/// A count and four bytes about each of 32 interfaces.
fn interfaces() -> Vec<u8> {
    let mut body = vec![0; 4 + 4 * 32];
    (body[0], body[4 + 32]) = (1, 0xff);
    body
}

struct Wire {
    stream: UnixStream,
    /// Ids have 64 bits, as both sides can from the hello on.
    wide: bool,
}

impl Wire {
    async fn send(&mut self, kind: u32, id: u64, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut packet = [kind.to_le_bytes(), length.to_le_bytes()].concat();
        packet.extend(id.to_le_bytes().iter().take(if self.wide { 8 } else { 4 }));
        packet.extend(body);
        self.stream.write_all(&packet).await
    }

    async fn receive(&mut self) -> io::Result<(u32, u64, Vec<u8>)> {
        let (kind, length) = (self.stream.read_u32_le().await?, self.stream.read_u32_le().await?);
        let id = if self.wide { self.stream.read_u64_le().await? } else { self.stream.read_u32_le().await?.into() };
        if length > LARGEST {
            return Err(io::Error::other(format!("a packet of {length} bytes")));
        }
        let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.stream.read_exact(&mut body).await?;
        Ok((kind, id, body))
    }
}
