//! What a device is to its host controller (USB 2.0 chapters 5, 8 and 9).

use minicbor::{Decode, Encode};
use rhea_block::Segment;
use rhea_device::{DmaHandle, LoadError};
use rhea_storage::guest::{self, Piece};
use std::sync::Arc;

/// How fast a device talks, with the numbers that xHCI ports show (xHCI 7.2.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Speed {
    #[n(1)]
    Full = 1,
    #[n(3)]
    High = 3,
    #[n(4)]
    Super = 4,
}

/// The eight bytes that start a control transfer (USB 2.0 table 9-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Setup {
    #[n(0)]
    pub kind: u8,
    #[n(1)]
    pub request: u8,
    #[n(2)]
    pub value: u16,
    #[n(3)]
    pub index: u16,
    #[n(4)]
    pub length: u16,
}

impl Setup {
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Self {
        let [kind, request, v0, v1, i0, i1, l0, l1] = bytes;
        let half = |low, high| u16::from_le_bytes([low, high]);
        Self { kind, request, value: half(v0, v1), index: half(i0, i1), length: half(l0, l1) }
    }
    /// The data stage, if there is one, goes to the host.
    #[must_use]
    pub fn to_host(&self) -> bool {
        self.kind & 0x80 != 0
    }
}

/// The device does not know the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall;

/// The host's buffer is not memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferError;

/// What becomes of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many bytes went.
    Done(u64),
    /// Nothing can go now: the host asks again when the device wakes it, or its other endpoints have done something.
    Nak,
    Stall,
    /// The device has more to say than the host has room for.
    Babble,
    /// The device does not answer.
    Silent,
    /// The buffer is not memory.
    BadBuffer,
    /// The device keeps the transfer and finishes it later.
    Pending,
}

impl From<BufferError> for Answer {
    fn from(_: BufferError) -> Self {
        Self::BadBuffer
    }
}

/// The host's memory of a transfer.
pub struct Buffer {
    dma: DmaHandle,
    pieces: Vec<Piece>,
    /// Data to the device that was in the request itself.
    immediate: Option<[u8; 8]>,
    len: u64,
}

impl Buffer {
    /// Pieces of guest memory.
    #[must_use]
    pub fn new(dma: DmaHandle, pieces: Vec<Piece>) -> Self {
        let len = pieces.iter().map(|(_, n)| *n).sum();
        Self { dma, pieces, immediate: None, len }
    }
    /// At most 8 bytes for the device.
    #[must_use]
    pub fn immediate(dma: DmaHandle, data: [u8; 8], len: u64) -> Self {
        Self { dma, pieces: Vec::new(), immediate: Some(data), len: len.min(8) }
    }
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Stores data at the start; what has no place is left out.
    ///
    /// # Errors
    /// [`BufferError`].
    pub fn put(&self, data: &[u8]) -> Result<(), BufferError> {
        if self.immediate.is_some() && !data.is_empty() {
            return Err(BufferError);
        }
        guest::scatter(&self.dma, &self.pieces, data).map(drop).map_err(|_| BufferError)
    }
    /// The first `len` bytes, or all there are.
    ///
    /// # Errors
    /// [`BufferError`].
    pub fn get(&self, len: u64) -> Result<Vec<u8>, BufferError> {
        let n = usize::try_from(len.min(self.len)).map_err(|_| BufferError)?;
        if let Some(bytes) = self.immediate {
            return Ok(bytes[..n].to_vec());
        }
        let mut data = vec![0; n];
        guest::gather(&self.dma, &self.pieces, &mut data).map_err(|_| BufferError)?;
        Ok(data)
    }
    /// The first `len` bytes as the memory of a request to a drive, pinned until [`guest::unpin`]; `write`: the request writes it.
    ///
    /// # Errors
    /// [`BufferError`].
    pub fn segments(&self, len: u64, write: bool) -> Result<Vec<Segment>, BufferError> {
        if self.immediate.is_some() {
            return if write { Err(BufferError) } else { Ok(vec![Segment::Host(self.get(len)?)]) };
        }
        if len >= self.len {
            return guest::segments(&self.dma, &self.pieces, write).ok_or(BufferError);
        }
        let mut left = len;
        let mut part = Vec::new();
        for &(at, n) in &self.pieces {
            let n = n.min(left);
            left -= n;
            if n > 0 {
                part.push((at, n));
            }
        }
        guest::segments(&self.dma, &part, write).ok_or(BufferError)
    }
}

/// Called once, on any thread.
pub type Completion = Box<dyn FnOnce(Answer) + Send>;

/// A transfer with an endpoint other than the first.
pub struct Transfer {
    /// The number, with bit 7 set if data goes to the host.
    pub endpoint: u8,
    pub buffer: Buffer,
    done: Completion,
}

impl Transfer {
    #[must_use]
    pub fn new(endpoint: u8, buffer: Buffer, done: Completion) -> Self {
        Self { endpoint, buffer, done }
    }
    /// Ends a transfer that was answered with [`Answer::Pending`].
    pub fn finish(self, answer: Answer) {
        (self.done)(answer);
    }
}

/// Tells the host that an endpoint has something to say. Called with no lock of the device held.
pub type Wake = Arc<dyn Fn(u8) + Send + Sync>;

/// A device. Its methods are called with no lock of the controller held, so that it may call others.
pub trait UsbDevice: Send + Sync {
    /// For lists.
    fn name(&self) -> &str;
    /// The speeds it can have, ascending.
    fn speeds(&self) -> &[Speed];
    /// It was put at a port; `wake` is how it asks for attention.
    fn attach(&self, wake: Wake);
    /// A reset of its port (USB 2.0 7.1.7.5), also at power-on.
    fn reset(&self, speed: Speed);
    /// A control transfer with endpoint 0: `data` came with it, or is the answer.
    ///
    /// # Errors
    /// [`Stall`].
    fn control(&self, setup: &Setup, data: &mut Vec<u8>) -> Result<(), Stall>;
    /// A transfer with another endpoint.
    fn transfer(&self, transfer: Transfer) -> Answer;
    /// The host lets it wake a port that sleeps.
    fn may_wake(&self) -> bool {
        false
    }
    /// It is a hub, with devices below it.
    fn as_hub(&self) -> Option<&crate::Hub> {
        None
    }
    /// Returns when nothing is under way of which no transfer knows.
    fn quiesce(&self) {}
    /// The state, while no transfer is under way.
    fn save(&self) -> Vec<u8>;
    /// # Errors
    /// [`LoadError`].
    fn load(&self, state: &[u8]) -> Result<(), LoadError>;
}
