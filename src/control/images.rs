//! Commands that work on images in use: snapshots, copies, and chains that become shorter.

use super::bitmaps::{self, Used};
use super::jobs::speed;
use super::{Context, storage};
use rhea_block::image::ImageOptions;
use rhea_block::job::{Backup, Copier, Installed, Put, put_over, stream as take_in};
use rhea_block::qcow2::{CreateOptions, Snapshot};
use rhea_block::{BlockBackend, Drive, FileNode, Inherit, Kind, Node, NodeOptions};
use rhea_control::{Call, Commands, Error, Finish, Job, JobSettings, Map, Value, Work, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("blockdev-mirror", mirror),
        ("blockdev-backup", |context, call| begin(context, backup(context, call.arguments())?)),
        ("block-commit", commit),
        ("block-stream", stream),
        ("blockdev-snapshot", |context, call| put(&[snapshot(context, call.arguments())?])),
        ("blockdev-snapshot-sync", |context, call| put(&[snapshot_sync(context, call.arguments())?])),
        ("blockdev-snapshot-internal-sync", |context, call| {
            let node = internal(context, call.arguments())?;
            keep(&node, call.required("name")).map(|()| json!({}))
        }),
        ("blockdev-snapshot-delete-internal-sync", delete_internal),
        ("transaction", transaction),
        ("blockdev-create", create),
    ]);
}

type Result<T = Value> = std::result::Result<T, Error>;
pub(super) type Arguments = Map<String, Value>;

pub(super) fn text<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

/// A node by its name, or by that of the drive on it, or of the drive's device.
pub fn node(context: &Context, name: &str) -> Result<Arc<Node>> {
    let of_graph = || context.machine.block_nodes().into_iter().find(|n| n.name() == name);
    let of_drive = || storage::drive(context, name).and_then(|d| d.node());
    let missing = || Error::new(format!("Cannot find device='{name}' nor node-name='{name}'"));
    of_graph().or_else(of_drive).ok_or_else(missing)
}

/// The drives on a node.
pub fn drives_on(context: &Context, node: &Arc<Node>) -> Vec<Arc<Drive>> {
    let mut drives = context.machine.inventory().drives();
    drives.retain(|d| d.node().is_some_and(|n| Arc::ptr_eq(&n, node)));
    drives
}

/// What jobs take alike. `device`: what the job is called if that is not said.
fn settings(arguments: &Arguments, kind: &'static str, uses: Vec<String>) -> Result<JobSettings> {
    for name in ["on-error", "on-source-error", "on-target-error"] {
        if let Some(word) = text(arguments, name).filter(|w| !matches!(*w, "report" | "auto")) {
            return Err(Error::new(format!("'{name}': '{word}' is not supported: use report")));
        }
    }
    let flag = |name: &str| arguments.get(name).and_then(Value::as_bool).unwrap_or(true);
    let id = text(arguments, "job-id").or_else(|| text(arguments, "device")).unwrap_or_default();
    Ok(JobSettings {
        id: id.to_owned(),
        kind,
        block: true,
        speed: speed(arguments.get("speed").and_then(Value::as_i64))?,
        auto_finalize: flag("auto-finalize"),
        auto_dismiss: flag("auto-dismiss"),
        uses,
    })
}

fn names(nodes: &[&Arc<Node>]) -> Vec<String> {
    nodes.iter().map(|n| n.name().to_owned()).collect()
}

fn told(e: std::io::Error) -> String {
    Error::from(e).text
}

fn begin(context: &Context, (settings, work): (JobSettings, Work)) -> Result {
    context.jobs.start(settings, work).map(|()| json!({}))
}

/// The images from a node down.
fn chain(node: &Arc<Node>) -> Vec<Arc<Node>> {
    let mut all = vec![node.clone()];
    while let Some(below) = all.last().and_then(|n| n.child("backing")) {
        all.push(below);
    }
    all
}

/// Where in a chain an image is, by the name of its node or of its file.
fn place(chain: &[Arc<Node>], name: Option<&str>, file: Option<&str>) -> Result<Option<usize>> {
    let found = match (name, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Error::new("a node and a file name of the same image are given: use one")),
        (Some(name), None) => chain.iter().position(|n| n.name() == name),
        (None, Some(file)) => chain.iter().position(|n| n.filename() == file),
    };
    let name = name.or(file).unwrap_or_default();
    found.map(Some).ok_or_else(|| Error::new(format!("'{name}' is not in the backing chain of '{}'", chain[0].name())))
}

/// The drive on a node that is to be copied, if there is one.
fn one_drive(context: &Context, node: &Arc<Node>) -> Result<Option<Arc<Drive>>> {
    let mut drives = drives_on(context, node);
    match drives.len() {
        0 | 1 => Ok(drives.pop()),
        _ => Err(Error::new(format!("Node '{}' is in use by several drives", node.name()))),
    }
}

pub fn may_write(node: &Node) -> Result<()> {
    if node.settings().readonly {
        return Err(Error::new(format!("Node '{}' is read-only", node.name())));
    }
    Ok(())
}

/// What is to be copied, and where to: a node that nobody uses.
fn source_and_target(context: &Context, arguments: &Arguments) -> Result<(Arc<Node>, Arc<Node>)> {
    let named = |key| node(context, text(arguments, key).unwrap_or_default());
    let (source, target) = (named("device")?, named("target")?);
    may_write(&target)?;
    if source.contains(target.name()) || !drives_on(context, &target).is_empty() {
        return Err(Error::new(format!("Node '{}' is busy: it is in use", target.name())));
    }
    if source.backend().capacity() != target.backend().capacity() {
        return Err(Error::new("Source and target image have different sizes"));
    }
    Ok((source, target))
}

/// A copy that follows: of what, by which drive, and what comes in the place of the source.
struct Following {
    copier: Arc<Copier>,
    filter: Option<Installed>,
    drive: Option<Arc<Drive>>,
    target: Arc<Node>,
}

impl Following {
    /// Copies until it is told to complete, then puts the target in the source's place.
    fn run(self, job: &Job) -> std::result::Result<Finish, String> {
        let Self { copier, filter, drive, target } = self;
        job.set_left(copier.left());
        loop {
            match copier.step().map_err(told)? {
                Some(len) => job.proceed(len)?,
                None => {
                    job.ready();
                    job.proceed(0)?;
                    if job.is_completing() {
                        break;
                    }
                    job.rest(Duration::from_millis(100));
                }
            }
            job.set_left(copier.left());
        }
        let soft = job.is_soft();
        Ok(Box::new(move || {
            let ended = || copier.finish().map_err(told);
            let Some(filter) = filter else { return ended() };
            if soft {
                // The copy is of this moment.
                return filter.remove_after(ended);
            }
            filter.replace(|| ended().map(|()| target.backend()))?;
            if let Some(drive) = drive {
                drive.set_node(Some(target));
            }
            Ok(())
        }))
    }
}

fn mirror(context: &Context, call: &mut Call<'_>) -> Result {
    let (source, target) = source_and_target(context, call.arguments())?;
    if call.text("copy-mode") == Some("write-blocking") {
        return Err(Error::new("'copy-mode': 'write-blocking' is not supported: use background"));
    }
    let unit = match call.unsigned("granularity").unwrap_or(0) {
        0 => target.backend().cluster_size().clamp(4096, 64 << 10),
        n if n.is_power_of_two() && (512..=64 << 20).contains(&n) => n,
        _ => return Err(Error::new("Parameter 'granularity' expects a power of 2 from 512 to 64 MiB")),
    };
    let settings = settings(call.arguments(), "mirror", names(&[&source, &target]))?;
    let copier = Copier::new(&source.backend(), &target.backend(), unit).map_err(Error::new)?;
    let sync = call.required("sync").to_owned();
    let mark = || match sync.as_str() {
        "full" => {
            copier.mark_all();
            Ok(())
        }
        "top" => copier.mark_top().map_err(told),
        "none" => Ok(()),
        other => Err(format!("Sync mode '{other}' not supported")),
    };
    let drive = one_drive(context, &source)?;
    let filter = install(drive.as_ref(), &source.backend(), copier.clone(), mark)?;
    let following = Following { copier, filter, drive, target };
    begin(context, (settings, Box::new(move |job| following.run(job))))
}

/// Puts a filter over an image that a drive is on; otherwise nobody changes it.
fn install(
    drive: Option<&Arc<Drive>>,
    image: &Arc<dyn BlockBackend>,
    watch: Arc<dyn rhea_block::job::Watch>,
    ready: impl FnOnce() -> std::result::Result<(), String>,
) -> Result<Option<Installed>> {
    match drive {
        Some(drive) => Installed::new(drive, image, watch, ready).map(Some).map_err(Error::new),
        None => ready().map(|()| None).map_err(Error::new),
    }
}

fn backup(context: &Context, arguments: &Arguments) -> Result<(JobSettings, Work)> {
    let (source, target) = source_and_target(context, arguments)?;
    let settings = settings(arguments, "backup", names(&[&source, &target]))?;
    let backup = Backup::new(&source.backend(), &target.backend()).map_err(Error::new)?;
    let sync = text(arguments, "sync").unwrap_or_default().to_owned();
    let drive = one_drive(context, &source)?;
    let mut used = Used::of(&source, arguments, &backup)?;
    let ready = || {
        // What changes from here on is dirty for the next one.
        if let Some(used) = &mut used {
            used.begin();
        }
        match (sync.as_str(), &used) {
            ("full" | "none", _) => Ok(()),
            ("top", _) => backup.only_top().map_err(told),
            ("bitmap" | "incremental", Some(used)) => {
                backup.only(used.parts());
                Ok(())
            }
            (other, _) => Err(format!("Sync mode '{other}' not supported")),
        }
    };
    let filter = install(drive.as_ref(), &source.backend(), backup.clone(), ready)?;
    let work = move |job: &Job| {
        // It goes when the job ends.
        let _filter = filter;
        if sync == "none" {
            // What is about to change is copied until somebody ends that.
            loop {
                job.proceed(0)?;
                backup.check().map_err(told)?;
                job.rest(Duration::from_millis(100));
            }
        }
        job.set_total(backup.len());
        let mut cancelled = false;
        let ran = backup.run(|bytes| {
            cancelled = job.proceed(bytes).is_err();
            !cancelled
        });
        ran.map_err(told)?;
        let finish = move || {
            if let Some(used) = used {
                used.succeed();
            }
            Ok(())
        };
        Ok(Box::new(finish) as Finish)
    };
    Ok((settings, Box::new(work)))
}

fn stream(context: &Context, call: &mut Call<'_>) -> Result {
    let image = node(context, call.required("device"))?;
    let images = chain(&image);
    let Some(drive) = one_drive(context, &image)? else {
        return Err(Error::new(format!("Node '{}': only the image that a drive is on takes in others", image.name())));
    };
    may_write(&image)?;
    let mut base = place(&images, call.text("base-node"), call.text("base"))?;
    if let Some(bottom) = place(&images, call.text("bottom"), None)? {
        if base.is_some() {
            return Err(Error::new("'bottom' and 'base' cannot be used at the same time"));
        }
        base = (bottom + 1 < images.len()).then_some(bottom + 1);
    }
    if base == Some(0) {
        return Err(Error::new(format!("'{}' cannot be its own base", image.name())));
    }
    let base = base.map(|n| images[n].clone());
    let name = call.text("backing-file").map(str::to_owned);
    let settings = settings(call.arguments(), "stream", names(&images.iter().collect::<Vec<_>>()))?;
    let work = move |job: &Job| {
        let backend = image.backend();
        job.set_total(backend.capacity());
        let below = base.as_ref().map(|b| b.backend());
        take_in(&drive, &backend, below.as_ref(), |bytes| job.proceed(bytes).is_ok()).map_err(told)?;
        let finish: Finish = Box::new(move || put_below(&image, base, name));
        Ok(finish)
    };
    begin(context, (settings, Box::new(work)))
}

/// Puts another image below one, and says so in its header.
fn put_below(image: &Node, base: Option<Arc<Node>>, name: Option<String>) -> std::result::Result<(), String> {
    let format = base.as_ref().map(|b| b.driver());
    let name = base.as_ref().map(|b| name.unwrap_or_else(|| b.filename().to_owned()));
    if let Some(qcow2) = image.qcow2() {
        let readonly = image.settings().readonly;
        image.set_readonly(false)?;
        let written = qcow2.set_backing_name(name.as_deref(), format).map_err(told);
        image.set_readonly(readonly)?;
        written?;
    }
    image.set_backing(base)
}

fn commit(context: &Context, call: &mut Call<'_>) -> Result {
    let active = node(context, call.required("device"))?;
    let images = chain(&active);
    let top = place(&images, call.text("top-node"), call.text("top"))?.unwrap_or(0);
    let base = place(&images, call.text("base-node"), call.text("base"))?.unwrap_or(images.len() - 1);
    if top >= base {
        return Err(Error::new(format!("'{}' is not below '{}'", images[base].name(), images[top].name())));
    }
    // The one over those that go has another below it at the end.
    let over = top.checked_sub(1).map(|n| images[n].clone());
    let settings =
        settings(call.arguments(), "commit", names(&images[top.saturating_sub(1)..=base].iter().collect::<Vec<_>>()))?;
    if over.is_none() && call.text("backing-file").is_some() {
        return Err(Error::new("'backing-file' specified, but 'top' is the active layer"));
    }
    let (top, base) = (images[top].clone(), images[base].clone());
    let name = call.text("backing-file").map(str::to_owned);
    let drive = match over {
        Some(_) => None,
        None => one_drive(context, &top)?,
    };
    let writable = Writable::new(&base)?;
    let (source, target) = (top.backend(), base.backend());
    if target.capacity() < source.capacity() {
        target.resize(source.capacity())?;
    }
    let unit = target.cluster_size().clamp(4096, 64 << 10);
    let copier = Copier::new(&source, &target, unit).map_err(Error::new)?;
    let mark = || copier.mark_above(&target).map_err(told);
    let filter = install(drive.as_ref(), &source, copier.clone(), mark)?;
    let work = move |job: &Job| -> std::result::Result<Finish, String> {
        let Some(over) = over else {
            let finish = Following { copier, filter, drive, target: base }.run(job)?;
            let soft = job.is_soft();
            return Ok(Box::new(move || {
                finish()?;
                if !soft {
                    // The drive is on it now.
                    writable.keep();
                }
                Ok(())
            }));
        };
        job.set_left(copier.left());
        while let Some(len) = copier.step().map_err(told)? {
            job.proceed(len)?;
        }
        Ok(Box::new(move || {
            copier.finish().map_err(told)?;
            drop(writable);
            put_below(&over, Some(base), name)
        }))
    };
    begin(context, (settings, Box::new(work)))
}

/// An image that is written for a time, if it was only read.
struct Writable(Option<Arc<Node>>);

impl Writable {
    fn new(node: &Arc<Node>) -> Result<Self> {
        let readonly = node.settings().readonly;
        node.set_readonly(false).map_err(Error::new)?;
        Ok(Self(readonly.then(|| node.clone())))
    }
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.0.take().map(|node| node.set_readonly(true)) {
            eprintln!("rhea: warning: {e}");
        }
    }
}

fn put(puts: &[Put]) -> Result {
    put_over(puts).map(|()| json!({})).map_err(Error::new)
}

fn snapshot(context: &Context, arguments: &Arguments) -> Result<Put> {
    let name = |key| text(arguments, key).unwrap_or_default();
    let (below, overlay) = (node(context, name("node"))?, node(context, name("overlay"))?);
    if below.contains(overlay.name()) || !drives_on(context, &overlay).is_empty() {
        return Err(Error::new(format!("Node '{}' is busy: it is in use", overlay.name())));
    }
    let drives = drives_on(context, &below);
    Ok(Put { node: below, overlay, drives })
}

fn snapshot_sync(context: &Context, arguments: &Arguments) -> Result<Put> {
    let below = match (text(arguments, "device"), text(arguments, "node-name")) {
        (Some(name), None) | (None, Some(name)) => node(context, name)?,
        _ => return Err(Error::new("Need exactly one of 'device' and 'node-name'")),
    };
    let format = text(arguments, "format").unwrap_or("qcow2");
    if format != "qcow2" {
        return Err(Error::new(format!("format '{format}' of a snapshot is not supported: use qcow2")));
    }
    let file = text(arguments, "snapshot-file").unwrap_or_default();
    if text(arguments, "mode") != Some("existing") {
        let name = below.filename();
        // It is to be found from where the new image is.
        let name = match Path::new(name).exists() {
            true => std::path::absolute(name)?.to_string_lossy().into_owned(),
            false => name.to_owned(),
        };
        let options = CreateOptions {
            size: below.backend().capacity(),
            backing_file: Some(name),
            backing_format: Some(below.driver().to_owned()),
            ..CreateOptions::default()
        };
        rhea_block::image::create(file.as_ref(), &ImageOptions::Qcow2(options)).map_err(Error::new)?;
    }
    let mut options = json!({"driver": format, "backing": null});
    if let Some(name) = text(arguments, "snapshot-node-name") {
        options["node-name"] = json!(name);
    }
    let options = NodeOptions::from_json(options).map_err(Error::new)?;
    let s = below.settings();
    let inherit = Inherit { direct: s.direct, no_flush: s.no_flush, discard: s.discard, ..Inherit::default() };
    let overlay = context.machine.block_graph().map_err(|e| Error::new(e.message))?;
    let overlay = overlay.open_file(file, options, &inherit).map_err(Error::new)?;
    let drives = drives_on(context, &below);
    Ok(Put { node: below, overlay, drives })
}

/// The image whose snapshots a command means.
fn internal(context: &Context, arguments: &Arguments) -> Result<Arc<Node>> {
    let device = text(arguments, "device").unwrap_or_default();
    let node = node(context, device)?;
    if node.qcow2().is_none() {
        return Err(Error::new(format!(
            "Block format '{}' used by device '{device}' does not support internal snapshots",
            node.driver()
        )));
    }
    if let Some(name) = text(arguments, "name")
        && name.is_empty()
    {
        return Err(Error::new("Name is empty"));
    }
    Ok(node)
}

fn keep(node: &Node, name: &str) -> Result<()> {
    let Some(qcow2) = node.qcow2() else { return Ok(()) };
    if qcow2.snapshots().iter().any(|s| s.name == name) {
        return Err(Error::new(format!("Snapshot with name '{name}' already exists on device '{}'", node.name())));
    }
    qcow2.create_snapshot(name)?;
    Ok(())
}

fn delete_internal(context: &Context, call: &mut Call<'_>) -> Result {
    let node = internal(context, call.arguments())?;
    let (id, name) = (call.text("id"), call.text("name"));
    if id.is_none() && name.is_none() {
        return Err(Error::new("Name or id must be provided"));
    }
    let Some(qcow2) = node.qcow2() else { return Ok(json!({})) };
    let same = |s: &Snapshot| id.is_none_or(|id| s.id == id) && name.is_none_or(|name| s.name == name);
    let Some(found) = qcow2.snapshots().into_iter().find(same) else {
        return Err(Error::new(format!(
            "Snapshot with id '{}' and name '{}' does not exist on device '{}'",
            id.unwrap_or("null"),
            name.unwrap_or("null"),
            call.required("device")
        )));
    };
    qcow2.delete_snapshot(&found.id)?;
    const SECOND: u64 = 1_000_000_000;
    Ok(json!({
        "id": found.id, "name": found.name, "vm-state-size": found.vm_state_size, "date-sec": found.seconds,
        "date-nsec": found.nanoseconds, "vm-clock-sec": found.vm_clock_ns / SECOND,
        "vm-clock-nsec": found.vm_clock_ns % SECOND,
    }))
}

fn transaction(context: &Context, call: &mut Call<'_>) -> Result {
    let grouped = call.get("properties").is_some_and(|p| p["completion-mode"] == "grouped");
    if grouped {
        return Err(Error::new("'completion-mode': 'grouped' is not supported: use individual"));
    }
    let actions = call.get("actions").and_then(Value::as_array).cloned().unwrap_or_default();
    // Nothing is written meanwhile that depends on what was written before.
    context.paused(|| {
        let (mut puts, mut kept, mut backups) = (Vec::new(), Vec::new(), Vec::new());
        let mut done = bitmaps::Done::default();
        let nothing = Map::new();
        for action in &actions {
            let data = action["data"].as_object().unwrap_or(&nothing);
            match action["type"].as_str().unwrap_or_default() {
                "blockdev-snapshot" => puts.push(snapshot(context, data)?),
                "blockdev-snapshot-sync" => puts.push(snapshot_sync(context, data)?),
                "blockdev-snapshot-internal-sync" => {
                    kept.push((internal(context, data)?, text(data, "name").unwrap_or_default()));
                }
                "blockdev-backup" => backups.push(backup(context, data)?),
                kind if kind.starts_with("block-dirty-bitmap-") => done.act(context, kind, data)?,
                _ => return Err(Error::new("Transaction aborted using Abort action")),
            }
        }
        // What was done is taken back if something else fails.
        for (n, (node, name)) in kept.iter().enumerate() {
            if let Err(e) = keep(node, name) {
                undo(&kept[..n]);
                return Err(e);
            }
        }
        if let Err(e) = put(&puts) {
            undo(&kept);
            return Err(e);
        }
        for one in backups {
            begin(context, one)?;
        }
        done.keep();
        Ok(json!({}))
    })
}

fn undo(kept: &[(Arc<Node>, &str)]) {
    for (node, name) in kept {
        if let Some(Err(e)) = node.qcow2().map(|q| q.delete_snapshot(name)) {
            eprintln!("rhea: warning: node '{}': {}", node.name(), told(e));
        }
    }
}

fn create(context: &Context, call: &mut Call<'_>) -> Result {
    let nothing = Map::new();
    let options = call.get("options").and_then(Value::as_object).unwrap_or(&nothing);
    let file_node = |name: &str| -> Result<Arc<FileNode>> {
        match node(context, name)?.kind() {
            Kind::File(file) => Ok(file.clone()),
            _ => Err(Error::new(format!("Node '{name}' is not a file"))),
        }
    };
    let mut uses = Vec::new();
    let what: Box<dyn FnOnce() -> std::result::Result<(), String> + Send> = if text(options, "driver") == Some("file") {
        let path = text(options, "filename").unwrap_or_default().to_owned();
        let raw = pick(options, &["size", "preallocation"])?;
        let raw = ImageOptions::parse("raw", raw).map_err(Error::new)?;
        Box::new(move || rhea_block::image::create(path.as_ref(), &raw))
    } else {
        let known = ["size", "preallocation", "backing-file", "backing-fmt", "cluster-size", "lazy-refcounts"];
        let more = ["refcount-bits", "compression-type", "extended-l2", "data-file-raw"];
        let mut words = pick(options, &[&known[..], &more[..]].concat())?;
        if let Some(version) = text(options, "version") {
            words.default_text("compat", version);
        }
        let mut qcow2 = CreateOptions::take(&mut words).map_err(Error::new)?;
        let name = text(options, "file").unwrap_or_default();
        let file = file_node(name)?;
        uses.push(name.to_owned());
        let data = text(options, "data-file").map(&file_node).transpose()?;
        if let (Some(data), Some(name)) = (&data, text(options, "data-file")) {
            uses.push(name.to_owned());
            qcow2.data_file = Some(data.path().to_string_lossy().into_owned());
        }
        Box::new(move || rhea_block::image::create_in(&file, qcow2, data))
    };
    context.jobs.start_step(call.required("job-id"), "create", uses, what).map(|()| json!({}))
}

/// Some of the options, by the names that images' options have.
fn pick(options: &Arguments, names: &[&str]) -> Result<NodeOptions> {
    let mut picked = NodeOptions::default();
    for name in names {
        let Some(value) = options.get(*name) else { continue };
        picked.insert(&name.replace('-', "_"), value.clone()).map_err(Error::new)?;
    }
    Ok(picked)
}
