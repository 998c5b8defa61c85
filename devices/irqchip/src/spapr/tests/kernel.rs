//! Controllers in the kernel's place: what they are told, and what goes from one to the next.

use super::*;
use rhea_accel::spapr::{KernelIrqchip, XiveQueue, XiveTarget};
use std::io::Result;

/// Has the modes it is told, and notes what it is asked for.
struct Kernel {
    modes: Vec<Mode>,
    calls: Mutex<Vec<String>>,
    pending: Vec<u32>,
}

impl Kernel {
    fn new(modes: &[Mode], pending: &[u32]) -> Arc<Self> {
        Arc::new(Self { modes: modes.to_vec(), calls: Mutex::default(), pending: pending.to_vec() })
    }
    fn note(&self, text: String) {
        self.calls.lock().push(text);
    }
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }
}

impl KernelIrqchip for Kernel {
    fn open(&self, mode: Mode, sources: &[(u32, bool)]) -> bool {
        self.note(format!("open {mode:?} {sources:x?}"));
        self.modes.contains(&mode)
    }
    fn close(&self, carry: bool) -> Vec<u32> {
        self.note(if carry { "close, carry" } else { "close" }.to_owned());
        self.pending.clone()
    }
    fn claim(&self, irq: u32, level: bool) -> Result<()> {
        self.note(format!("claim {irq:x} {level}"));
        Ok(())
    }
    fn free(&self, irq: u32) {
        self.note(format!("free {irq:x}"));
    }
    fn set_level(&self, irq: u32, level: bool) -> bool {
        self.note(format!("level {irq:x} {level}"));
        true
    }
    fn reset_server(&self, server: u32) {
        self.note(format!("reset_server {server}"));
    }
    fn set_target(&self, irq: u32, t: XiveTarget) -> Result<()> {
        self.note(format!("target {irq:x} {} {} {} {:x}", t.masked, t.server, t.priority, t.data));
        Ok(())
    }
    fn set_queue(&self, server: u32, priority: u8, q: XiveQueue) -> Result<()> {
        self.note(format!("queue {server} {priority} {} {:x}", q.shift, q.page));
        Ok(())
    }
    fn queue(&self, _: u32, _: u8) -> Result<XiveQueue> {
        Ok(XiveQueue { shift: 16, page: 0x1_0000, toggle: 0, index: 5 })
    }
    fn esb(&self, irq: u32, offset: u64, store: bool) -> u64 {
        self.note(format!("esb {irq:x} {offset:x} {store}"));
        3
    }
    fn sync(&self, irq: u32) -> Result<()> {
        self.note(format!("sync {irq:x}"));
        Ok(())
    }
    fn reset(&self) -> Result<()> {
        Err(std::io::ErrorKind::Other.into())
    }
}

#[test]
fn from_kernel_to_kernel_and_back() {
    let kernel = Kernel::new(&[Mode::Xics, Mode::Xive], &[0x1300]);
    let m = Machine::with(IcMode::Dual, &[0, 1], Some(kernel.clone()));
    assert_eq!(kernel.take(), ["open Xics []"]);
    let line = m.irq.claim(0x1200, true).unwrap();
    let message = m.irq.allocate_messages(1, 1).unwrap();
    assert_eq!((message, kernel.take()), (0x1300, vec!["claim 1200 true".to_owned(), "claim 1300 false".to_owned()]));
    line.raise();
    m.irq.pulse(0x1300);
    assert_eq!(kernel.take(), ["level 1200 true", "level 1300 true"]);
    // Its calls do not come here; if one does, it has no answer.
    assert_eq!(m.call(0, h::H_XIRR, &[]).0, Status::HARDWARE.0);
    // The change: what was pending, then the level.
    assert!(m.irq.activate(Mode::Xive));
    let expected = [
        "close, carry",
        "open Xive [(0, false), (1, false), (1200, true), (1300, false)]",
        "level 1300 true",
        "level 1200 true",
    ];
    assert_eq!(kernel.take(), expected);
    assert!(m.irq.describe().contains("XIVE, in the kernel"));
    // The machine's own pages are not there.
    assert!(m.tima_read(0, 0x10, 8).is_err());
    // A reset: nothing is carried but levels, as they are when all devices were reset.
    rhea_device::Device::reset(&*m.irq);
    assert!(kernel.take().is_empty());
    m.irq.restart();
    assert_eq!(kernel.take(), ["close", "open Xics [(1200, true), (1300, false)]", "level 1200 true"]);
    m.irq.restart();
    assert_eq!(kernel.take(), ["close", "open Xics [(1200, true), (1300, false)]", "level 1200 true"]);
    m.irq.reset_server(1);
    m.irq.free_messages(0x1300, 1);
    assert_eq!(kernel.take(), ["reset_server 1", "free 1300"]);
}

#[test]
fn the_kernel_is_told_what_the_guest_configures() {
    let kernel = Kernel::new(&[Mode::Xive], &[]);
    let m = Machine::with(IcMode::Xive, &[0, 1], Some(kernel.clone()));
    let line = m.irq.claim(0x1200, true).unwrap();
    kernel.take();
    // A level is ended by a hypercall, so that it is seen whether it is still up.
    assert_eq!(m.ok(0, h::H_INT_GET_SOURCE_INFO, &[0, 0x1200])[0] & 0xc, 0xc);
    m.ok(0, h::H_INT_SET_QUEUE_CONFIG, &[1, 1, 6, 0x1_0000, 16]);
    m.ok(0, h::H_INT_SET_SOURCE_CONFIG, &[2, 0x1200, 1, 6, 0x55]);
    assert_eq!(m.call(0, h::H_INT_SET_SOURCE_CONFIG, &[0, 0x1200, 9, 6, 0]).0, Status::P3.0);
    assert_eq!(kernel.take(), ["queue 1 6 16 10000", "target 1200 false 1 6 55"]);
    assert_eq!(m.ok(0, h::H_INT_GET_QUEUE_CONFIG, &[1, 1, 6])[3], 5);
    line.raise();
    kernel.take();
    assert_eq!(m.ok(0, h::H_INT_ESB, &[0, 0x1200, 0])[0], 0);
    assert_eq!(kernel.take(), ["esb 1200 c00 false", "level 1200 true"]);
    // So it is when the source begins to be used.
    assert_eq!(m.ok(0, h::H_INT_ESB, &[0, 0x1200, 0xc00])[0], 3);
    assert_eq!(kernel.take(), ["esb 1200 c00 false", "level 1200 true"]);
    line.lower();
    kernel.take();
    m.ok(0, h::H_INT_ESB, &[0, 0x1200, 0]);
    assert_eq!(kernel.take(), ["esb 1200 c00 false"]);
    assert_eq!(m.ok(0, h::H_INT_ESB, &[0, 1, 0x800])[0], 3);
    m.ok(0, h::H_INT_SYNC, &[0, 0x1200]);
    assert_eq!(kernel.take(), ["esb 1 800 false", "sync 1200"]);
    for (number, args, status) in [
        (h::H_INT_ESB, [0, 0x1201, 0], Status::P2),
        (h::H_INT_ESB, [0, 0x1200, 0x1_0000], Status::P3),
        (h::H_INT_ESB, [2, 0x1200, 0], Status::PARAMETER),
        (h::H_INT_SYNC, [0, u64::MAX, 0], Status::P2),
        // The kernel refuses.
        (h::H_INT_RESET, [0, 0, 0], Status::HARDWARE),
    ] {
        assert_eq!(m.call(0, number, &args).0, status.0, "{number:#x}");
    }
}

#[test]
fn without_one_of_them_the_machine_has_its_own() {
    let kernel = Kernel::new(&[Mode::Xics], &[]);
    let m = Machine::with(IcMode::Dual, &[0], Some(kernel.clone()));
    assert!(m.irq.activate(Mode::Xive));
    m.start(0);
    assert!(m.irq.describe().starts_with("active: XIVE\n"));
    assert!(m.tima_read(0, 0x10, 8).is_ok());
    assert!(m.irq.activate(Mode::Xics));
    assert!(m.irq.describe().contains("XICS, in the kernel"));
}
