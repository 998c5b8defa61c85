//! Network back ends, and the cards that are given with them or are no virtio devices.

use super::{BusParts, Plugger, Plugs};
use crate::config::{BoardOptions, DeviceSpec};
use crate::rom::with_rom;
use rhea_device::OptionError;
use rhea_device::options::{OptionSet, split};
use rhea_firmware::x86::boot_order::unit;
use rhea_net::{Card, Link, NetBackend};
use rhea_virtio::Resources;
use rhea_virtio::catalog;
use std::sync::Arc;

impl Plugs {
    /// Opens a network back end (`-netdev`).
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn add_net(&mut self, text: &str) -> Result<(), OptionError> {
        let (id, net) = crate::nic::open("-netdev", text)?;
        let id =
            id.ok_or_else(|| OptionError::new("-netdev", format!("'{text}': property 'id' is missing: id=NAME")))?;
        if self.nets.iter().any(|(i, ..)| *i == id) {
            return Err(OptionError::new("-netdev", format!("the id '{id}' is given twice: ids must differ")));
        }
        self.nets.push((id, net, false));
        Ok(())
    }
    /// Takes a network back end away that no device uses.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn remove_net(&mut self, option: &str, id: &str) -> Result<(), OptionError> {
        match self.nets.iter().find(|(i, ..)| i == id) {
            None => Err(OptionError::new(option, format!("'{id}': no network back end has this id"))),
            Some((.., true)) => Err(OptionError::new(option, format!("'{id}': the back end is used by a device"))),
            Some(_) => {
                self.nets.retain(|(i, ..)| i != id);
                Ok(())
            }
        }
    }
}

impl Plugger<'_> {
    /// The back ends of `-netdev`, and those of `-nic` with their cards.
    pub(super) fn open_nets(&mut self) -> Result<(), OptionError> {
        for text in &self.config.netdevs {
            self.plugs.add_net(text)?;
        }
        let mut nics = self.config.nics.clone();
        if nics.is_empty() && self.config.netdevs.is_empty() && !self.config.no_defaults {
            nics.push("user".to_owned());
        }
        for (n, text) in nics.iter().filter(|t| t.as_str() != "none").enumerate() {
            // The card's own keys are taken out; the rest is the back end's.
            let default = match self.config.board {
                BoardOptions::Q35(_) => "e1000e",
                BoardOptions::Pseries(_) => "spapr-vlan",
                BoardOptions::Virt(_) | BoardOptions::None(_) => "virtio-net-pci",
            };
            let (mut model, mut card, mut rest) = (default.to_owned(), Vec::new(), Vec::new());
            for (key, value) in split(text) {
                match (key.as_str(), value) {
                    ("model", Some(v)) => model = if v == "virtio" { "virtio-net-pci".to_owned() } else { v },
                    ("mac" | "addr" | "bus", Some(v)) => card.push((key, Some(v))),
                    (_, value) => rest.push(match value {
                        Some(v) => format!("{key}={}", v.replace(',', ",,")),
                        None => key,
                    }),
                }
            }
            let kind = rhea_nic::catalog::find(&model);
            let own = self.own_bus.as_ref().is_some_and(|b| b.knows(&model));
            if !own && kind.is_none() && catalog::find(&model).is_none_or(|d| d.model != rhea_virtio::Model::Net) {
                return Err(OptionError::new(
                    "-nic",
                    format!("'model={model}': models are e1000e, virtio-net-pci and virtio-net-device"),
                ));
            }
            let (id, net) = crate::nic::open("-nic", &rest.join(","))?;
            let id = id.unwrap_or_else(|| format!("nic{n}"));
            self.fit_card(&net, &id, &model, None);
            self.plugs.nets.push((id, net.clone(), true));
            let net: Arc<dyn NetBackend> = net;
            self.own_choice(&model, &card);
            if let Some(kind) = kind {
                self.nic(kind, "-nic", &card, Some(net))?;
                continue;
            }
            let mac = self.plugs.macs.allocate();
            if let Some(bus) = self.own_bus.as_mut().filter(|_| own) {
                let spec = DeviceSpec { driver: model, pairs: card };
                bus.make(self.board, &spec, BusParts { drive: None, net: Some(net), mac })?;
                continue;
            }
            self.make("-nic", &model, &card, Resources { net: Some(net), mac, ..self.resources() })?;
        }
        Ok(())
    }

    /// The back end that `netdev=` names, taken.
    pub(super) fn named_net(
        &mut self,
        option: &str,
        spec: &DeviceSpec,
    ) -> Result<Option<Arc<dyn NetBackend>>, OptionError> {
        let Some(id) = spec.value("netdev") else { return Ok(None) };
        let Some((_, net, used)) = self.plugs.nets.iter_mut().find(|(i, ..)| i == id) else {
            return Err(OptionError::new(option, format!("'netdev={id}': no -netdev has this id")));
        };
        if std::mem::replace(used, true) {
            return Err(OptionError::new(option, format!("'netdev={id}': the back end is used by another device")));
        }
        let net = net.clone();
        self.fit_card(&net, id, &spec.driver, spec.value("id"));
        Ok(Some(net))
    }
    /// Notes which card is at the other end of the back end `net`.
    fn fit_card(&mut self, link: &Arc<Link>, net: &str, model: &str, id: Option<&str>) {
        let name = id.map_or_else(|| format!("{model}.{}", self.plugs.cards), str::to_owned);
        self.plugs.cards += usize::from(id.is_none());
        link.fit(Card { name, model: model.to_owned() }, self.board.inventory.filter_watcher(net));
    }

    /// A network controller that is no virtio device.
    pub(super) fn nic(
        &mut self,
        kind: &'static rhea_nic::catalog::DeviceType,
        option: &str,
        pairs: &[(String, Option<String>)],
        net: Option<Arc<dyn NetBackend>>,
    ) -> Result<(), OptionError> {
        let set = OptionSet::parse(option, &kind.options(), &self.with_globals(kind.name, pairs))?;
        self.take_id(&set)?;
        let slot = with_rom(self.config, &set, self.pci_slot(option, &set)?, Some(kind.rom))?;
        let mac = self.plugs.macs.allocate();
        let function = kind.make(&set, &slot, net, mac, &self.board.log)?;
        self.attach(&set, function.clone())?;
        if let Some(index) = set.number("bootindex") {
            self.board.add_boot_entry(index, &*function, unit::NETWORK);
        }
        Ok(())
    }
}
