//! A driver for the NVMe controller.

use super::{BAR, Machine, RAM, wait};
use rhea_block::Drive;
use rhea_device::Log;
use rhea_pci::{Devfn, PciFunction};
use rhea_storage::{Nvme, NvmeOptions};
use std::sync::{Arc, Mutex};

pub const CC: u64 = 0x14;
pub const CSTS: u64 = 0x1c;
pub const DATA: u64 = RAM + 0x80_0000;
const MSIX: u64 = 0xe100_0000;
/// Queues of 64 entries: submission and completion pages for each number, lists.
const QUEUES: u64 = RAM + 0x10_0000;
const LISTS: u64 = RAM + 0x40_0000;
pub const ENTRIES: u32 = 16;

pub struct Queue {
    pub id: u64,
    pub tail: u32,
    pub head: u32,
    pub phase: u32,
}

impl Queue {
    pub fn new(id: u64) -> Mutex<Self> {
        Mutex::new(Self { id, tail: 0, head: 0, phase: 1 })
    }
}

pub struct Host {
    pub m: Machine,
    pub nvme: Arc<Nvme>,
    pub queues: Vec<Mutex<Queue>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub cid: u16,
    /// Type << 8 | code.
    pub status: u16,
    pub result: u32,
}

pub fn sq_at(id: u64) -> u64 {
    QUEUES + id * 0x2000
}
pub fn cq_at(id: u64) -> u64 {
    QUEUES + id * 0x2000 + 0x1000
}

impl Host {
    pub fn new(drive: Arc<Drive>, options: NvmeOptions) -> Self {
        let m = Machine::new();
        let nvme = Nvme::new(&m.bus.slot(Devfn::new(4, 0)), drive, options, &Log::off());
        m.bus.attach(nvme.clone()).unwrap();
        nvme.config_write(0x10, 4, BAR as u32);
        nvme.config_write(0x20, 4, MSIX as u32);
        nvme.config_write(4, 2, 6);
        let host = Self { m, nvme, queues: (0..8).map(Queue::new).collect() };
        host.enable();
        host
    }
    pub fn read(&self, at: u64) -> u32 {
        self.m.read(BAR + at)
    }
    pub fn write(&self, at: u64, value: u32) {
        self.m.write(BAR + at, value);
    }
    pub fn enable(&self) {
        for q in &self.queues {
            let id = q.lock().unwrap().id;
            *q.lock().unwrap() = Queue::new(id).into_inner().unwrap();
            self.m.put(sq_at(id), &[0; 0x2000]);
        }
        self.write(0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.write(0x28, sq_at(0) as u32);
        self.write(0x2c, 0);
        self.write(0x30, cq_at(0) as u32);
        self.write(0x34, 0);
        self.write(CC, 4 << 20 | 6 << 16 | 1);
        wait("ready", || self.read(CSTS) & 1 == 1);
    }
    pub fn disable(&self) {
        self.write(CC, 4 << 20 | 6 << 16);
        wait("not ready", || self.read(CSTS) & 1 == 0);
    }
    pub fn use_msix(&self) {
        let cap = super::find_capability(&*self.nvme, 0x11);
        for n in 0..8 {
            self.m.write(MSIX + n * 16, 0xfee0_0000);
            self.m.write(MSIX + n * 16 + 8, n as u32);
            self.m.write(MSIX + n * 16 + 12, 0);
        }
        self.nvme.config_write(cap + 2, 2, 0x8000);
    }
    /// Puts commands into a queue and rings its bell once.
    pub fn submit(&self, q: &mut Queue, commands: &[[u32; 16]]) {
        for c in commands {
            let bytes: Vec<u8> = c.iter().flat_map(|w| w.to_le_bytes()).collect();
            self.m.put(sq_at(q.id) + u64::from(q.tail) * 64, &bytes);
            q.tail = (q.tail + 1) % ENTRIES;
        }
        self.write(0x1000 + q.id * 8, q.tail);
    }
    pub fn poll(&self, q: &mut Queue) -> Option<Done> {
        let at = cq_at(q.id) + u64::from(q.head) * 16;
        let last = self.m.get32(at + 12);
        if last >> 16 & 1 != q.phase {
            return None;
        }
        let (result, sq) = (self.m.get32(at), self.m.get32(at + 8));
        assert_eq!(u64::from(sq >> 16), q.id);
        q.head = (q.head + 1) % ENTRIES;
        if q.head == 0 {
            q.phase ^= 1;
        }
        self.write(0x1004 + q.id * 8, q.head);
        Some(Done { cid: last as u16, status: (last >> 17) as u16 & 0x7ff, result })
    }
    /// Runs one command.
    pub fn run(&self, id: usize, mut c: [u32; 16]) -> Result<u32, u16> {
        let q = &mut *self.queues[id].lock().unwrap();
        c[0] |= 0x77 << 16;
        self.submit(q, &[c]);
        let mut done = None;
        wait("completion", || {
            done = self.poll(q);
            done.is_some()
        });
        let done = done.unwrap();
        assert_eq!(done.cid, 0x77);
        if done.status == 0 { Ok(done.result) } else { Err(done.status) }
    }
    pub fn admin(&self, opcode: u32, words: &[(usize, u32)]) -> Result<u32, u16> {
        let mut c = [0; 16];
        c[0] = opcode;
        c[6] = DATA as u32;
        for (n, w) in words {
            c[*n] = *w;
        }
        self.run(0, c)
    }
    /// Creates I/O queue pair `id` with interrupt vector `id`.
    pub fn create(&self, id: u32) {
        let size = (ENTRIES - 1) << 16 | id;
        self.admin(5, &[(6, cq_at(id.into()) as u32), (10, size), (11, id << 16 | 3)]).unwrap();
        self.admin(1, &[(6, sq_at(id.into()) as u32), (10, size), (11, id << 16 | 1)]).unwrap();
    }
    /// A transfer command with PRP entries for `at`, `len`; `list` numbers the place of the list.
    pub fn transfer(&self, opcode: u32, first: u64, blocks: u32, at: u64, len: u64, list: u64) -> [u32; 16] {
        let mut c = [0; 16];
        (c[0], c[1], c[10], c[11], c[12]) = (opcode, 1, first as u32, (first >> 32) as u32, blocks - 1);
        let mut pages: Vec<u64> = vec![];
        let mut page = (at & !0xfff) + 0x1000;
        while page < at + len {
            pages.push(page);
            page += 0x1000;
        }
        c[6] = at as u32;
        match pages.as_slice() {
            [] => (),
            [one] => c[8] = *one as u32,
            many => {
                let place = LISTS + list * 0x1000;
                for (n, p) in many.iter().enumerate() {
                    self.m.put(place + n as u64 * 8, &p.to_le_bytes());
                }
                c[8] = place as u32;
            }
        }
        c
    }
}
