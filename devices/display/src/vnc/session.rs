//! One client.

use super::auth::CHALLENGE;
use super::encode::{Encoder, Encoding};
use super::keysym;
use super::pixel::{PixelFormat, SERVER_FORMAT};
use super::server::Shared;
use crate::{Rect, Surface, Watcher};
use rhea_pc::input::{ABSOLUTE_MAX, Button, InputEvent, KeyCode};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// A client that does not take data, or does not say who it is, for this long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection of either kind.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn try_clone(&self) -> Result<Self> {
        Ok(match self {
            Self::Tcp(s) => Self::Tcp(s.try_clone()?),
            Self::Unix(s) => Self::Unix(s.try_clone()?),
        })
    }
    pub(super) fn shut_down(&self) {
        // It may have ended already.
        let _ = match self {
            Self::Tcp(s) => s.shutdown(Shutdown::Both),
            Self::Unix(s) => s.shutdown(Shutdown::Both),
        };
    }
    fn set_patience(&self) -> Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(Some(PATIENCE)).and_then(|()| s.set_write_timeout(Some(PATIENCE))),
            Self::Unix(s) => s.set_read_timeout(Some(PATIENCE)).and_then(|()| s.set_write_timeout(Some(PATIENCE))),
        }
    }
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
        }
    }
}
impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buffer),
            Self::Unix(s) => s.read(buffer),
        }
    }
}
impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> Result<usize> {
        match self {
            Self::Tcp(s) => s.write(data),
            Self::Unix(s) => s.write(data),
        }
    }
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Numbers of pseudo-encodings.
mod pseudo {
    pub const DESKTOP_SIZE: i32 = -223;
    pub const POINTER_TYPE: i32 = -257;
    pub const EXTENDED_KEY: i32 = -258;
    pub const EXTENDED_DESKTOP_SIZE: i32 = -308;
}

/// Security types.
const NO_SECURITY: u8 = 1;
const PASSWORD: u8 = 2;

/// Statuses of a change of the size that a client asked for.
const SIZE_PROHIBITED: u16 = 1;
const SIZE_FORWARDED: u16 = 4;

/// In relative mode positions are motion from here.
const RELATIVE_CENTER: i32 = 0x7fff;

/// Buttons by their bits; the bits between are the wheel.
const BUTTONS: [(u8, Button); 4] = [(1, Button::Left), (2, Button::Middle), (4, Button::Right), (0x80, Button::Side)];
/// Wheel: bit, vertical, horizontal.
const WHEEL: [(u8, i32, i32); 4] = [(8, 1, 0), (0x10, -1, 0), (0x20, 0, -1), (0x40, 0, 1)];

/// What a client can do.
#[derive(Clone, Copy, Default)]
struct Features {
    encoding: Encoding,
    desktop_size: bool,
    extended_desktop_size: bool,
    pointer_type: bool,
}

pub(super) struct Session {
    shared: Arc<Shared>,
    stream: Stream,
    id: u64,
    format: PixelFormat,
    features: Features,
    encoder: Encoder,
    /// The size the client thinks the picture has.
    size: (usize, usize),
    /// It waits for an update.
    wanted: bool,
    /// To be sent though unchanged.
    forced: Option<Rect>,
    /// All changes up to this frame were sent.
    sent: u64,
    /// The next update tells the size: reason and status.
    tell_size: Option<(u16, u16)>,
    /// The mode of the pointer it was told.
    told_absolute: Option<bool>,
    pointer: Option<(u16, u16)>,
    buttons: u8,
    keys: BTreeSet<KeyCode>,
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

fn be16(data: &[u8]) -> u16 {
    u16::from_be_bytes([data[0], data[1]])
}

fn be32(data: &[u8]) -> u32 {
    u32::from_be_bytes([data[0], data[1], data[2], data[3]])
}

/// The head of a rectangle.
fn head(rect: Rect, encoding: i32, out: &mut Vec<u8>) {
    for n in [rect.x, rect.y, rect.width, rect.height] {
        out.extend_from_slice(&(n.min(0xffff) as u16).to_be_bytes());
    }
    out.extend_from_slice(&encoding.to_be_bytes());
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, stream: Stream, id: u64) -> Self {
        // The server's own format is one.
        let format = PixelFormat::parse(&SERVER_FORMAT).unwrap_or_else(|| unreachable!());
        Self {
            shared,
            stream,
            id,
            format,
            features: Features::default(),
            encoder: Encoder::default(),
            size: (0, 0),
            wanted: false,
            forced: None,
            sent: 0,
            tell_size: None,
            told_absolute: None,
            pointer: None,
            buttons: 0,
            keys: BTreeSet::new(),
        }
    }

    /// Serves until the connection ends.
    pub(super) fn run(&mut self) -> Result<()> {
        self.stream.set_patience()?;
        if !self.handshake()? {
            return Ok(());
        }
        let news = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let mine: Arc<OwnedFd> = news.clone();
        let watcher = self.shared.console.clone().watch_with(move || {
            // A full counter rings as well.
            let _ = rustix::io::write(&*mine, &1u64.to_ne_bytes());
        })?;
        self.size = watcher.with(|s| (s.width(), s.height()));
        self.server_init()?;
        let (mut input, mut skip) = (Vec::new(), 0);
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(news.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let (said, changed) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if changed {
                let _ = rustix::io::read(&*news, &mut [0u8; 8]);
            }
            if said {
                let mut data = [0; 16384];
                let n = self.stream.read(&mut data)?;
                if n == 0 {
                    return Ok(());
                }
                input.extend_from_slice(&data[..n]);
                let mut at = 0;
                loop {
                    let skipped = (input.len() - at).min(skip);
                    at += skipped;
                    skip -= skipped;
                    let Some(len) = length(&input[at..])? else { break };
                    if len.whole > input.len() - at {
                        break;
                    }
                    let message = input[at..at + len.whole].to_vec();
                    self.message(&message, &watcher)?;
                    at += len.whole;
                    skip = len.skip;
                }
                input.drain(..at);
            }
            self.update(&watcher)?;
        }
    }

    /// Version, security, sharing; false: the client is turned away.
    fn handshake(&mut self) -> Result<bool> {
        self.stream.write_all(b"RFB 003.008\n")?;
        let mut version = [0; 12];
        self.stream.read_exact(&mut version)?;
        let minor = std::str::from_utf8(&version)
            .ok()
            .and_then(|v| v.strip_prefix("RFB 003."))
            .and_then(|v| v.trim_end().parse::<u32>().ok())
            .ok_or_else(|| broken("not a version of RFB"))?;
        let kind = if self.shared.asks() { PASSWORD } else { NO_SECURITY };
        // Unknown ones below 7 are 3.3.
        if minor < 7 {
            self.stream.write_all(&u32::from(kind).to_be_bytes())?;
        } else {
            self.stream.write_all(&[1, kind])?;
            let mut choice = [0];
            self.stream.read_exact(&mut choice)?;
            if choice != [kind] {
                return Err(broken("another security type than offered"));
            }
        }
        let proven = kind == NO_SECURITY || self.challenge()?;
        if kind == PASSWORD || minor >= 8 {
            self.stream.write_all(&u32::from(!proven).to_be_bytes())?;
        }
        if !proven {
            if minor >= 8 {
                const WHY: &[u8] = b"Authentication failed";
                self.stream.write_all(&[&(WHY.len() as u32).to_be_bytes(), WHY].concat())?;
            }
            return Ok(false);
        }
        let mut shared = [0];
        self.stream.read_exact(&mut shared)?;
        Ok(shared != [0] || self.shared.exclusive(self.id))
    }

    /// Does the client know the password?
    fn challenge(&mut self) -> Result<bool> {
        let (mut challenge, mut answer) = ([0; CHALLENGE], [0; CHALLENGE]);
        std::fs::File::open("/dev/urandom")?.read_exact(&mut challenge)?;
        self.stream.write_all(&challenge)?;
        self.stream.read_exact(&mut answer)?;
        Ok(self.shared.proven(&challenge, &answer))
    }

    fn server_init(&mut self) -> Result<()> {
        let mut out = Vec::new();
        out.extend_from_slice(&(self.size.0 as u16).to_be_bytes());
        out.extend_from_slice(&(self.size.1 as u16).to_be_bytes());
        out.extend_from_slice(&SERVER_FORMAT);
        out.extend_from_slice(&(self.shared.name.len() as u32).to_be_bytes());
        out.extend_from_slice(self.shared.name.as_bytes());
        self.stream.write_all(&out)?;
        self.shared.initialized(self.id);
        Ok(())
    }

    fn whole(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.size.0, height: self.size.1 }
    }

    /// A whole message.
    fn message(&mut self, m: &[u8], watcher: &Watcher) -> Result<()> {
        match m[0] {
            0 => {
                let format = m[4..20].try_into().ok().and_then(PixelFormat::parse);
                self.format = format.ok_or_else(|| broken("no such pixel format"))?;
                if self.format.mapped {
                    self.stream.write_all(&PixelFormat::color_map())?;
                }
                self.forced = Some(self.whole());
            }
            2 => self.set_encodings(&m[4..])?,
            3 => {
                let rect = Rect {
                    x: be16(&m[2..]).into(),
                    y: be16(&m[4..]).into(),
                    width: be16(&m[6..]).into(),
                    height: be16(&m[8..]).into(),
                };
                self.wanted = true;
                if m[1] == 0 {
                    self.forced = Some(self.forced.map_or(rect, |f| union(f, rect)));
                }
            }
            4 => self.key(keysym::key(be32(&m[4..])), m[1] != 0, watcher),
            5 => self.pointer_event(m[1], be16(&m[2..]), be16(&m[4..]), watcher),
            // Extended key event: the number of the key, or none.
            255 => {
                let key = u8::try_from(be32(&m[8..])).ok().filter(|n| *n != 0).and_then(KeyCode::from_number);
                self.key(key.or_else(|| keysym::key(be32(&m[4..]))), be16(&m[2..]) != 0, watcher);
            }
            251 => {
                let taken = self.shared.console.display().prefer_size(be16(&m[2..]).into(), be16(&m[4..]).into());
                self.tell_size = Some((1, if taken { SIZE_FORWARDED } else { SIZE_PROHIBITED }));
            }
            // The clipboard: the guest has none.
            _ => {}
        }
        Ok(())
    }

    fn set_encodings(&mut self, list: &[u8]) -> Result<()> {
        let mut features = Features::default();
        let (mut chosen, mut extended_key) = (None, false);
        for number in list.chunks_exact(4).map(|n| be32(n) as i32) {
            match number {
                pseudo::DESKTOP_SIZE => features.desktop_size = true,
                pseudo::EXTENDED_DESKTOP_SIZE => features.extended_desktop_size = true,
                pseudo::POINTER_TYPE => features.pointer_type = true,
                pseudo::EXTENDED_KEY => extended_key = true,
                number => chosen = chosen.or(Encoding::from_number(number)),
            }
        }
        features.encoding = chosen.unwrap_or_default();
        if features.extended_desktop_size && !self.features.extended_desktop_size {
            self.tell_size = Some((0, 0));
        }
        self.features = features;
        if extended_key {
            // Says that such events are understood.
            self.tell(Rect { x: 0, y: 0, ..self.whole() }, pseudo::EXTENDED_KEY)?;
        }
        self.told_absolute = None;
        self.tell_pointer()
    }

    /// An update of one pseudo-rectangle.
    fn tell(&mut self, rect: Rect, encoding: i32) -> Result<()> {
        let mut out = vec![0, 0, 0, 1];
        head(rect, encoding, &mut out);
        self.stream.write_all(&out)
    }

    fn tell_pointer(&mut self) -> Result<()> {
        let absolute = self.shared.input.pointer_is_absolute();
        if !self.features.pointer_type || self.told_absolute == Some(absolute) {
            return Ok(());
        }
        self.told_absolute = Some(absolute);
        self.tell(Rect { x: absolute.into(), y: 0, ..self.whole() }, pseudo::POINTER_TYPE)
    }

    fn key(&mut self, key: Option<KeyCode>, down: bool, watcher: &Watcher) {
        let Some(key) = key else { return };
        if down {
            self.keys.insert(key);
        } else {
            self.keys.remove(&key);
        }
        self.shared.input.key(key, down);
        watcher.poke();
    }

    /// What the client holds down is released.
    pub(super) fn release_keys(&mut self) {
        for key in std::mem::take(&mut self.keys) {
            self.shared.input.key(key, false);
        }
        let events: Vec<_> = button_changes(self.buttons, 0).collect();
        if !events.is_empty() {
            self.shared.input.send(&events);
        }
    }

    fn pointer_event(&mut self, buttons: u8, x: u16, y: u16, watcher: &Watcher) {
        let mut events = Vec::new();
        if self.shared.input.pointer_is_absolute() {
            let scale = |v: u16, size: usize| {
                let last = size.saturating_sub(1).max(1);
                (usize::from(v).min(last) * usize::from(ABSOLUTE_MAX) / last) as u16
            };
            if self.pointer != Some((x, y)) {
                events.push(InputEvent::Absolute { x: scale(x, self.size.0), y: scale(y, self.size.1) });
            }
        } else {
            let (dx, dy) = if self.told_absolute == Some(false) {
                (i32::from(x) - RELATIVE_CENTER, i32::from(y) - RELATIVE_CENTER)
            } else {
                let (old_x, old_y) = self.pointer.unwrap_or((x, y));
                (i32::from(x) - i32::from(old_x), i32::from(y) - i32::from(old_y))
            };
            if (dx, dy) != (0, 0) {
                events.push(InputEvent::Relative { dx, dy });
            }
        }
        self.pointer = Some((x, y));
        events.extend(button_changes(self.buttons, buttons));
        for (bit, vertical, horizontal) in WHEEL {
            if buttons & !self.buttons & bit != 0 {
                events.push(InputEvent::Wheel { vertical, horizontal });
            }
        }
        self.buttons = buttons;
        if !events.is_empty() {
            self.shared.input.send(&events);
            watcher.poke();
        }
    }

    /// Sends an update if one is wanted and there is something to send.
    fn update(&mut self, watcher: &Watcher) -> Result<()> {
        self.tell_pointer()?;
        if !self.wanted {
            return Ok(());
        }
        let resizable = self.features.desktop_size || self.features.extended_desktop_size;
        let size = watcher.with(|s| (s.width(), s.height()));
        if size != self.size && resizable {
            self.size = size;
            self.tell_size = self.tell_size.or(Some((0, 0)));
            self.forced = Some(self.whole());
        }
        if let Some((reason, status)) = self.tell_size.take() {
            self.wanted = false;
            return self.send_size(reason, status);
        }
        let (whole, forced, sent) = (self.whole(), self.forced, self.sent);
        let (parts, frame) = watcher.with(|s| (collect(s, whole, forced, sent), s.frame()));
        self.sent = frame;
        if parts.is_empty() && forced.is_none() {
            return Ok(());
        }
        (self.wanted, self.forced) = (false, None);
        let mut out = vec![0, 0];
        out.extend_from_slice(&(parts.len() as u16).to_be_bytes());
        for (rect, pixels) in &parts {
            head(*rect, self.features.encoding.number(), &mut out);
            self.encoder.encode(self.features.encoding, &self.format, pixels, rect.width, &mut out);
        }
        self.stream.write_all(&out)
    }

    fn send_size(&mut self, reason: u16, status: u16) -> Result<()> {
        if !self.features.extended_desktop_size {
            return self.tell(self.whole(), pseudo::DESKTOP_SIZE);
        }
        let mut out = vec![0, 0, 0, 1];
        let rect = Rect { x: reason.into(), y: status.into(), ..self.whole() };
        head(rect, pseudo::EXTENDED_DESKTOP_SIZE, &mut out);
        // One screen, number 0, at 0,0 and as large as the picture, without flags.
        out.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&(self.size.0 as u16).to_be_bytes());
        out.extend_from_slice(&(self.size.1 as u16).to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        self.stream.write_all(&out)
    }
}

/// The rectangles to send, with their pixels.
fn collect(surface: &Surface, whole: Rect, forced: Option<Rect>, sent: u64) -> Vec<(Rect, Vec<u32>)> {
    let cut = |r: Rect| {
        let (right, bottom) = (surface.width().min(whole.width), surface.height().min(whole.height));
        let (x, y) = (r.x.min(right), r.y.min(bottom));
        let (width, height) = (r.width.min(right - x), r.height.min(bottom - y));
        Some(Rect { x, y, width, height }).filter(|r| r.width != 0 && r.height != 0)
    };
    let mut rects = surface.changes(sent, whole);
    if let Some(forced) = forced {
        rects.retain(|r| {
            r.x < forced.x
                || r.y < forced.y
                || r.x + r.width > forced.x + forced.width
                || r.y + r.height > forced.y + forced.height
        });
        rects.push(forced);
    }
    // The count has 16 bits.
    if rects.len() > 0xffff {
        rects = vec![whole];
    }
    rects.into_iter().filter_map(cut).map(|r| (r, surface.copy(r))).collect()
}

fn union(a: Rect, b: Rect) -> Rect {
    let (x, y) = (a.x.min(b.x), a.y.min(b.y));
    let (right, bottom) = ((a.x + a.width).max(b.x + b.width), (a.y + a.height).max(b.y + b.height));
    Rect { x, y, width: right - x, height: bottom - y }
}

fn button_changes(old: u8, new: u8) -> impl Iterator<Item = InputEvent> {
    let changed = old ^ new;
    BUTTONS
        .into_iter()
        .filter(move |(bit, _)| changed & bit != 0)
        .map(move |(bit, button)| InputEvent::Button { button, down: new & bit != 0 })
}

/// The length of a message, and how much after it is of no interest.
struct Length {
    whole: usize,
    skip: usize,
}

/// The length of the message that begins `data`, as soon as it can be told.
fn length(data: &[u8]) -> Result<Option<Length>> {
    let Some(kind) = data.first() else { return Ok(None) };
    let has = |n: usize| data.len() >= n;
    let (whole, skip) = match kind {
        0 => (20, 0),
        2 if has(4) => (4 + 4 * usize::from(be16(&data[2..])), 0),
        3 => (10, 0),
        4 => (8, 0),
        5 => (6, 0),
        // A negative length is of an extended clipboard.
        6 if has(8) => (8, (be32(&data[4..]) as i32).unsigned_abs() as usize),
        251 if has(8) => (8 + 16 * usize::from(data[6]), 0),
        255 if has(2) => match data[1] {
            0 => (12, 0),
            _ => return Err(broken("an extension that was not offered")),
        },
        2 | 6 | 251 | 255 => return Ok(None),
        _ => return Err(broken("an unknown message")),
    };
    Ok(Some(Length { whole, skip }))
}
