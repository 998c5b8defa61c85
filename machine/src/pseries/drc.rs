//! Dynamic reconfiguration connectors: places where processors, memory blocks and PCI devices come and go (LoPAPR chapter 13).

use parking_lot::Mutex;
use rhea_firmware::FdtNode;
use std::collections::BTreeMap;

/// Kinds of connectors (LoPAPR 13.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrcType {
    Cpu = 1,
    Pci = 4,
    Lmb = 8,
}

impl DrcType {
    /// What `ibm,drc-types` says.
    fn word(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Pci => "28",
            Self::Lmb => "MEM",
        }
    }
    fn name(self, id: u32) -> String {
        match self {
            Self::Cpu => format!("CPU {id}"),
            Self::Pci => format!("C{id}"),
            Self::Lmb => format!("LMB {id}"),
        }
    }
    fn of(index: u32) -> Option<Self> {
        [Self::Cpu, Self::Pci, Self::Lmb].into_iter().find(|k| *k as u32 == index >> 28)
    }
    /// Logical resources are allocated; physical ones are plugged into a slot.
    fn logical(self) -> bool {
        self != Self::Pci
    }
}

/// The index of a connector.
#[must_use]
pub const fn index(kind: DrcType, id: u32) -> u32 {
    (kind as u32) << 28 | id & 0x0fff_ffff
}

/// The number of a connector of its kind.
#[must_use]
pub const fn id(index: u32) -> u32 {
    index & 0x0fff_ffff
}

/// Where a connector's resource is between platform and partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Logical only: not the partition's.
    Unusable,
    /// The partition's; isolated. What an empty slot is in.
    Isolated,
    /// May be configured.
    Unisolated,
    /// The partition has its nodes.
    Configured,
}

/// An answer of ibm,configure-connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Sibling(String),
    Child(String),
    Property(String, Vec<u8>),
    Parent,
    Complete,
}

#[derive(Debug)]
struct Connector {
    state: State,
    /// Is there a resource?
    present: bool,
    /// It is to be taken away once the partition gives it up.
    unplugging: bool,
    /// What ibm,configure-connector still has to tell, last step first.
    steps: Vec<Step>,
    indicator: u32,
}

impl Connector {
    fn new(kind: DrcType, present: bool) -> Self {
        let mut connector =
            Self { state: State::Isolated, present, unplugging: false, steps: Vec::new(), indicator: 0 };
        connector.settle(kind);
        connector
    }
    /// As the partition finds it at its start: its tree has what is there.
    fn settle(&mut self, kind: DrcType) {
        self.state = match (self.present, kind.logical()) {
            (true, _) => State::Configured,
            (false, true) => State::Unusable,
            (false, false) => State::Isolated,
        };
        self.unplugging = false;
        self.steps.clear();
        self.indicator = 0;
    }
    fn take_away(&mut self, kind: DrcType) {
        self.present = false;
        self.settle(kind);
    }
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such connector.
    NoConnector,
    /// Not with what is (not) at the connector.
    NoSuchIndicator,
    /// Not allowed.
    Hardware,
    /// A value that is none.
    Value,
    /// Not in a state in which it can be configured.
    NotConfigurable,
}

/// What get-sensor-state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    Empty = 0,
    Present = 1,
    Unusable = 2,
}

/// All connectors of the partition.
#[derive(Default)]
pub struct Connectors {
    map: Mutex<BTreeMap<u32, Connector>>,
}

impl Connectors {
    /// A connector; `present`: its resource is there from the start.
    pub fn add(&self, kind: DrcType, id: u32, present: bool) {
        self.map.lock().insert(index(kind, id), Connector::new(kind, present));
    }
    fn with<R>(&self, index: u32, f: impl FnOnce(DrcType, &mut Connector) -> R) -> Result<R, Refused> {
        let kind = DrcType::of(index).ok_or(Refused::NoConnector)?;
        self.map.lock().get_mut(&index).map(|c| f(kind, c)).ok_or(Refused::NoConnector)
    }

    // ---- saved state ----

    /// Index, state, flags (1: something is there, 2: it is to be taken away), indicator. A configuration that is being told
    /// begins anew.
    #[must_use]
    pub fn save(&self) -> Vec<(u32, u8, u8, u32)> {
        let map = self.map.lock();
        let flags = |c: &Connector| u8::from(c.present) | u8::from(c.unplugging) << 1;
        map.iter().map(|(index, c)| (*index, c.state as u8, flags(c), c.indicator)).collect()
    }
    /// Takes it over; false: these are not the connectors, or not what is at them.
    #[must_use]
    pub fn load(&self, saved: &[(u32, u8, u8, u32)]) -> bool {
        const STATES: [State; 4] = [State::Unusable, State::Isolated, State::Unisolated, State::Configured];
        let mut map = self.map.lock();
        let fits = |(index, state, flags, _): &(u32, u8, u8, u32)| {
            usize::from(*state) < STATES.len() && map.get(index).is_some_and(|c| c.present == (flags & 1 != 0))
        };
        if saved.len() != map.len() || !saved.iter().all(fits) {
            return false;
        }
        for (index, state, flags, indicator) in saved {
            if let Some(c) = map.get_mut(index) {
                c.state = STATES[usize::from(*state)];
                c.unplugging = flags & 2 != 0;
                c.indicator = *indicator;
                c.steps.clear();
            }
        }
        true
    }

    // ---- the platform's side ----

    /// A resource is there now; `running`: the partition is to take it in, otherwise its tree has it.
    ///
    /// # Errors
    /// There is no such connector, or it is in use.
    pub fn attach(&self, index: u32, running: bool) -> Result<(), Refused> {
        self.with(index, |kind, c| {
            if c.present {
                return Err(Refused::Hardware);
            }
            c.present = true;
            if !running {
                c.settle(kind);
            }
            Ok(())
        })?
    }
    /// Can a resource be attached?
    #[must_use]
    pub fn is_free(&self, index: u32) -> bool {
        self.with(index, |_, c| !c.present) == Ok(true)
    }
    /// The resource is to be taken away as soon as the partition gives it up; false: it has given it up, and it is gone.
    ///
    /// # Errors
    /// There is nothing.
    pub fn detach(&self, index: u32) -> Result<bool, Refused> {
        self.with(index, |kind, c| {
            if !c.present {
                return Err(Refused::NoSuchIndicator);
            }
            // Never taken in.
            let idle = if kind.logical() { State::Unusable } else { State::Isolated };
            if c.state == idle {
                c.take_away(kind);
                return Ok(false);
            }
            c.unplugging = true;
            Ok(true)
        })?
    }
    /// The machine starts anew; gives the connectors whose resources went with that.
    pub fn reset(&self) -> Vec<u32> {
        let mut gone = Vec::new();
        for (index, c) in self.map.lock().iter_mut() {
            let Some(kind) = DrcType::of(*index) else { continue };
            if c.unplugging {
                c.present = false;
                gone.push(*index);
            }
            c.settle(kind);
        }
        gone
    }
    /// Is the resource of a connector asked back?
    #[must_use]
    pub fn unplugging(&self, index: u32) -> bool {
        self.with(index, |_, c| c.unplugging) == Ok(true)
    }

    // ---- the partition's side ----

    /// Indicator 9001; true: the resource is given up.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_isolation(&self, index: u32, value: u32) -> Result<bool, Refused> {
        self.with(index, |kind, c| match value {
            0 => {
                if kind == DrcType::Lmb && c.state > State::Isolated && !c.unplugging {
                    // Nobody asked for the memory: the partition keeps it.
                    return Err(Refused::Hardware);
                }
                c.state = c.state.min(State::Isolated);
                c.steps.clear();
                let gone = !kind.logical() && c.present && c.unplugging;
                if gone {
                    c.take_away(kind);
                }
                Ok(gone)
            }
            1 => {
                if !c.present {
                    return Err(Refused::NoSuchIndicator);
                }
                match c.state {
                    State::Unusable => return Err(Refused::Hardware),
                    State::Isolated => c.state = State::Unisolated,
                    State::Unisolated | State::Configured => {}
                }
                Ok(false)
            }
            _ => Err(Refused::Value),
        })?
    }
    /// Indicator 9003; true: the resource is given up.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_allocation(&self, index: u32, value: u32) -> Result<bool, Refused> {
        self.with(index, |kind, c| {
            if !kind.logical() {
                return Err(Refused::NoSuchIndicator);
            }
            match value {
                0 => {
                    if c.state > State::Isolated {
                        return Err(Refused::Hardware);
                    }
                    let gone = c.present && c.unplugging && c.state == State::Isolated;
                    c.state = State::Unusable;
                    if gone {
                        c.take_away(kind);
                    }
                    Ok(gone)
                }
                1 => {
                    // What is leaving is not taken in again.
                    if !c.present || c.unplugging && c.state == State::Unusable {
                        return Err(Refused::NoSuchIndicator);
                    }
                    c.state = c.state.max(State::Isolated);
                    Ok(false)
                }
                _ => Err(Refused::Value),
            }
        })?
    }
    /// Indicator 9002: inactive, active, identify, action.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_indicator(&self, index: u32, value: u32) -> Result<(), Refused> {
        if value > 3 {
            return Err(Refused::Value);
        }
        self.with(index, |_, c| c.indicator = value)
    }
    /// Sensor 9003.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn sense(&self, index: u32) -> Result<Sense, Refused> {
        self.with(index, |kind, c| match (kind.logical(), c.present, c.state) {
            (false, false, _) => Sense::Empty,
            (true, _, State::Unusable) => Sense::Unusable,
            _ => Sense::Present,
        })
    }
    /// The next step of ibm,configure-connector; `nodes` tells what is at the connector. `taken` is told whether the step fits.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn configure(&self, index: u32, nodes: impl FnOnce() -> Vec<FdtNode>) -> Result<Step, Refused> {
        let fresh = self.with(index, |_, c| {
            if !c.present || c.state < State::Unisolated {
                return Err(Refused::NotConfigurable);
            }
            Ok(c.steps.is_empty())
        })??;
        // Made without the lock: nodes are read from devices.
        let steps = if fresh {
            let mut steps = vec![Step::Complete];
            // Reverse: the last one is told first.
            let mut forward = Vec::new();
            siblings(&nodes(), &mut forward);
            steps.extend(forward.into_iter().rev());
            steps
        } else {
            Vec::new()
        };
        self.with(index, |_, c| {
            if c.steps.is_empty() {
                c.steps = steps;
            }
            let step = c.steps.pop().unwrap_or(Step::Complete);
            if step == Step::Complete && c.state == State::Unisolated {
                c.state = State::Configured;
            }
            step
        })
    }

    // ---- the tree ----

    /// Puts `ibm,drc-indexes` and its companions into a node, for the connectors that `of` chooses (LoPAPR 13.5.2).
    pub fn describe(&self, node: &mut FdtNode, of: impl Fn(DrcType, u32) -> bool) {
        let map = self.map.lock();
        let chosen: Vec<(DrcType, u32)> = map
            .keys()
            .filter_map(|index| Some((DrcType::of(*index)?, id(*index))))
            .filter(|(kind, id)| of(*kind, *id))
            .collect();
        if chosen.is_empty() {
            return;
        }
        let count = chosen.len() as u32;
        /// Live insertion: no power domain.
        const LIVE: u32 = u32::MAX;
        let indexes: Vec<u32> = [count].into_iter().chain(chosen.iter().map(|(kind, id)| index(*kind, *id))).collect();
        let domains: Vec<u32> = [count].into_iter().chain(chosen.iter().map(|_| LIVE)).collect();
        let texts = |text: &dyn Fn(DrcType, u32) -> String| -> Vec<u8> {
            let mut bytes = count.to_be_bytes().to_vec();
            for (kind, id) in &chosen {
                bytes.extend(text(*kind, *id).bytes().chain([0]));
            }
            bytes
        };
        node.cells("ibm,drc-indexes", &indexes).cells("ibm,drc-power-domains", &domains);
        node.set("ibm,drc-names", texts(&DrcType::name));
        node.set("ibm,drc-types", texts(&|kind, _| kind.word().to_owned()));
    }
}

/// The steps that tell of `nodes`: the first one is a child of the node the connector belongs to.
fn siblings(nodes: &[FdtNode], steps: &mut Vec<Step>) {
    for (n, node) in nodes.iter().enumerate() {
        steps.push(if n == 0 { Step::Child(node.name.clone()) } else { Step::Sibling(node.name.clone()) });
        steps.extend(node.properties.iter().map(|(name, value)| Step::Property(name.clone(), value.clone())));
        if !node.children.is_empty() {
            siblings(&node.children, steps);
            steps.push(Step::Parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Vec<FdtNode> {
        let mut node = FdtNode::new("cpu@8");
        node.u32("reg", 8);
        node.child("l2").u32("size", 1);
        node.child("l3");
        vec![node]
    }

    #[test]
    fn a_logical_resource_comes_and_goes() {
        let drcs = Connectors::default();
        let at = index(DrcType::Cpu, 8);
        drcs.add(DrcType::Cpu, 8, false);
        assert_eq!(drcs.sense(at), Ok(Sense::Unusable));
        // Nothing to allocate yet.
        assert_eq!(drcs.set_allocation(at, 1), Err(Refused::NoSuchIndicator));
        assert_eq!(drcs.configure(at, node), Err(Refused::NotConfigurable));
        drcs.attach(at, true).unwrap();
        assert_eq!(drcs.attach(at, true), Err(Refused::Hardware));
        assert_eq!(drcs.sense(at), Ok(Sense::Unusable));
        assert_eq!(drcs.set_isolation(at, 1), Err(Refused::Hardware));
        assert_eq!(drcs.set_allocation(at, 1), Ok(false));
        assert_eq!(drcs.set_isolation(at, 1), Ok(false));
        assert_eq!(drcs.sense(at), Ok(Sense::Present));
        let mut steps = Vec::new();
        loop {
            steps.push(drcs.configure(at, node).unwrap());
            if steps.last() == Some(&Step::Complete) {
                break;
            }
        }
        use Step::{Child, Complete, Parent, Property, Sibling};
        let expected = [
            Child("cpu@8".into()),
            Property("reg".into(), vec![0, 0, 0, 8]),
            Child("l2".into()),
            Property("size".into(), vec![0, 0, 0, 1]),
            Sibling("l3".into()),
            Parent,
            Complete,
        ];
        assert_eq!(steps, expected);
        // Not asked back: given up, it stays and can be taken again.
        assert_eq!(drcs.set_allocation(at, 0), Err(Refused::Hardware));
        assert_eq!((drcs.set_isolation(at, 0), drcs.set_allocation(at, 0)), (Ok(false), Ok(false)));
        assert_eq!((drcs.set_allocation(at, 1), drcs.set_isolation(at, 1)), (Ok(false), Ok(false)));
        assert_eq!(drcs.detach(at), Ok(true));
        assert_eq!((drcs.set_isolation(at, 0), drcs.set_allocation(at, 0)), (Ok(false), Ok(true)));
        assert_eq!(drcs.sense(at), Ok(Sense::Unusable));
        assert!(drcs.is_free(at));
        assert_eq!(drcs.detach(at), Err(Refused::NoSuchIndicator));
    }

    #[test]
    fn a_slot_is_emptied_by_isolation() {
        let drcs = Connectors::default();
        let at = index(DrcType::Pci, 0x20);
        drcs.add(DrcType::Pci, 0x20, false);
        assert_eq!(drcs.sense(at), Ok(Sense::Empty));
        assert_eq!(drcs.set_isolation(at, 1), Err(Refused::NoSuchIndicator));
        drcs.attach(at, true).unwrap();
        assert_eq!((drcs.sense(at), drcs.set_isolation(at, 1)), (Ok(Sense::Present), Ok(false)));
        assert_eq!(drcs.set_allocation(at, 1), Err(Refused::NoSuchIndicator));
        assert_eq!(drcs.detach(at), Ok(true));
        assert!(drcs.unplugging(at));
        assert_eq!(drcs.set_isolation(at, 0), Ok(true));
        assert_eq!(drcs.sense(at), Ok(Sense::Empty));
        // Never taken in: gone at once.
        drcs.attach(at, true).unwrap();
        assert_eq!(drcs.detach(at), Ok(false));
        // A reset ends what was begun.
        drcs.attach(at, false).unwrap();
        assert_eq!(drcs.detach(at), Ok(true));
        assert_eq!(drcs.reset(), [at]);
        assert!(drcs.is_free(at));
    }

    #[test]
    fn memory_nobody_asked_for_is_kept() {
        let drcs = Connectors::default();
        let at = index(DrcType::Lmb, 3);
        drcs.add(DrcType::Lmb, 3, true);
        assert_eq!(drcs.set_isolation(at, 0), Err(Refused::Hardware));
        drcs.detach(at).unwrap();
        assert_eq!(drcs.set_isolation(at, 0), Ok(false));
        // The partition changed its mind.
        assert_eq!(drcs.set_isolation(at, 1), Ok(false));
        for bad in [0, 0x1000_0000, 0x8000_0004, u32::MAX] {
            assert_eq!(drcs.sense(bad), Err(Refused::NoConnector));
            assert_eq!(drcs.set_isolation(bad, 0), Err(Refused::NoConnector));
        }
        assert_eq!(drcs.set_indicator(at, 9), Err(Refused::Value));
    }

    #[test]
    fn connectors_are_described() {
        let drcs = Connectors::default();
        drcs.add(DrcType::Lmb, 2, false);
        drcs.add(DrcType::Lmb, 3, false);
        drcs.add(DrcType::Cpu, 0, true);
        let mut node = FdtNode::new("");
        drcs.describe(&mut node, |kind, _| kind == DrcType::Lmb);
        assert_eq!(node.property("ibm,drc-indexes").unwrap()[..8], [0, 0, 0, 2, 0x80, 0, 0, 2]);
        assert_eq!(&node.property("ibm,drc-names").unwrap()[4..], b"LMB 2\0LMB 3\0");
        assert_eq!(&node.property("ibm,drc-types").unwrap()[4..], b"MEM\0MEM\0");
        assert_eq!(node.property("ibm,drc-power-domains").unwrap()[4..8], [255; 4]);
        drcs.describe(&mut node, |kind, _| kind == DrcType::Pci);
    }
}
