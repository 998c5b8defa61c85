//! USB controllers, and what sits at their ports.

use super::Plugger;
use crate::config::{BoardOptions, DeviceSpec};
use rhea_block::Media;
use rhea_device::OptionError;
use rhea_device::options::OptionSet;
use rhea_firmware::x86::boot_order::unit;
use rhea_pci::PciFunction;
use rhea_usb::catalog::{DeviceType, Resources};
use rhea_usb::{Speed, Xhci};
use std::sync::Arc;

/// Controllers by the names of their buses.
pub type UsbBuses = Vec<(String, Arc<Xhci>)>;

/// The text of `info usb`.
fn describe(buses: &UsbBuses) -> String {
    let mut text = String::new();
    for (bus, xhci) in buses {
        for (port, route, speed, name) in xhci.list() {
            let mbits = match speed {
                Speed::Full => 12,
                Speed::High => 480,
                Speed::Super => 5000,
            };
            let hubs = (0..5).map(|n| route >> (4 * n) & 15).take_while(|n| *n > 0).map(|n| format!(".{n}"));
            text.push_str(&format!("  {bus}: root port {port}{}, {mbits} Mb/s, {name}\n", hubs.collect::<String>()));
        }
    }
    text
}

impl Plugger<'_> {
    /// The board's own controller (`-M usb=on`; on pseries, where it brings the keyboard, with a display too) and what is plugged
    /// into it.
    pub(super) fn default_usb(&mut self) -> Result<(), OptionError> {
        let pseries = matches!(self.config.board, BoardOptions::Pseries(_));
        let screen = !self.board.displays.is_empty();
        if !self.config.board.usb().unwrap_or(screen && !self.config.no_defaults) {
            return Ok(());
        }
        let mut names = vec![if pseries { "nec-usb-xhci" } else { "qemu-xhci" }];
        if pseries && screen {
            names.extend(["usb-kbd", "usb-mouse"]);
        }
        for name in names {
            if let Some(kind) = rhea_usb::catalog::find(name) {
                self.usb("-usb", kind, &DeviceSpec { driver: name.to_owned(), pairs: Vec::new() })?;
                self.own_choice(name, &[]);
            }
        }
        Ok(())
    }
    /// A controller, or a device at a port of one.
    pub(super) fn usb(
        &mut self,
        option: &str,
        kind: &'static DeviceType,
        spec: &DeviceSpec,
    ) -> Result<(), OptionError> {
        let set = OptionSet::parse(option, &kind.options(), &self.with_globals(kind.name, &spec.pairs))?;
        let drive = self.named_drive(option, spec)?;
        self.take_id(&set)?;
        if kind.is_controller() {
            let slot = self.pci_slot(option, &set)?;
            let name =
                set.text("id").map_or_else(|| format!("usb-bus.{}", self.plugs.usb.len()), |id| format!("{id}.0"));
            let xhci = kind.make(&set, &slot, &self.board.clock, &self.board.log)?;
            self.attach(&set, xhci.clone())?;
            self.plugs.usb.push((name, xhci));
            return Ok(());
        }
        let named = set.text("bus");
        let Some((_, controller)) = self.plugs.usb.iter().find(|(n, _)| named.is_none_or(|bus| bus == n)) else {
            return Err(match named {
                Some(bus) => set.error(
                    "bus",
                    &format!("there is no USB bus '{bus}': put -device qemu-xhci,id=ID before it, whose bus is ID.0"),
                ),
                None => OptionError::new(option, "there is no USB controller: put -device qemu-xhci before it"),
            });
        };
        let controller = controller.clone();
        let cd = |id: &str| {
            let found = self.config.drives.iter().find(|d| d.id.as_deref() == Some(id));
            found.is_some_and(|d| d.media == Media::Cdrom)
        };
        let drive = drive.map(|d| {
            let cd = cd(d.id());
            (d, cd)
        });
        let resources = Resources { drive, input: &self.board.input, clock: &self.board.clock };
        let path = kind.attach(&set, &controller, resources)?;
        if let (Some(index), [hubs @ .., port]) = (set.number("bootindex"), &path[..]) {
            let hubs: String = hubs.iter().map(|p| format!("hub@{p:x}/")).collect();
            let function: &dyn PciFunction = &*controller;
            self.board.add_boot_entry(index, function, &format!("{hubs}{}", unit::usb_storage(*port)));
        }
        Ok(())
    }
    pub(super) fn usb_info(&mut self) {
        let buses = self.plugs.usb.clone();
        if !buses.is_empty() {
            self.board.info.push(("usb", "show the USB devices", Box::new(move || describe(&buses))));
        }
    }
}
