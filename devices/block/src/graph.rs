//! The graph of block nodes: what options or file names describe is opened, and nodes are found by name.

use crate::nbd::NbdClient;
use crate::node::Parts;
use crate::qcow2::{Qcow2, Qcow2Options};
use crate::vmdk::Vmdk;
use crate::vpc::Vpc;
use crate::{
    DetectZeroes, Drive, Failures, FileNode, FileOptions, Format, Kind, Node, NodeOptions, NodeRef, NodeSettings,
    NullBackend, RawNode, Throttle, ThrottleLimits, probe,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a node takes from whoever opens it unless its options say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inherit {
    pub readonly: bool,
    pub direct: bool,
    pub no_flush: bool,
    pub discard: bool,
    pub no_lock: bool,
    pub force_share: bool,
    /// Another process has what is to be written, until [`crate::handover::take`].
    pub away: bool,
    /// Open neither backing files nor anything else that is only read through.
    pub no_backing: bool,
    /// Open images for a check or repair: damage is not repaired or refused on opening.
    pub check: bool,
    /// Warn when a writable image is taken as raw because nothing else fits.
    pub warn_guess: bool,
    /// How many images are above.
    pub depth: u32,
}

/// Images below each other that are followed.
const MAX_DEPTH: u32 = 100;
const ENDLESS: &str = "the chain of backing files is too long, or a loop";

/// Nodes by name.
#[derive(Default)]
pub struct BlockGraph {
    nodes: Mutex<BTreeMap<String, Arc<Node>>>,
    anonymous: AtomicU64,
    /// Images are opened as [`Inherit::away`] says.
    away: AtomicBool,
    /// Who is told of requests that fail.
    failures: Arc<Failures>,
    /// Limits that several drives share.
    throttles: Mutex<BTreeMap<String, Arc<Throttle>>>,
}

/// Opens an image without a graph: for tools. `format`: as given by the user, or guessed.
///
/// # Errors
/// One line that names the file and what is wrong.
pub fn open_image(filename: &str, format: Option<&str>, inherit: &Inherit) -> Result<Arc<Node>, String> {
    let mut options = NodeOptions::default();
    if let Some(format) = format {
        options.default_text("driver", format);
    }
    BlockGraph::default().open_file(filename, options, inherit)
}

/// Is this `protocol:rest`?
fn protocol(filename: &str) -> Option<&str> {
    let end = filename.find([':', '/'])?;
    filename[end..].starts_with(':').then(|| &filename[..end])
}

/// The name of a file that an image at `base` refers to.
pub(crate) fn relative(base: &str, name: &str) -> String {
    if name.starts_with('/') || protocol(name).is_some() {
        return name.to_owned();
    }
    let base = base.strip_prefix("file:").unwrap_or(base);
    match base.rfind('/') {
        Some(slash) if protocol(base).is_none() => format!("{}/{name}", &base[..slash]),
        _ => name.to_owned(),
    }
}

/// Options of the protocol node that a file name describes.
fn protocol_options(filename: &str) -> Result<NodeOptions, String> {
    let mut options = NodeOptions::default();
    match protocol(filename) {
        None => options.default_text("filename", filename),
        Some("json") => return NodeOptions::parse_json(&filename[5..]).map_err(|e| format!("'{filename}': {e}")),
        Some("file") => options.default_text("filename", &filename[5..]),
        Some(p) if p == "nbd" || p.starts_with("nbd+") => return crate::nbd::options_of(filename),
        Some("null-co" | "null-aio") => {
            options.default_text("driver", "null-co");
            return Ok(options);
        }
        Some(p) => {
            return Err(format!("'{filename}': protocol '{p}' is not supported: use a file, a block device or nbd"));
        }
    }
    options.default_text("driver", "file");
    Ok(options)
}

const PROTOCOLS: [&str; 5] = ["file", "host_device", "nbd", "null-co", "null-aio"];

impl BlockGraph {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
    /// Images that are opened from now on are in another process's hands if they are to be written, or they are not.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Release);
    }
    #[must_use]
    pub fn failures(&self) -> &Arc<Failures> {
        &self.failures
    }
    /// A drive over a node, whose failures are told here.
    #[must_use]
    pub fn drive_for(&self, id: &str, node: &Arc<Node>) -> Arc<Drive> {
        let drive = Drive::for_node(id, node);
        drive.set_failures(&self.failures);
        drive
    }
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.lock().get(name).cloned()
    }
    /// The limits of a group; they are those that were given last.
    #[must_use]
    pub fn throttle_group(&self, name: &str, limits: ThrottleLimits) -> Arc<Throttle> {
        let mut throttles = self.throttles.lock();
        let group = throttles.entry(name.to_owned()).or_insert_with(|| Arc::new(Throttle::new(limits)));
        if limits.any() && group.limits() != limits {
            group.set(limits);
        }
        group.clone()
    }
    /// All named nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().values().cloned().collect()
    }
    /// Opens what `-blockdev` or `blockdev-add` describe; the node must have a name.
    ///
    /// # Errors
    /// One line.
    pub fn add(&self, options: NodeOptions, inherit: &Inherit) -> Result<Arc<Node>, String> {
        if !options.has("node-name") {
            return Err("'node-name' is missing: a node is used by its name".to_owned());
        }
        self.open(options, inherit)
    }
    /// Forgets a node. It is closed when nothing uses it any more.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        let mut nodes = self.nodes.lock();
        let node = nodes.get(name).ok_or_else(|| format!("there is no node '{name}'"))?;
        if let Some(user) = nodes.values().find(|n| n.name() != name && n.contains(name)) {
            return Err(format!("node '{name}' is busy: it is used by node '{}'", user.name()));
        }
        // One reference is the table's.
        if Arc::strong_count(node) > 1 || node.is_held() {
            return Err(format!("node '{name}' is busy: a device or a job uses it"));
        }
        let Some(node) = nodes.remove(name) else { return Ok(()) };
        drop(nodes);
        let closed = node.backend().close().map_err(|e| format!("node '{name}': {}", crate::error_text(&e)));
        let mut below: Vec<Arc<Node>> = node.children().into_iter().map(|(_, c)| c).collect();
        drop(node);
        while let Some(child) = below.pop() {
            below.extend(child.children().into_iter().map(|(_, c)| c));
            // One reference is the table's, one is here; others are of users.
            let mut nodes = self.nodes.lock();
            if child.is_inline() && nodes.contains_key(child.name()) && Arc::strong_count(&child) <= 2 {
                nodes.remove(child.name());
            }
        }
        closed
    }

    /// Opens the image called `filename`; `options` are those of its format, with `driver` if it was said, and may have `file.*`.
    ///
    /// # Errors
    /// One line.
    pub fn open_file(&self, filename: &str, mut options: NodeOptions, inherit: &Inherit) -> Result<Arc<Node>, String> {
        let mut below = protocol_options(filename)?;
        let json = protocol(filename) == Some("json");
        if json && !below.has("driver") && below.has("file") {
            // A format that is to be guessed.
            return self.open(below, inherit);
        }
        let is_protocol = below.driver_is_protocol();
        if json && !is_protocol {
            below.merge(options)?;
            return self.open(below, inherit);
        }
        if options.driver_is_protocol() {
            below.merge(options)?;
            return self.open(below, inherit);
        }
        match options.take_node("file")? {
            None => {}
            Some(NodeRef::Options(more)) => below.merge(more)?,
            Some(_) => return Err(format!("'{filename}': the file is given twice")),
        }
        options.insert("file", below.to_json())?;
        self.open(options, inherit).map_err(|e| if e.contains(filename) { e } else { format!("'{filename}': {e}") })
    }

    fn child(&self, child: Option<NodeRef>, inherit: &Inherit) -> Result<Option<Arc<Node>>, String> {
        match child {
            None | Some(NodeRef::None) => Ok(None),
            Some(NodeRef::Name(name)) => {
                let node = self.get(&name).ok_or_else(|| format!("there is no node '{name}'"))?;
                if !inherit.readonly && node.settings().readonly {
                    return Err(format!("node '{name}' is read-only"));
                }
                if !inherit.readonly
                    && let Some(user) = self.nodes.lock().values().find(|n| n.writes(&name))
                {
                    return Err(format!("node '{name}' is in use by node '{}'", user.name()));
                }
                Ok(Some(node))
            }
            Some(NodeRef::Options(options)) => self.open(options, inherit).map(Some),
        }
    }

    /// Opens a node and what is below it.
    ///
    /// # Errors
    /// One line.
    pub fn open(&self, o: NodeOptions, inherit: &Inherit) -> Result<Arc<Node>, String> {
        if inherit.depth > 0 {
            return self.open_one(o, inherit);
        }
        let inherit = &Inherit { away: inherit.away || self.away.load(Ordering::Acquire), ..*inherit };
        let before: Vec<String> = self.nodes.lock().keys().cloned().collect();
        let opened = self.open_one(o, inherit);
        if opened.is_err() {
            // What was opened below it is of no use.
            self.nodes.lock().retain(|name, node| !node.is_inline() || before.contains(name));
        }
        opened
    }
    fn open_one(&self, mut o: NodeOptions, inherit: &Inherit) -> Result<Arc<Node>, String> {
        let mut inherit = *inherit;
        inherit.depth += 1;
        if inherit.depth > MAX_DEPTH {
            return Err(ENDLESS.to_owned());
        }
        let name = o.take_text("node-name")?;
        if let Some(name) = &name {
            let good = name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
                && name.starts_with(|c: char| c.is_ascii_alphabetic());
            if !good || name.len() > 31 {
                return Err(format!(
                    "invalid node-name '{name}': at most 31 letters, digits, '-', '.', '_', a letter first"
                ));
            }
            if self.get(name).is_some() {
                return Err(format!("the node-name '{name}' is given twice: names must differ"));
            }
        }
        if let Some(on) = o.take_bool("read-only")? {
            inherit.readonly |= on;
        }
        let automatic = o.take_bool("auto-read-only")?.unwrap_or(false);
        if let Some(NodeRef::Options(mut cache)) = o.take_node("cache")? {
            inherit.direct = cache.take_bool("direct")?.unwrap_or(inherit.direct);
            inherit.no_flush = cache.take_bool("no-flush")?.unwrap_or(inherit.no_flush);
            cache.finish("cache")?;
        }
        if let Some(word) = o.take_choice("discard", &["ignore", "off", "unmap", "on"])? {
            inherit.discard = matches!(word, "unmap" | "on");
        }
        inherit.force_share |= o.take_bool("force-share")?.unwrap_or(false);
        let detect_zeroes = DetectZeroes::take(&mut o)?;
        let driver = o.take_text("driver")?;
        let settings = NodeSettings {
            readonly: inherit.readonly,
            direct: inherit.direct,
            no_flush: inherit.no_flush,
            discard: inherit.discard,
            detect_zeroes,
        };
        let opened = match driver.as_deref() {
            Some("file" | "host_device") => Self::open_host_file(o, &inherit, automatic),
            Some("nbd") => {
                let client = NbdClient::open(o, inherit.readonly)?;
                let filename = client.filename().to_owned();
                Ok(Parts { driver: "nbd", filename, kind: Kind::Nbd(client), children: Vec::new() })
            }
            Some("null-co" | "null-aio") => {
                let size = o.take_size("size")?.unwrap_or(1 << 30);
                // It reads as zero in any case.
                o.take_bool("read-zeroes")?;
                o.take_text("filename")?;
                o.finish("null-co")?;
                let kind = Kind::Null(Arc::new(NullBackend::new(size)));
                Ok(Parts { driver: "null-co", filename: "null-co://".to_owned(), kind, children: Vec::new() })
            }
            other => self.open_format(other, o, &inherit),
        }?;
        let name = name.unwrap_or_else(|| format!("#block{:03}", self.anonymous.fetch_add(1, Ordering::Relaxed)));
        let node = Arc::new(Node::new(name.clone(), opened, inherit.depth > 1, settings));
        if !name.starts_with('#') {
            self.nodes.lock().insert(name, node.clone());
        }
        Ok(node)
    }

    fn open_host_file(mut o: NodeOptions, inherit: &Inherit, automatic: bool) -> Result<Parts, String> {
        let filename = o.need_text("filename")?;
        let filename = filename.strip_prefix("file:").unwrap_or(&filename).to_owned();
        let no_lock = o.take_choice("locking", &["auto", "on", "off"])?.map_or(inherit.no_lock, |w| w == "off");
        if let Some(aio) = o.take_choice("aio", &["threads", "native", "io_uring"])?
            && aio != "threads"
        {
            return Err(format!("'aio={aio}' is not supported: use aio=threads"));
        }
        o.finish("file")?;
        let options = FileOptions {
            readonly: inherit.readonly,
            direct: inherit.direct,
            no_flush: inherit.no_flush,
            discard: inherit.discard,
            no_lock,
            force_share: inherit.force_share,
            away: inherit.away && !inherit.readonly,
        };
        let path = PathBuf::from(&filename);
        let file = match FileNode::open(&path, options) {
            Err(e) if automatic && !inherit.readonly && e.contains("denied") => {
                FileNode::open(&path, FileOptions { readonly: true, away: false, ..options }).map_err(|_| e)?
            }
            other => other?,
        };
        let driver = if file.is_block_device() { "host_device" } else { "file" };
        Ok(Parts { driver, filename, kind: Kind::File(Arc::new(file)), children: Vec::new() })
    }

    fn open_format(&self, driver: Option<&str>, mut o: NodeOptions, inherit: &Inherit) -> Result<Parts, String> {
        if let Some(driver) = driver
            && !["raw", "qcow2", "vmdk", "vpc"].contains(&driver)
        {
            return Err(format!(
                "block driver '{driver}' is not supported: use raw, qcow2, vmdk, vpc, file, host_device, nbd or null-co"
            ));
        }
        let below = match o.take_node("file")? {
            Some(NodeRef::Options(file)) => Some(NodeRef::Options(file.as_file()?)),
            Some(file) => Some(file),
            None => match o.take_text("filename")? {
                Some(filename) => Some(NodeRef::Options(protocol_options(&filename)?)),
                None => None,
            },
        };
        let file = self.child(below, inherit)?.ok_or("'file' is missing: the node that the image is in")?;
        let readonly = inherit.readonly || file.backend().readonly();
        if readonly && !inherit.readonly {
            return Err(format!("'{}' is read-only", file.filename()));
        }
        let (format, guessed) = match driver {
            Some("raw") => (Format::Raw, false),
            Some("qcow2") => (Format::Qcow2, false),
            Some("vmdk") => (Format::Vmdk, false),
            Some("vpc") => (Format::Vpc, false),
            _ => {
                let mut head = vec![0; 512.min(file.backend().capacity() as usize)];
                file.backend()
                    .read_bytes(0, &mut head)
                    .map_err(|e| format!("cannot read '{}': {}", file.filename(), crate::error_text(&e)))?;
                (probe(&head), true)
            }
        };
        let filename = file.filename().to_owned();
        let mut children = vec![("file".to_owned(), file.clone())];
        let backend = file.backend();
        let kind = match format {
            Format::Raw => {
                if guessed && inherit.warn_guess && !inherit.readonly {
                    eprintln!(
                        "rhea: warning: no format was given for '{filename}' and it is taken as raw: writes to sector 0 are restricted; say format=raw to lift this"
                    );
                }
                let offset = o.take_size("offset")?.unwrap_or(0);
                let size = o.take_size("size")?;
                o.finish("raw")?;
                let raw = RawNode::new(backend, offset, size, guessed && !inherit.readonly);
                Kind::Raw(Arc::new(raw.map_err(|e| format!("'{filename}': {e}"))?))
            }
            Format::Qcow2 => {
                let options = Qcow2Options::take(&mut o, inherit)?;
                let (backing, data_file) = (o.take_node("backing")?, o.take_node("data-file")?);
                o.finish("qcow2")?;
                let (image, found) = Qcow2::open(backend, options).map_err(|e| format!("'{filename}': {e}"))?;
                let mut data_options = *inherit;
                data_options.no_backing = true;
                if let Some(name) = &found.data_file {
                    let data_file = match data_file {
                        Some(NodeRef::Options(data_file)) => NodeRef::Options(data_file.as_file()?),
                        Some(data_file) => data_file,
                        None if name.is_empty() => {
                            return Err(format!("'{filename}': the image has an external data file: give data-file="));
                        }
                        // Unlike that of a backing file, the name is not meant to be beside the image.
                        None => NodeRef::Options(protocol_options(name)?),
                    };
                    let data = self.child(Some(data_file), &data_options)?;
                    let data = data.ok_or_else(|| format!("'{filename}': 'data-file' is missing"))?;
                    image.set_data_file(data.backend());
                    children.push(("data-file".to_owned(), data));
                } else if data_file.is_some() {
                    return Err(format!("'{filename}': 'data-file' is given, but the image has no external data file"));
                }
                let below = Inherit { readonly: true, check: false, ..*inherit };
                let backing = match backing {
                    Some(backing) => self.child(Some(backing), &below)?,
                    None if inherit.no_backing => None,
                    None => match &found.backing_file {
                        None => None,
                        Some(name) => {
                            let name = relative(&filename, name);
                            let mut options = NodeOptions::default();
                            if let Some(format) = &found.backing_format {
                                options.default_text("driver", format);
                            }
                            let opened = self.open_file(&name, options, &below);
                            // A chain without end is told once, not at each image.
                            Some(opened.map_err(|e| match e.contains(ENDLESS) {
                                true => e,
                                false => format!("backing file of '{filename}': {e}"),
                            })?)
                        }
                    },
                };
                if let Some(backing) = backing {
                    image.set_backing(Some(backing.backend()));
                    children.push(("backing".to_owned(), backing));
                }
                if !inherit.check {
                    image.prepare().map_err(|e| format!("'{filename}': {}", crate::error_text(&e)))?;
                }
                Kind::Qcow2(image)
            }
            Format::Vmdk => {
                if !inherit.readonly {
                    return Err(format!("'{filename}': vmdk images are only read: use readonly=on or snapshot=on"));
                }
                o.finish("vmdk")?;
                let base = PathBuf::from(&filename);
                let vmdk = Vmdk::open(backend, |name| {
                    // The names in the descriptor are beside it.
                    let path = base.parent().unwrap_or(Path::new("")).join(name);
                    let options = protocol_options(&path.to_string_lossy())?;
                    let node = self.open(options, inherit)?;
                    children.push((format!("extents.{}", children.len() - 1), node.clone()));
                    Ok(node.backend())
                });
                Kind::Vmdk(Arc::new(vmdk.map_err(|e| format!("'{filename}': {e}"))?))
            }
            Format::Vpc => {
                if !inherit.readonly {
                    return Err(format!("'{filename}': vpc images are only read: use readonly=on or snapshot=on"));
                }
                o.finish("vpc")?;
                Kind::Vpc(Arc::new(Vpc::open(backend).map_err(|e| format!("'{filename}': {e}"))?))
            }
            Format::Other(name) => {
                return Err(format!(
                    "image '{filename}' has format '{name}', which is not supported: convert it to raw or qcow2, or say format=raw to use it as it is"
                ));
            }
        };
        Ok(Parts { driver: format.name(), filename, kind, children })
    }
}

impl NodeOptions {
    fn driver_is_protocol(&self) -> bool {
        self.text("driver").is_some_and(|d| PROTOCOLS.contains(&d))
    }
    /// What is below a format is a file, unless something else is said.
    fn as_file(mut self) -> Result<Self, String> {
        if self.has("driver") {
            return Ok(self);
        }
        let Some(filename) = self.take_text("filename")? else { return Ok(self) };
        let mut options = protocol_options(&filename)?;
        options.merge(self)?;
        Ok(options)
    }
    /// Adds all keys of `other`; those win.
    fn merge(&mut self, other: Self) -> Result<(), String> {
        let serde_json::Value::Object(map) = other.to_json() else { return Ok(()) };
        for (key, value) in map {
            if !value.is_object() {
                self.remove(&key);
            }
            self.insert(&key, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> NodeOptions {
        NodeOptions::parse(text).unwrap()
    }

    #[test]
    fn names_come_and_go() {
        let graph = BlockGraph::new();
        let inherit = Inherit::default();
        let add = |text: &str| graph.add(options(text), &inherit).map(|n| n.name().to_owned());
        assert_eq!(add("driver=null-co,node-name=a,size=1M"), Ok("a".to_owned()));
        assert!(add("driver=null-co,node-name=a").unwrap_err().contains("twice"));
        assert!(add("driver=null-co").unwrap_err().contains("node-name"));
        assert!(add("driver=null-co,node-name=1a").unwrap_err().contains("invalid"));
        assert!(add("driver=raw,node-name=b,file=c").unwrap_err().contains("'c'"));
        assert!(add("driver=qed,node-name=b,file=a").unwrap_err().contains("'qed'"));
        assert_eq!(add("driver=raw,node-name=b,file=a"), Ok("b".to_owned()));
        assert!(add("driver=raw,node-name=c,file=a").unwrap_err().contains("in use by node 'b'"));
        assert!(graph.remove("a").unwrap_err().contains("'b'"));
        // What is described inside another goes with it, also if that fails.
        assert!(add("driver=raw,node-name=d,offset=1,file.driver=null-co,file.node-name=e").is_err());
        assert!(graph.get("e").is_none());
        assert_eq!(add("driver=raw,node-name=d,file.driver=null-co,file.node-name=e"), Ok("d".to_owned()));
        let user = graph.get("d").unwrap();
        assert!(graph.get("e").is_some() && graph.remove("d").unwrap_err().contains("busy"));
        // Whoever still has a drive that has let go keeps nothing.
        let drive = Drive::for_node("d", &user);
        drop(user);
        assert!(graph.remove("d").unwrap_err().contains("busy"));
        drive.let_go();
        graph.remove("d").unwrap();
        assert!(graph.get("e").is_none());
        assert!(drive.read_bytes(0, &mut [0; 512]).is_err() && drive.node().is_none());
        graph.remove("b").unwrap();
        graph.remove("a").unwrap();
        assert!(graph.nodes().is_empty());
    }

    #[test]
    fn relative_names() {
        for (base, name, full) in [
            ("/a/b.qcow2", "c", "/a/c"),
            ("b.qcow2", "c", "c"),
            ("a/b", "/c", "/c"),
            ("a/b", "nbd:x:1", "nbd:x:1"),
            ("file:a/b", "c", "a/c"),
        ] {
            assert_eq!(relative(base, name), full);
        }
    }
}
