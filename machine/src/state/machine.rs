//! The machine as sections: what is saved, in which order it is taken over, and what must be alike.

use super::multifd::{Plan, Receivers};
use super::postcopy::{PageSet, Token};
use super::ram;
use super::stream::{Kind, Reader, Result, Section, StateError, Writer};
use crate::machine::{Machine, RunState};
use minicbor::{Decode, Encode};
use rhea_block::Operation;
use rhea_device::Saved;
use rhea_device::state::field_error;
use rhea_memory::PAGE_SIZE;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;

/// Devices that are not at rest after this time wait for something of the host that does not come.
const PATIENCE: Duration = Duration::from_secs(20);

const VERSION: u32 = 1;

/// How the machine is configured.
#[derive(Debug, Encode, Decode)]
struct Alike {
    /// Options and their values.
    #[n(0)]
    options: Vec<(String, String)>,
    /// Names and bytes of RAM.
    #[n(1)]
    memory: Vec<(String, u64)>,
    #[n(2)]
    devices: Vec<String>,
    /// The other end is to say whether it has taken the machine over.
    #[n(3)]
    asks: bool,
    /// Pages come by channels.
    #[n(4)]
    multifd: Option<Plan>,
    /// The machine may come before all of its memory is there.
    #[n(5)]
    postcopy: Option<Token>,
}

/// How a machine is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// An answer is waited for.
    pub asks: bool,
    /// Channels that bring the pages.
    pub multifd: Option<Plan>,
    pub postcopy: Option<Token>,
}

/// Time and life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Life {
    /// The virtual clock.
    #[n(0)]
    pub now_ns: u64,
    /// The guest ran, or could have.
    #[n(1)]
    pub running: bool,
    /// The guest has suspended the machine to RAM.
    #[n(2)]
    pub suspended: bool,
}

/// What was read of a saved machine beside its RAM.
pub struct Rest {
    pub life: Life,
    /// Pages that come behind it.
    pub(super) missing: Option<PageSet>,
    /// By what a move in post-copy is known, if it may become one.
    pub(super) token: Option<Token>,
    /// Devices and CPUs by name.
    sections: BTreeMap<String, Section>,
}

fn cpu_name(index: u32) -> String {
    format!("cpu/{index}")
}

/// What a content is, or the field in which it is none.
fn content<T: for<'b> Decode<'b, ()>>(section: &Section) -> Result<T> {
    if section.version != VERSION {
        return Err(section.error(format!("version {} is newer than {VERSION}", section.version)));
    }
    minicbor::decode(&section.data).map_err(|e| section.error(field_error(&section.data, &e)))
}

fn bytes<T: Encode<()>>(value: &T) -> Vec<u8> {
    // Encoding into a Vec does not fail.
    minicbor::to_vec(value).unwrap_or_default()
}

fn state_of(section: Section) -> Saved {
    Saved::Bytes { version: section.version, data: section.data }
}

impl Machine {
    /// Why the machine can neither be saved nor moved.
    #[must_use]
    pub fn state_blockers(&self) -> Vec<String> {
        let devices = self.devices();
        let of_devices = devices.iter().filter_map(|d| d.blocker().map(|why| format!("device '{}': {why}", d.name())));
        of_devices.collect()
    }
    /// # Errors
    /// [`StateError::Blocked`].
    pub fn check_blockers(&self) -> Result<()> {
        if self.cpus().is_empty() {
            return Err(StateError::Other("the machine has no processors".to_owned()));
        }
        self.state_blockers().into_iter().next().map_or(Ok(()), |b| Err(StateError::Blocked(b)))
    }

    fn alike(&self, manner: Manner) -> Alike {
        let Manner { asks, multifd, postcopy } = manner;
        Alike {
            options: self.configured().to_vec(),
            memory: self.memory_blocks().iter().map(|b| (b.name().to_owned(), b.len())).collect(),
            devices: self.devices().iter().map(|d| d.name().to_owned()).collect(),
            asks,
            multifd,
            postcopy,
        }
    }
    /// The first difference between what was saved and this machine.
    fn compare(&self, saved: &Alike) -> Result<()> {
        let differs =
            |what: &str, was: &str, is: &str| Err(StateError::Differs(what.to_owned(), was.to_owned(), is.to_owned()));
        let here = self.alike(Manner::default());
        let text = |v: Option<&(String, String)>| v.map_or("nothing", |(_, v)| v.as_str()).to_owned();
        for (option, is) in &here.options {
            let was = text(saved.options.iter().find(|(o, _)| o == option));
            if was != *is {
                return differs(option, &was, is);
            }
        }
        for (name, is) in &here.memory {
            let was = saved.memory.iter().find(|(n, _)| n == name).map_or(0, |(_, len)| *len);
            if was != *is {
                return differs(&format!("memory '{name}'"), &format!("{was} bytes"), &format!("{is} bytes"));
            }
        }
        if let Some((name, len)) = saved.memory.iter().find(|(n, _)| !here.memory.iter().any(|(m, _)| m == n)) {
            return differs(&format!("memory '{name}'"), &format!("{len} bytes"), "none");
        }
        if let Some(name) = saved.devices.iter().find(|n| !here.devices.contains(n)) {
            return differs(&format!("device '{name}'"), "it", "has not");
        }
        if let Some(name) = here.devices.iter().find(|n| !saved.devices.contains(n)) {
            return differs(&format!("device '{name}'"), "no such device", "has");
        }
        Ok(())
    }

    // ---- rest ----

    /// Runs `f` with all devices at rest and what they wrote to disks flushed; the machine is stopped.
    ///
    /// # Errors
    /// A device that does not come to rest, a disk that cannot be flushed, `f`'s.
    pub fn at_rest<R>(&self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        self.rest()?;
        let result = f();
        self.unrest();
        result
    }
    /// Brings all devices to rest and flushes disks; [`Self::unrest`] follows, unless there is an error.
    pub(super) fn rest(&self) -> Result<()> {
        let (resting, rests) = crossbeam_channel::bounded(0);
        let (all, clock) = (self.devices(), self.clock().clone());
        let wait = move || {
            // A timer that fires changes its device.
            clock.settle();
            all.iter().for_each(|d| d.quiesce());
            if resting.send(()).is_err() {
                // Nobody waits any longer.
                all.iter().for_each(|d| d.resume());
            }
        };
        std::thread::Builder::new().name("rhea-quiesce".to_owned()).spawn(wait)?;
        if rests.recv_timeout(PATIENCE).is_err() {
            return Err(StateError::Other("a device does not come to rest: the host does not answer".to_owned()));
        }
        self.set_resting();
        self.flush_drives().inspect_err(|_| self.unrest())
    }
    fn flush_drives(&self) -> Result<()> {
        for drive in self.inventory().drives().iter().filter(|d| !d.readonly()) {
            let fail = |e| StateError::Other(format!("drive '{}' cannot be flushed: {e}", drive.id()));
            drive.run(&mut Operation::Flush).map_err(fail)?;
        }
        Ok(())
    }

    // ---- out ----

    /// How the machine is configured.
    pub(super) fn write_head<W: Write>(&self, writer: &mut Writer<W>, manner: Manner) -> Result<()> {
        writer.section(Kind::Machine, "", VERSION, &bytes(&self.alike(manner)))
    }
    /// All of the RAM.
    pub(super) fn write_ram<W: Write>(&self, writer: &mut Writer<W>) -> Result<()> {
        for block in self.memory_blocks() {
            let pages = block.len() / PAGE_SIZE;
            for first in (0..pages).step_by(ram::BATCH as usize) {
                ram::write(writer, &block, first, ram::BATCH.min(pages - first))?;
            }
        }
        Ok(())
    }
    /// Clock, devices and CPUs, which stand still. `running`: whether the guest is to run on where this is taken over.
    pub(super) fn write_rest<W: Write>(&self, writer: &mut Writer<W>, running: bool) -> Result<()> {
        let life = Life { now_ns: self.clock().now_ns(), running, suspended: self.is_suspended() };
        writer.section(Kind::Clock, "", VERSION, &bytes(&life))?;
        let mut put = |kind, name: &str, saved: Saved| match saved {
            Saved::Nothing => writer.section(kind, name, 0, &[]),
            Saved::NotMigratable(why) => Err(StateError::Blocked(format!("device '{name}': {why}"))),
            Saved::Bytes { version, data } => writer.section(kind, name, version, &data),
        };
        for device in self.devices() {
            put(Kind::Device, device.name(), device.save())?;
        }
        for cpu in self.cpus() {
            put(Kind::Cpu, &cpu_name(cpu.index()), cpu.save_state())?;
        }
        Ok(())
    }
    /// Writes the whole machine, whose devices are at rest; `running` as of a machine that runs on where it is restored.
    ///
    /// # Errors
    /// [`StateError`]; the machine is as it was.
    pub fn save_state<W: Write>(&self, to: W, running: bool) -> Result<W> {
        let mut writer = Writer::new(to)?;
        self.write_head(&mut writer, Manner::default())?;
        self.write_ram(&mut writer)?;
        self.write_rest(&mut writer, running)?;
        writer.finish()
    }

    // ---- in ----

    /// Reads a saved machine up to its end. `apply`: pages of RAM and early data of devices are taken over as they come, which needs a
    /// machine that does not run; otherwise they are only checked. Also whether an answer is waited for.
    ///
    /// # Errors
    /// [`StateError`]; with `apply`, RAM is then in any state.
    pub fn read_state<R: Read>(&self, from: R, apply: bool) -> Result<(Rest, bool)> {
        self.read_from(from, apply, &mut Receivers::default())
    }
    /// [`Self::read_state`], with pages that may come by `channels`.
    pub(super) fn read_from<R: Read>(
        &self,
        from: R,
        apply: bool,
        channels: &mut Receivers<'_>,
    ) -> Result<(Rest, bool)> {
        let mut reader = Reader::new(from)?;
        let ended = || StateError::Truncated("its first section".to_owned());
        let first = reader.next()?.ok_or_else(ended)?;
        if first.kind != Kind::Machine {
            return Err(first.error("the first section must tell of the machine"));
        }
        let head: Alike = content(&first)?;
        self.compare(&head)?;
        let (blocks, devices) = (self.memory_blocks(), self.devices());
        channels.begin(head.multifd.as_ref(), &blocks)?;
        let names: Vec<String> = self.cpus().iter().map(|c| cpu_name(c.index())).collect();
        let (mut life, mut sections, mut late) = (None, BTreeMap::new(), None);
        while let Some(section) = reader.next()? {
            match section.kind {
                Kind::Pages if channels.carry_pages() => return Err(section.error("it belongs to a channel")),
                Kind::Round => channels.round(&section)?,
                Kind::Pages => {
                    ram::read(&section, &blocks, apply)?;
                }
                Kind::Data => {
                    let device = devices.iter().find(|d| d.name() == section.name);
                    let device = device.ok_or_else(|| section.error("the machine has no such device"))?;
                    if apply {
                        device.take_data(&section.data).map_err(|e| section.error(e))?;
                    }
                }
                Kind::Missing if head.postcopy.is_some() => {
                    late.get_or_insert_with(|| PageSet::new(&blocks)).read(&section)?;
                }
                Kind::Clock => life = Some(content(&section)?),
                Kind::Device if devices.iter().any(|d| d.name() == section.name) => {
                    if let Some(twice) = sections.insert(section.name.clone(), section) {
                        return Err(twice.error("it is there twice"));
                    }
                }
                Kind::Cpu if names.contains(&section.name) => {
                    if let Some(twice) = sections.insert(section.name.clone(), section) {
                        return Err(twice.error("it is there twice"));
                    }
                }
                Kind::Device | Kind::Cpu => return Err(section.error("the machine has none")),
                Kind::Machine | Kind::End => return Err(section.error("it is there twice")),
                Kind::Missing | Kind::Go | Kind::Resume => return Err(section.error("it does not belong here")),
            }
        }
        channels.end()?;
        let missing = |what: String| StateError::Section(what, "its state is missing".to_owned());
        let life = life.ok_or_else(|| missing("clock".to_owned()))?;
        for name in devices.iter().map(|d| d.name()).chain(names.iter().map(String::as_str)) {
            if !sections.contains_key(name) {
                return Err(missing(format!("'{name}'")));
            }
        }
        Ok((Rest { life, missing: late, token: head.postcopy, sections }, head.asks))
    }
    /// Takes over clock, devices and CPUs; the machine stands still and its devices are at rest.
    ///
    /// # Errors
    /// [`StateError`]; the machine must not be started then.
    pub fn apply_state(&self, rest: Rest) -> Result<Life> {
        let Rest { life, missing, mut sections, .. } = rest;
        if missing.is_some() {
            return Err(StateError::Other("pages of its memory are missing".to_owned()));
        }
        self.clock().stop();
        self.clock().set_ns(life.now_ns);
        let devices = self.devices();
        let collectors = devices.iter().rev().filter(|d| d.collects());
        for device in devices.iter().filter(|d| !d.collects()).chain(collectors) {
            let Some(section) = sections.remove(device.name()) else { continue };
            let version = section.version;
            if version == 0 && section.data.is_empty() {
                // It has none, and says so.
                if device.save() != Saved::Nothing {
                    return Err(section.error("no state was saved"));
                }
                continue;
            }
            let empty = section.error("");
            device.load(&state_of(section)).map_err(|e| named(empty, e))?;
        }
        for cpu in self.cpus() {
            let Some(section) = sections.remove(&cpu_name(cpu.index())) else { continue };
            let empty = section.error("");
            cpu.load_state(state_of(section)).map_err(|e| named(empty, e))?;
        }
        self.set_suspended(life.suspended);
        Ok(life)
    }
    /// Power-on state of the devices, before they take over another.
    fn reset_devices(&self) {
        self.devices().iter().for_each(|d| d.reset());
    }
    /// Restores a saved machine in place of this one's state. `open` opens what was saved, twice: it is checked as a whole before
    /// anything is changed. The machine is stopped.
    ///
    /// # Errors
    /// [`StateError`] and whether anything was changed: then the machine must not be started.
    pub fn restore_state<R: Read>(
        &self,
        open: impl Fn() -> Result<R>,
        between: impl FnOnce() -> Result<()>,
    ) -> std::result::Result<Life, (StateError, bool)> {
        let before = |e| (e, false);
        self.check_blockers().map_err(before)?;
        self.read_state(open().map_err(before)?, false).map_err(before)?;
        let mut changed = false;
        let all = self.at_rest(|| {
            between()?;
            changed = true;
            self.reset_devices();
            let (rest, _) = self.read_state(open()?, true)?;
            self.apply_state(rest)
        });
        all.map_err(|e| (e, changed))
    }
}

/// The section's name with what is wrong in it.
fn named(empty: StateError, e: impl std::fmt::Display) -> StateError {
    match empty {
        StateError::Section(section, _) => StateError::Section(section, e.to_string()),
        other => other,
    }
}

impl RunState {
    /// Would the guest run on if it were moved in this state?
    pub(crate) fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Suspended)
    }
}
