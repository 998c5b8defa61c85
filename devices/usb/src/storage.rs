//! Mass storage, bulk-only transport (USB Mass Storage Class, Bulk-Only Transport 1.0).

use crate::descriptor::{Descriptors, EndpointKind, EndpointSpec, InterfaceSpec, Outcome, Standard};
use crate::{Answer, Setup, Speed, Stall, Transfer, UsbDevice, Wake};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use rhea_block::{Drive, Operation, Segment};
use rhea_device::LoadError;
use rhea_storage::scsi::{Action, LogicalUnit, ScsiCd, ScsiDisk, ScsiDiskOptions};
use rhea_storage::work::{self, Work};
use rhea_storage::{CdDrive, CdOptions, guest};
use std::io;
use std::sync::{Arc, OnceLock};

/// What a mass storage device can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageOptions {
    /// At most 36 characters of ASCII.
    pub serial: String,
    /// The medium can be taken out.
    pub removable: bool,
    /// Bytes, powers of two from 512 to 32 KiB; 0: the drive's.
    pub logical_block_size: u32,
    pub physical_block_size: u32,
}

/// Data to the host, data from it.
const IN: u8 = 0x81;
const OUT: u8 = 0x02;
const CBW: usize = 31;
const CSW: u64 = 13;
/// Parameters of a command.
const MOST_PARAMETERS: usize = 1 << 16;

/// bCSWStatus (5.2).
const PASSED: u8 = 0;
const FAILED: u8 = 1;
const PHASE_ERROR: u8 = 2;

/// Where data for the host comes from, or data from the host goes.
#[derive(Clone, Debug, Encode, Decode)]
enum Data {
    /// So many bytes of these are gone.
    #[n(0)]
    Bytes(#[n(0)] Vec<u8>, #[n(1)] usize),
    /// Parameters: as many as are wanted, those that are there.
    #[n(1)]
    Take(#[n(0)] usize, #[n(1)] Vec<u8>),
    /// The drive, from an offset; bytes left.
    #[n(2)]
    Drive {
        #[n(0)]
        offset: u64,
        #[n(1)]
        left: u64,
        #[n(2)]
        flush: bool,
    },
    /// Nothing, or nobody wants it.
    #[n(3)]
    None,
}

#[derive(Clone, Debug, Encode, Decode)]
enum Phase {
    #[n(0)]
    Command,
    #[n(1)]
    In(#[n(0)] Data),
    #[n(2)]
    Out(#[n(0)] Data),
    /// The drive works; the status follows.
    #[n(3)]
    Working,
    #[n(4)]
    Status,
    /// After a bad wrapper everything stalls until a reset of the class (6.6.1).
    #[n(5)]
    Broken,
}

#[derive(Clone, Debug, Encode, Decode)]
struct State {
    #[n(0)]
    standard: Standard,
    #[n(1)]
    phase: Phase,
    #[n(2)]
    tag: u32,
    /// Bytes of the data stage that have not moved.
    #[n(3)]
    residue: u32,
    /// Bytes of the data stage that the host has not offered.
    #[n(4)]
    expected: u64,
    #[n(5)]
    status: u8,
    #[n(6)]
    block: [u8; 16],
    /// The class was reset while a request was under way: its end no longer counts.
    #[n(7)]
    round: u32,
}

impl State {
    fn new(speed: Speed) -> Self {
        Self {
            standard: Standard::new(speed),
            phase: Phase::Command,
            tag: 0,
            residue: 0,
            expected: 0,
            status: PASSED,
            block: [0; 16],
            round: 0,
        }
    }
    fn restart(&mut self) {
        self.phase = Phase::Command;
        self.round = self.round.wrapping_add(1);
    }
    fn moved(&mut self, n: u64) {
        self.residue = self.residue.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
    }
}

struct Inner {
    unit: Arc<dyn LogicalUnit>,
    /// The drive of reads and writes.
    drive: Arc<Drive>,
    descriptors: Descriptors,
    state: Mutex<State>,
    wake: OnceLock<Wake>,
}

/// A disk or CD drive.
pub struct UsbStorage {
    name: &'static str,
    inner: Arc<Inner>,
}

/// What a transfer needs done with no lock held.
enum Step {
    Answer(Answer),
    /// A request to the drive for `bytes` of the transfer's buffer.
    Drive {
        offset: u64,
        bytes: u64,
        write: bool,
        flush: bool,
    },
    /// The command's own request; the transfer is done, with so many bytes.
    Run {
        drive: Arc<Drive>,
        work: Work,
        bytes: u64,
    },
}

impl UsbStorage {
    fn with(name: &'static str, unit: Arc<dyn LogicalUnit>, drive: Arc<Drive>, serial: &str) -> Arc<Self> {
        let bulk =
            |address| EndpointSpec { address, kind: EndpointKind::Bulk, packet: [64, 512, 1024], interval: [0; 3] };
        let descriptors = Descriptors {
            vendor: 0x46f4,
            product: 0x0001,
            device_class: 0,
            strings: ["Rhea".to_owned(), name.to_owned(), serial.to_owned()],
            self_powered: true,
            remote_wakeup: false,
            most: Speed::Super,
            interface: InterfaceSpec {
                class: 8,
                // Transparent SCSI commands.
                subclass: 6,
                protocol: 0x50,
                extra: Vec::new(),
                endpoints: vec![bulk(IN), bulk(OUT)],
            },
        };
        let state = Mutex::new(State::new(Speed::High));
        Arc::new(Self { name, inner: Arc::new(Inner { unit, drive, descriptors, state, wake: OnceLock::new() }) })
    }
    /// A disk.
    #[must_use]
    pub fn disk(drive: Arc<Drive>, options: StorageOptions) -> Arc<Self> {
        let StorageOptions { serial, removable, logical_block_size, physical_block_size } = options;
        let disk = ScsiDiskOptions {
            serial: serial.clone(),
            product: "USB DISK".to_owned(),
            // Does not rotate.
            rotation_rate: 1,
            logical_block: logical_block_size,
            physical_block: physical_block_size,
            removable,
            // A command begins when the one before has ended.
            queues: false,
            ..ScsiDiskOptions::default()
        };
        Self::with("USB disk", ScsiDisk::new(drive.clone(), disk), drive, &serial)
    }
    /// A CD drive.
    #[must_use]
    pub fn cd(drive: Arc<Drive>, serial: &str) -> Arc<Self> {
        let options = CdOptions { serial: serial.to_owned(), ..CdOptions::default() };
        Self::with("USB CD drive", ScsiCd::new(&CdDrive::new(Some(drive.clone()), options)), drive, serial)
    }
}

impl Inner {
    fn wake(&self, endpoint: u8) {
        if let Some(wake) = self.wake.get() {
            wake(endpoint);
        }
    }
    /// A command block wrapper (5.1).
    fn wrapper(&self, s: &mut State, data: &[u8]) -> Step {
        let good = data.len() == CBW && data[..4] == *b"USBC" && data[13] & 15 == 0 && (1..=16).contains(&data[14]);
        if !good {
            s.phase = Phase::Broken;
            s.standard.halt(IN);
            s.standard.halt(OUT);
            return Step::Answer(Answer::Stall);
        }
        let word = |at: usize| u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        (s.tag, s.residue, s.status) = (word(4), word(8), PASSED);
        s.expected = s.residue.into();
        let to_host = data[12] & 0x80 != 0;
        let len = usize::from(data[14]);
        s.block = [0; 16];
        s.block[..len].copy_from_slice(&data[15..15 + len]);
        let action = self.unit.execute(&s.block);
        self.begin(s, action, to_host)
    }
    /// The data stage that the device wants, against the one that the host has announced (the thirteen cases of 6.7).
    fn begin(&self, s: &mut State, action: Action, to_host: bool) -> Step {
        let expected = s.expected;
        let nothing = |s: &mut State| {
            s.phase = match (expected, to_host) {
                (0, _) => Phase::Status,
                (_, true) => Phase::In(Data::None),
                (_, false) => Phase::Out(Data::None),
            };
        };
        // The device wants the other direction, or more than the host has.
        let bad = |s: &mut State| {
            s.status = PHASE_ERROR;
            nothing(s);
        };
        match action {
            Action::Good | Action::Out(0) => nothing(s),
            Action::In(data) if data.is_empty() => nothing(s),
            Action::Fail(_) => {
                s.status = FAILED;
                nothing(s);
            }
            Action::In(data) if to_host && data.len() as u64 <= expected => s.phase = Phase::In(Data::Bytes(data, 0)),
            Action::Transfer { offset, len, write: false, .. } if to_host && len <= expected => {
                s.phase = Phase::In(Data::Drive { offset, left: len, flush: false });
            }
            Action::Transfer { offset, len, write: true, flush, .. } if !to_host && len <= expected => {
                s.phase = Phase::Out(Data::Drive { offset, left: len, flush });
            }
            Action::Out(len) if !to_host && len as u64 <= expected && len <= MOST_PARAMETERS => {
                s.phase = Phase::Out(Data::Take(len, Vec::new()));
            }
            Action::Run { drive, work } if expected == 0 => {
                s.phase = Phase::Working;
                return Step::Run { drive, work, bytes: CBW as u64 };
            }
            Action::In(_) | Action::Transfer { .. } | Action::Out(_) | Action::Run { .. } => bad(s),
        }
        Step::Answer(Answer::Done(CBW as u64))
    }
    fn input(&self, s: &mut State, transfer: &Transfer) -> Step {
        let room = transfer.buffer.len();
        let answer = match &mut s.phase {
            Phase::Command | Phase::Out(_) | Phase::Working => Answer::Nak,
            Phase::Broken => Answer::Stall,
            Phase::In(Data::Drive { offset, left, .. }) if *left > 0 => {
                let (offset, bytes) = (*offset, (*left).min(room));
                return Step::Drive { offset, bytes, write: false, flush: false };
            }
            Phase::In(Data::Bytes(data, gone)) if *gone < data.len() => {
                let rest = &data[*gone..];
                let n = rest.len().min(usize::try_from(room).unwrap_or(usize::MAX));
                if let Err(e) = transfer.buffer.put(&rest[..n]) {
                    return Step::Answer(e.into());
                }
                *gone += n;
                let end = *gone == data.len();
                self.given(s, n as u64, room, end);
                Answer::Done(n as u64)
            }
            // There is less than the host has announced.
            Phase::In(_) => {
                s.phase = Phase::Status;
                s.standard.halt(IN);
                Answer::Stall
            }
            Phase::Status => {
                if room < CSW {
                    return Step::Answer(Answer::Babble);
                }
                let mut csw = Vec::with_capacity(CSW as usize);
                csw.extend(b"USBS");
                csw.extend(s.tag.to_le_bytes());
                csw.extend(s.residue.to_le_bytes());
                csw.push(s.status);
                if let Err(e) = transfer.buffer.put(&csw) {
                    return Step::Answer(e.into());
                }
                s.phase = Phase::Command;
                Answer::Done(CSW)
            }
        };
        Step::Answer(answer)
    }
    /// `n` bytes of `room` went to the host; `end`: the device has no more.
    fn given(&self, s: &mut State, n: u64, room: u64, end: bool) {
        s.moved(n);
        s.expected = s.expected.saturating_sub(room);
        // A short packet ends the stage; so does the last byte that the host expects.
        if end && (n < room || s.residue == 0) {
            s.phase = Phase::Status;
        }
    }
    fn output(&self, s: &mut State, transfer: &Transfer) -> Step {
        let len = transfer.buffer.len();
        match &mut s.phase {
            Phase::Command => match transfer.buffer.get(CBW as u64 + 1) {
                Ok(data) => self.wrapper(s, &data),
                Err(e) => Step::Answer(e.into()),
            },
            Phase::Working | Phase::Status => Step::Answer(Answer::Nak),
            Phase::In(_) | Phase::Broken => {
                s.standard.halt(OUT);
                Step::Answer(Answer::Stall)
            }
            Phase::Out(Data::Drive { offset, left, flush }) if *left > 0 => {
                let bytes = (*left).min(len);
                Step::Drive { offset: *offset, bytes, write: true, flush: *flush }
            }
            Phase::Out(Data::Take(want, have)) => {
                let more = (*want - have.len().min(*want)) as u64;
                let got = match transfer.buffer.get(more) {
                    Ok(data) => data,
                    Err(e) => return Step::Answer(e.into()),
                };
                let n = got.len() as u64;
                have.extend(got);
                let all = (have.len() == *want).then(|| std::mem::take(have));
                s.moved(n);
                s.expected = s.expected.saturating_sub(len);
                if let Some(data) = all {
                    s.phase = Phase::Out(Data::None);
                    let action = self.unit.data_out(&s.block, &data);
                    return self.taken(s, action, len);
                }
                self.offered(s);
                Step::Answer(Answer::Done(len))
            }
            Phase::Out(_) => {
                s.expected = s.expected.saturating_sub(len);
                self.offered(s);
                Step::Answer(Answer::Done(len))
            }
        }
    }
    /// The parameters were looked at.
    fn taken(&self, s: &mut State, action: Action, len: u64) -> Step {
        match action {
            Action::Good => (),
            Action::Run { drive, work } => {
                s.phase = Phase::Working;
                return Step::Run { drive, work, bytes: len };
            }
            _ => s.status = FAILED,
        }
        self.offered(s);
        Step::Answer(Answer::Done(len))
    }
    /// The status follows when the host has offered all data.
    fn offered(&self, s: &mut State) {
        if s.expected == 0 {
            s.phase = Phase::Status;
        }
    }
    /// A request of the data stage has ended: what becomes of its transfer.
    fn done(&self, round: u32, bytes: u64, room: u64, write: bool, result: &io::Result<()>) -> Answer {
        let s = &mut *self.state.lock();
        if s.round != round {
            return Answer::Done(if result.is_ok() { bytes } else { 0 });
        }
        let good = self.unit.finished(&s.block, result).is_none();
        if !good {
            s.status = FAILED;
        }
        if write {
            s.expected = s.expected.saturating_sub(room);
            if good {
                s.moved(bytes);
            }
            if let Phase::Out(data) = &mut s.phase {
                match data {
                    Data::Drive { offset, left, .. } if good => {
                        (*offset, *left) = (offset.saturating_add(bytes), left.saturating_sub(bytes));
                    }
                    // The rest is taken and forgotten.
                    _ => *data = Data::None,
                }
            }
            self.offered(s);
            return Answer::Done(room);
        }
        if !good {
            s.phase = Phase::Status;
            s.standard.halt(IN);
            return Answer::Stall;
        }
        let mut end = true;
        if let Phase::In(Data::Drive { offset, left, .. }) = &mut s.phase {
            (*offset, *left) = (offset.saturating_add(bytes), left.saturating_sub(bytes));
            end = *left == 0;
        }
        self.given(s, bytes, room, end);
        Answer::Done(bytes)
    }
    /// The command's own request has ended.
    fn ran(&self, round: u32, result: &io::Result<()>) {
        {
            let s = &mut *self.state.lock();
            if s.round != round {
                return;
            }
            if self.unit.finished(&s.block, result).is_some() {
                s.status = FAILED;
            }
            // Of what the host has announced, the rest is taken and forgotten.
            s.phase = if s.expected == 0 { Phase::Status } else { Phase::Out(Data::None) };
        }
        self.wake(OUT);
        self.wake(IN);
    }
}

impl UsbStorage {
    fn drive_request(
        &self,
        transfer: Transfer,
        round: u32,
        (offset, bytes): (u64, u64),
        write: bool,
        flush: bool,
    ) -> Answer {
        let inner = &self.inner;
        let room = transfer.buffer.len();
        let segments = match transfer.buffer.segments(bytes, !write) {
            Ok(segments) => segments,
            Err(e) => return e.into(),
        };
        let operation = match write {
            true => Operation::Write { offset, segments, flush },
            false => Operation::Read { offset, segments },
        };
        match work::try_now(&inner.drive, Work::One(operation)) {
            Ok((result, segments)) => {
                guest::unpin(&segments);
                inner.done(round, bytes, room, write, &result)
            }
            Err(request) => {
                let inner = inner.clone();
                let done = move |result: io::Result<()>, segments: Vec<Segment>| {
                    guest::unpin(&segments);
                    let answer = inner.done(round, bytes, room, write, &result);
                    transfer.finish(answer);
                };
                work::submit(&self.inner.drive, request, Box::new(done));
                Answer::Pending
            }
        }
    }
}

impl UsbDevice for UsbStorage {
    fn name(&self) -> &str {
        self.name
    }
    fn speeds(&self) -> &[Speed] {
        &[Speed::Full, Speed::High, Speed::Super]
    }
    fn attach(&self, wake: Wake) {
        // Once, when it is put at its port.
        let _ = self.inner.wake.set(wake);
    }
    fn reset(&self, speed: Speed) {
        {
            let s = &mut *self.inner.state.lock();
            *s = State { round: s.round.wrapping_add(1), ..State::new(speed) };
        }
        self.inner.unit.reset();
    }
    fn control(&self, setup: &Setup, data: &mut Vec<u8>) -> Result<(), Stall> {
        let s = &mut *self.inner.state.lock();
        match s.standard.request(&self.inner.descriptors, setup, data)? {
            Outcome::Configured(_) => s.restart(),
            Outcome::Cleared(endpoint) if matches!(s.phase, Phase::Broken) => s.standard.halt(endpoint),
            Outcome::Other => match (setup.kind, setup.request, setup.value) {
                // Get Max LUN.
                (0xa1, 0xfe, 0) => *data = vec![0; usize::from(setup.length).min(1)],
                // Bulk-Only Mass Storage Reset: the halts stay (3.1).
                (0x21, 0xff, 0) => s.restart(),
                _ => return Err(Stall),
            },
            Outcome::Answered | Outcome::Cleared(_) => {}
        }
        Ok(())
    }
    fn transfer(&self, transfer: Transfer) -> Answer {
        let inner = &self.inner;
        let (step, round) = {
            let s = &mut *inner.state.lock();
            if s.standard.configuration == 0 {
                return Answer::Silent;
            }
            if s.standard.halted(transfer.endpoint) {
                return Answer::Stall;
            }
            let step = match transfer.endpoint {
                IN => inner.input(s, &transfer),
                OUT => inner.output(s, &transfer),
                _ => Step::Answer(Answer::Stall),
            };
            (step, s.round)
        };
        match step {
            Step::Answer(answer) => answer,
            Step::Drive { offset, bytes, write, flush } => {
                self.drive_request(transfer, round, (offset, bytes), write, flush)
            }
            Step::Run { drive, work, bytes } => {
                let inner = inner.clone();
                let done = move |result: io::Result<()>, _: Vec<Segment>| inner.ran(round, &result);
                work::submit(&drive, work, Box::new(done));
                Answer::Done(bytes)
            }
        }
    }
    fn quiesce(&self) {
        self.inner.drive.drain();
    }
    fn save(&self) -> Vec<u8> {
        let state = self.inner.state.lock().clone();
        // Encoding into a vector does not fail.
        minicbor::to_vec((state, self.inner.unit.save())).unwrap_or_default()
    }
    fn load(&self, state: &[u8]) -> Result<(), LoadError> {
        let (state, unit): (State, Vec<u8>) = minicbor::decode(state).map_err(|e| LoadError::Damaged(e.to_string()))?;
        let range = match &state.phase {
            Phase::In(data) | Phase::Out(data) => match data {
                Data::Drive { offset, left, .. } => offset.checked_add(*left),
                Data::Take(want, have) => (*want <= MOST_PARAMETERS && have.len() <= *want).then_some(0),
                Data::Bytes(data, gone) => (*gone <= data.len()).then_some(0),
                Data::None => Some(0),
            },
            _ => Some(0),
        };
        if range.is_none_or(|end| end > self.inner.drive.capacity()) {
            return Err(LoadError::Mismatch(format!("{}: a transfer is out of range", self.name)));
        }
        self.inner.unit.load(&unit)?;
        *self.inner.state.lock() = state;
        Ok(())
    }
}
