//! The client interface of Open Firmware (IEEE 1275 section 6) without Open Firmware: what a kernel that is started directly
//! needs of it (`x-vof=on`).

mod tree;

use super::memory::GuestRam;
use minicbor::{Decode, Encode};
use rhea_firmware::FdtNode;
use std::collections::BTreeMap;
use tree::Packages;

/// The code at the entry: moves the argument to R4, puts the number of the hypercall into R3 and calls.
pub const ENTRY: [u32; 5] = [
    0x7c64_1b78, // mr   r4, r3
    0x3c60_0000, // lis  r3, 0
    0x6063_f005, // ori  r3, r3, 0xf005
    0x4400_0022, // sc   1
    0x4e80_0020, // blr
];
/// The number of that hypercall.
pub const HCALL: u64 = 0xf005;
/// Failure of a service.
const FAIL: u32 = u32::MAX;
/// Arguments, and results, of a call at most.
const MOST: usize = 10;
/// Properties, paths and strings are no longer than this.
const MAX_TEXT: u64 = 1024;
const MAX_PROPERTY: u32 = 1 << 20;
const MAX_INSTANCES: usize = 64;
const MAX_CLAIMS: usize = 4096;

/// What services need of the machine.
pub trait Machine {
    fn ram(&self) -> &GuestRam;
    /// The first memory block ends here: claims are below.
    fn rma(&self) -> u64;
    fn console_write(&self, data: &[u8]);
    fn console_read(&self) -> Option<u8>;
    fn milliseconds(&self) -> u32;
    /// Client-architecture support with the vectors at `address`: gives the tree as it is afterwards.
    ///
    /// # Errors
    /// The guest cannot be served.
    fn negotiate(&self, address: u64) -> Result<FdtNode, ()>;
    /// Puts the code of RTAS there; false if there is no RAM.
    fn instantiate_rtas(&self, address: u64) -> bool;
}

/// What the caller does after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Continue,
    /// The client has ended.
    Exit,
    /// The machine starts anew.
    Boot,
}

/// What an instance handle stands for.
#[derive(Clone, Encode, Decode)]
struct Instance {
    #[n(0)]
    package: u32,
    #[n(1)]
    path: String,
    #[n(2)]
    console: bool,
}

/// The state of the interface.
#[derive(Clone, Default, Encode, Decode)]
pub struct Client {
    #[n(0)]
    packages: Packages,
    #[n(1)]
    instances: BTreeMap<u32, Instance>,
    #[n(2)]
    next: u32,
    /// Start and end of memory that is taken.
    #[n(3)]
    claims: Vec<(u64, u64)>,
}

/// The first instance handle.
const FIRST_INSTANCE: u32 = 0x100;

impl Client {
    /// An interface over a tree; `taken`: memory in use from the start. `stdout`: the path of the console.
    #[must_use]
    pub fn new(tree: &FdtNode, taken: &[(u64, u64)], stdout: Option<&str>) -> Self {
        let mut client = Self {
            next: FIRST_INSTANCE,
            claims: taken.iter().filter(|(s, e)| s < e).copied().collect(),
            ..Self::default()
        };
        client.packages.load(tree);
        if let Some(handle) = stdout.and_then(|path| client.open(path)) {
            client.name_console(handle);
        }
        client
    }
    /// Is it one that there can be? For saved state.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.packages.is_sound() && self.instances.len() <= MAX_INSTANCES && self.claims.len() <= MAX_CLAIMS + 16
    }
    fn name_console(&mut self, handle: u32) {
        if let Some(chosen) = self.packages.find("/chosen") {
            for name in ["stdout", "stdin"] {
                self.packages.set(chosen, name, handle.to_be_bytes().to_vec());
            }
        }
    }
    fn open(&mut self, path: &str) -> Option<u32> {
        if self.instances.len() >= MAX_INSTANCES {
            return None;
        }
        let package = self.packages.find(path)?;
        let kind = self.packages.get(package)?.property("device_type");
        let console = kind == Some(b"serial\0");
        self.next += 1;
        self.instances.insert(self.next, Instance { package, path: path.to_owned(), console });
        Some(self.next)
    }

    /// Memory from `start` on is free.
    fn free(&self, start: u64, end: u64) -> bool {
        self.claims.iter().all(|(s, e)| end <= *s || *e <= start)
    }
    /// claim: exactly there, or with an alignment wherever there is room.
    fn claim(&mut self, rma: u64, base: u32, size: u32, align: u32) -> Option<u32> {
        let (size, rma) = (u64::from(size), rma.min(1 << 32));
        if size == 0 || self.claims.len() >= MAX_CLAIMS {
            return None;
        }
        let start = if align == 0 {
            let start = u64::from(base);
            (start + size <= rma && self.free(start, start + size)).then_some(start)?
        } else {
            let align = u64::from(align).checked_next_power_of_two()?;
            // Candidates: the lowest address, and where each claim ends.
            let mut starts: Vec<u64> = self.claims.iter().map(|(_, e)| e.next_multiple_of(align)).collect();
            starts.push(align);
            starts.sort_unstable();
            starts.into_iter().find(|s| s + size <= rma && self.free(*s, s + size))?
        };
        self.claims.push((start, start + size));
        Some(start as u32)
    }
    fn release(&mut self, base: u32, size: u32) {
        let range = (u64::from(base), u64::from(base) + u64::from(size));
        self.claims.retain(|c| *c != range);
    }

    /// A call; its arguments are at `address`. `Err`: they do not lie in RAM.
    ///
    /// # Errors
    /// `()`: R3 of the caller becomes -1.
    pub fn call(&mut self, machine: &dyn Machine, address: u64) -> Result<After, ()> {
        let ram = machine.ram();
        let word = |n: usize| ram.u32(address.wrapping_add(4 * n as u64)).map_err(|_| ());
        let (name, nargs, nret) = (word(0)?, word(1)? as usize, word(2)? as usize);
        let name = ram.text(name.into(), 64).map_err(|_| ())?;
        if nargs > MOST || nret > MOST || !ram.has(address, 12 + 4 * (nargs + nret) as u64) {
            return Err(());
        }
        let mut args = [0; MOST];
        for (n, arg) in args.iter_mut().enumerate().take(nargs) {
            *arg = word(3 + n)?;
        }
        let mut results = [0; MOST];
        let after = self.service(machine, &name, &args, nargs, &mut results);
        for (n, result) in results.iter().enumerate().take(nret) {
            ram.set_u32(address.wrapping_add((12 + 4 * (nargs + n)) as u64), *result).map_err(|_| ())?;
        }
        after
    }

    /// One service. `Err(())`: there is none of that name, or it has not worked and its name is not to be tried again.
    fn service(
        &mut self,
        machine: &dyn Machine,
        name: &str,
        a: &[u32; MOST],
        nargs: usize,
        r: &mut [u32; MOST],
    ) -> Result<After, ()> {
        let ram = machine.ram();
        let text = |at: u32| ram.text(at.into(), MAX_TEXT).ok();
        /// Copies as much as there is room for; the result is the whole length.
        fn put(ram: &GuestRam, at: u32, room: u32, data: &[u8]) -> u32 {
            let n = data.len().min(room as usize);
            if ram.write(at.into(), &data[..n]).is_ok() { data.len() as u32 } else { FAIL }
        }
        r[0] = match name {
            "finddevice" => text(a[0]).and_then(|path| self.packages.find(&path)).unwrap_or(FAIL),
            "peer" => self.packages.peer(a[0]).unwrap_or(0),
            "child" => self.packages.get(a[0]).and_then(|n| n.children.first().copied()).unwrap_or(0),
            "parent" => self.packages.get(a[0]).and_then(|n| n.parent).unwrap_or(0),
            "getproplen" => {
                let value = text(a[1]).and_then(|name| self.packages.get(a[0])?.property(&name).map(<[u8]>::len));
                value.map_or(FAIL, |n| n as u32)
            }
            "getprop" => match text(a[1]).and_then(|name| self.packages.get(a[0])?.property(&name)) {
                Some(value) => put(ram, a[2], a[3], value),
                None => FAIL,
            },
            "nextprop" => self.next_property(ram, a).unwrap_or(FAIL),
            "setprop" => self.set_property(ram, a).unwrap_or(FAIL),
            "canon" => {
                let path = text(a[0]).and_then(|p| self.packages.path(self.packages.find(&p)?));
                path.map_or(FAIL, |p| put(ram, a[1], a[2], p.as_bytes()))
            }
            "package-to-path" => self.packages.path(a[0]).map_or(FAIL, |p| put(ram, a[1], a[2], p.as_bytes())),
            "instance-to-path" => self.instances.get(&a[0]).map_or(FAIL, |i| put(ram, a[1], a[2], i.path.as_bytes())),
            "instance-to-package" => self.instances.get(&a[0]).map_or(FAIL, |i| i.package),
            "open" => text(a[0]).and_then(|path| self.open(&path)).unwrap_or(0),
            "close" => {
                self.instances.remove(&a[0]);
                0
            }
            "write" => match self.instances.get(&a[0]).filter(|i| i.console) {
                Some(_) => match ram.bytes(a[1].into(), a[2].into()) {
                    Ok(data) => {
                        machine.console_write(&data);
                        a[2]
                    }
                    Err(_) => FAIL,
                },
                None => FAIL,
            },
            "read" => match self.instances.get(&a[0]).filter(|i| i.console) {
                Some(_) => {
                    let room = a[2].min(4096) as usize;
                    let data: Vec<u8> = std::iter::from_fn(|| machine.console_read()).take(room).collect();
                    // Nothing there yet.
                    const NONE: u32 = -2i32 as u32;
                    if data.is_empty() { NONE } else { put(ram, a[1], a[2], &data) }
                }
                None => FAIL,
            },
            // A console has no position.
            "seek" => FAIL,
            "claim" => self.claim(machine.rma(), a[0], a[1], a[2]).unwrap_or(FAIL),
            "release" => {
                self.release(a[0], a[1]);
                0
            }
            "call-method" => return self.method(machine, a, nargs, r),
            "milliseconds" => machine.milliseconds(),
            "quiesce" => 0,
            "test" => text(a[0]).map_or(FAIL, |n| if SERVICES.contains(&n.as_str()) { 0 } else { FAIL }),
            "test-method" => match (self.packages.path(a[0]).as_deref(), text(a[1]).as_deref()) {
                (Some("/"), Some("ibm,client-architecture-support")) | (Some("/rtas"), Some("instantiate-rtas")) => 0,
                _ => FAIL,
            },
            "exit" | "enter" => return Ok(After::Exit),
            "boot" => return Ok(After::Boot),
            // "interpret" too: there is no Forth.
            _ => {
                r[0] = FAIL;
                return Err(());
            }
        };
        Ok(After::Continue)
    }

    /// nextprop: the property after the one named; of "" the first. 1: there is one, 0: there is none.
    fn next_property(&self, ram: &GuestRam, a: &[u32; MOST]) -> Option<u32> {
        let previous = if a[1] == 0 { String::new() } else { ram.text(a[1].into(), MAX_TEXT).ok()? };
        let properties = &self.packages.get(a[0])?.properties;
        let next = if previous.is_empty() {
            properties.first()
        } else {
            let at = properties.iter().position(|(n, _)| *n == previous)?;
            properties.get(at + 1)
        };
        let name = next.map_or("", |(n, _)| n.as_str());
        ram.write(a[2].into(), &[name.as_bytes(), &[0]].concat()).ok()?;
        Some(u32::from(next.is_some()))
    }

    /// setprop: node, name, value, length.
    fn set_property(&mut self, ram: &GuestRam, a: &[u32; MOST]) -> Option<u32> {
        let name = ram.text(a[1].into(), MAX_TEXT).ok().filter(|n| !n.is_empty() && n.len() < 64 && *n != "name")?;
        if a[3] > MAX_PROPERTY {
            return None;
        }
        let value = ram.bytes(a[2].into(), a[3].into()).ok()?;
        self.packages.set(a[0], &name, value).then_some(a[3])
    }

    /// call-method: name, instance, arguments. The first result is the catch result: 0 is success.
    fn method(
        &mut self,
        machine: &dyn Machine,
        a: &[u32; MOST],
        nargs: usize,
        r: &mut [u32; MOST],
    ) -> Result<After, ()> {
        let name = machine.ram().text(a[0].into(), 64).unwrap_or_default();
        let path = self.instances.get(&a[1]).and_then(|i| self.packages.path(i.package));
        r[0] = FAIL;
        match (path.as_deref(), name.as_str()) {
            (Some("/"), "ibm,client-architecture-support") if nargs >= 3 => {
                if let Ok(tree) = machine.negotiate(a[2].into()) {
                    self.reload(&tree);
                    (r[0], r[1]) = (0, 0);
                } else {
                    // The method itself works; its answer is that the guest cannot be served.
                    (r[0], r[1]) = (0, FAIL);
                }
            }
            (Some("/rtas"), "instantiate-rtas") if nargs >= 3 && machine.instantiate_rtas(a[2].into()) => {
                (r[0], r[1]) = (0, a[2]);
            }
            _ => {}
        }
        Ok(After::Continue)
    }

    /// Another tree takes the place of what there was; what else was in `/chosen` stays.
    fn reload(&mut self, tree: &FdtNode) {
        let chosen = |packages: &Packages| packages.find("/chosen");
        let old = chosen(&self.packages).and_then(|n| self.packages.get(n)).map(|n| n.properties.clone());
        self.packages.load(tree);
        let Some(new) = chosen(&self.packages) else { return };
        for (name, value) in old.into_iter().flatten() {
            if self.packages.get(new).is_some_and(|n| n.property(&name).is_none()) {
                self.packages.set(new, &name, value);
            }
        }
    }
    /// Handle of the root, for tests.
    #[cfg(test)]
    fn root(&self) -> u32 {
        self.packages.root()
    }
}

/// What "test" knows.
const SERVICES: &[&str] = &[
    "test",
    "test-method",
    "finddevice",
    "peer",
    "child",
    "parent",
    "getproplen",
    "getprop",
    "nextprop",
    "setprop",
    "canon",
    "package-to-path",
    "instance-to-path",
    "instance-to-package",
    "open",
    "close",
    "read",
    "write",
    "claim",
    "release",
    "call-method",
    "milliseconds",
    "quiesce",
    "exit",
    "enter",
    "boot",
];

#[cfg(test)]
mod tests;
