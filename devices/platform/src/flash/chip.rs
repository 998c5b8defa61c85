//! One flash chip's command state machine (Intel basic and extended command set, 16 bits wide). Operations are done the moment
//! they are confirmed, so that the write state machine is always ready.

use super::cfi;

/// Status register.
pub(super) mod status {
    pub const READY: u8 = 1 << 7;
    pub const ERASE_ERROR: u8 = 1 << 5;
    pub const PROGRAM_ERROR: u8 = 1 << 4;
    pub const LOCKED: u8 = 1 << 1;
    /// Both error bits: the command sequence was wrong.
    pub const SEQUENCE: u8 = ERASE_ERROR | PROGRAM_ERROR;
}

/// What reads give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadMode {
    Array,
    Status,
    Identifier,
    Query,
}

/// A command that waits for its further cycles.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pending {
    None,
    Program,
    Erase,
    Lock,
    /// The word count comes next.
    BufferCount,
    BufferData {
        block: u32,
        left: usize,
        words: Vec<(u32, u16)>,
    },
    BufferConfirm {
        words: Vec<(u32, u16)>,
    },
}

/// What the bank is to do to the array; the answer goes to [`Chip::done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Clears bits: word address and data.
    Program(Vec<(u32, u16)>),
    Erase {
        block: u32,
    },
}

/// A write did something the data sheet forbids; for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Command(u8),
    Sequence,
    Locked,
}

/// A block's lock state.
const LOCKED: u8 = 1;
/// It cannot be unlocked before the next reset.
const LOCKED_DOWN: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chip {
    pub mode: ReadMode,
    pending: Pending,
    pub status: u8,
    locks: Vec<u8>,
    /// Bytes of a block of this chip.
    block_len: u32,
}

impl Chip {
    pub fn new(blocks: u32, block_len: u32) -> Self {
        Self {
            mode: ReadMode::Array,
            pending: Pending::None,
            status: status::READY,
            locks: vec![0; blocks as usize],
            block_len,
        }
    }
    pub fn reset(&mut self) {
        *self = Self::new(self.locks.len() as u32, self.block_len);
    }
    /// Do reads give the array?
    pub fn reads_array(&self) -> bool {
        self.mode == ReadMode::Array && self.pending == Pending::None
    }
    /// Is the next write cycle data for the array?
    pub fn takes_data(&self) -> bool {
        matches!(self.pending, Pending::Program | Pending::BufferData { .. })
    }
    fn block(&self, word: u32) -> u32 {
        word / (self.block_len / 2)
    }
    fn lock_of(&self, block: u32) -> u8 {
        self.locks.get(block as usize).copied().unwrap_or(LOCKED)
    }

    /// What a read of word address `word` gives; `None`: the array.
    pub fn read(&self, word: u32) -> Option<u16> {
        if self.pending != Pending::None {
            return Some(self.status.into());
        }
        match self.mode {
            ReadMode::Array => None,
            ReadMode::Status => Some(self.status.into()),
            ReadMode::Identifier => Some(match word & 0xff {
                0 => cfi::MANUFACTURER,
                1 => cfi::DEVICE,
                2 => self.lock_of(self.block(word)).into(),
                _ => 0,
            }),
            ReadMode::Query => Some(cfi::query(word & 0xff, self.locks.len() as u32, self.block_len).into()),
        }
    }

    /// A write cycle; bits of `data` that the bus did not carry are ones.
    pub fn write(&mut self, word: u32, data: u16) -> (Option<Action>, Option<Fault>) {
        let command = data as u8;
        let block = self.block(word);
        match std::mem::replace(&mut self.pending, Pending::None) {
            Pending::None => (None, self.first_cycle(command)),
            Pending::Program => self.program(block, vec![(word, data)]),
            Pending::Erase if command == 0xd0 => {
                if self.lock_of(block) & LOCKED != 0 {
                    self.status |= status::ERASE_ERROR | status::LOCKED;
                    return (None, Some(Fault::Locked));
                }
                (Some(Action::Erase { block }), None)
            }
            Pending::Lock => (None, self.lock(block, command)),
            Pending::BufferCount => {
                let count = usize::from(data) + 1;
                if count > cfi::BUFFER_WORDS {
                    return (None, self.wrong_sequence());
                }
                self.pending = Pending::BufferData { block, left: count, words: Vec::with_capacity(count) };
                (None, None)
            }
            Pending::BufferData { block: first, left, mut words } => {
                if block != first {
                    return (None, self.wrong_sequence());
                }
                words.push((word, data));
                self.pending = if left > 1 {
                    Pending::BufferData { block, left: left - 1, words }
                } else {
                    Pending::BufferConfirm { words }
                };
                (None, None)
            }
            Pending::BufferConfirm { words } if command == 0xd0 => {
                let block = self.block(words.first().map_or(word, |w| w.0));
                self.program(block, words)
            }
            Pending::Erase | Pending::BufferConfirm { .. } => (None, self.wrong_sequence()),
        }
    }

    fn first_cycle(&mut self, command: u8) -> Option<Fault> {
        match command {
            // 0xf0 resets chips of the other common command set; probing sends both.
            0xff | 0xf0 => self.mode = ReadMode::Array,
            0x70 => self.mode = ReadMode::Status,
            0x90 => self.mode = ReadMode::Identifier,
            0x98 => self.mode = ReadMode::Query,
            // Ready again once the next command is written. Firmware knows a flash by the zero; of a real chip, whose bit 7
            // stays set, it would think it were ROM.
            0x50 => self.status = 0,
            0x10 | 0x40 => self.begin(Pending::Program),
            0x20 => self.begin(Pending::Erase),
            0x60 => self.begin(Pending::Lock),
            0xe8 => self.begin(Pending::BufferCount),
            // Suspend and resume find nothing running.
            0xb0 | 0xd0 => self.mode = ReadMode::Status,
            _ => {
                self.mode = ReadMode::Array;
                return Some(Fault::Command(command));
            }
        }
        None
    }
    fn begin(&mut self, pending: Pending) {
        self.pending = pending;
        self.mode = ReadMode::Status;
        self.status |= status::READY;
    }
    fn wrong_sequence(&mut self) -> Option<Fault> {
        self.status |= status::READY | status::SEQUENCE;
        Some(Fault::Sequence)
    }
    fn program(&mut self, block: u32, words: Vec<(u32, u16)>) -> (Option<Action>, Option<Fault>) {
        if self.lock_of(block) & LOCKED != 0 {
            self.status |= status::PROGRAM_ERROR | status::LOCKED;
            return (None, Some(Fault::Locked));
        }
        (Some(Action::Program(words)), None)
    }
    fn lock(&mut self, block: u32, command: u8) -> Option<Fault> {
        let Some(lock) = self.locks.get_mut(block as usize) else { return self.wrong_sequence() };
        match command {
            0x01 => *lock |= LOCKED,
            0x2f => *lock |= LOCKED | LOCKED_DOWN,
            0xd0 if *lock & LOCKED_DOWN == 0 => *lock = 0,
            0xd0 => {}
            _ => return self.wrong_sequence(),
        }
        None
    }
    /// How an action ended: the block is protected, or the storage failed.
    pub fn done(&mut self, action: &Action, result: Result<(), Failure>) {
        let error = match action {
            Action::Program(_) => status::PROGRAM_ERROR,
            Action::Erase { .. } => status::ERASE_ERROR,
        };
        match result {
            Ok(()) => {}
            Err(Failure::Protected) => self.status |= error | status::LOCKED,
            Err(Failure::Storage) => self.status |= error,
        }
    }
    pub fn save(&self) -> SavedChip {
        let (pending, block, left, words) = match &self.pending {
            Pending::None => (0, 0, 0, &[][..]),
            Pending::Program => (1, 0, 0, &[][..]),
            Pending::Erase => (2, 0, 0, &[][..]),
            Pending::Lock => (3, 0, 0, &[][..]),
            Pending::BufferCount => (4, 0, 0, &[][..]),
            Pending::BufferData { block, left, words } => (5, *block, *left as u32, &words[..]),
            Pending::BufferConfirm { words } => (6, 0, 0, &words[..]),
        };
        let mode = match self.mode {
            ReadMode::Array => 0,
            ReadMode::Status => 1,
            ReadMode::Identifier => 2,
            ReadMode::Query => 3,
        };
        SavedChip { mode, status: self.status, locks: self.locks.clone(), pending, block, left, words: words.to_vec() }
    }
    /// Takes over a saved state; false if it is not one of this chip.
    pub fn load(&mut self, saved: SavedChip) -> bool {
        let left = saved.left as usize;
        if saved.locks.len() != self.locks.len() || saved.words.len() > cfi::BUFFER_WORDS || left > cfi::BUFFER_WORDS {
            return false;
        }
        self.mode = match saved.mode {
            0 => ReadMode::Array,
            1 => ReadMode::Status,
            2 => ReadMode::Identifier,
            3 => ReadMode::Query,
            _ => return false,
        };
        self.pending = match saved.pending {
            0 => Pending::None,
            1 => Pending::Program,
            2 => Pending::Erase,
            3 => Pending::Lock,
            4 => Pending::BufferCount,
            5 => Pending::BufferData { block: saved.block, left, words: saved.words },
            6 => Pending::BufferConfirm { words: saved.words },
            _ => return false,
        };
        self.status = saved.status;
        self.locks = saved.locks;
        true
    }
}

/// A chip's saved state.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) struct SavedChip {
    #[n(0)]
    mode: u8,
    #[n(1)]
    status: u8,
    #[n(2)]
    locks: Vec<u8>,
    #[n(3)]
    pending: u8,
    #[n(4)]
    block: u32,
    #[n(5)]
    left: u32,
    #[n(6)]
    words: Vec<(u32, u16)>,
}

/// Why the array could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Protected,
    Storage,
}
