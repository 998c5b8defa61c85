//! `convert`

use crate::args::{Args, CACHE, FORMAT, IMAGE_OPTS, Opt, PROGRESS, QUIET, SHARE, SOURCE_CACHE, Spec};
use crate::{Output, cache, create, host, open, size, with_progress};
use rhea_block::image::{ConvertOptions, ImageOptions, convert};
use rhea_block::qcow2::Qcow2;
use rhea_block::{BlockBackend, Extent, ExtentKind, Inherit, Segment};
use std::io;
use std::path::Path;
use std::sync::Arc;

pub const SPEC: Spec = Spec {
    about: "copy an image into another format",
    options: &[
        FORMAT,
        IMAGE_OPTS,
        SHARE,
        PROGRESS,
        QUIET,
        CACHE,
        SOURCE_CACHE,
        Opt('O', &["target-format"], Some("FMT"), "format of the new image (default: raw)"),
        Opt('o', &["target-options"], Some("OPTIONS"), "options of the new image (-o help lists them)"),
        Opt('c', &["compress"], None, "compress the new image"),
        Opt('B', &["backing"], Some("FILE"), "put the new image over this one"),
        Opt('F', &["backing-format"], Some("FMT"), "format of the image below"),
        Opt('l', &["source-snapshot"], Some("SNAPSHOT"), "copy a snapshot: its name or id"),
        Opt('n', &["no-create"], None, "the target is there already"),
        Opt('\u{2}', &["target-is-zero"], None, "the target reads as zero"),
        Opt('S', &["sparse-size"], Some("SIZE"), "zeroes of so many bytes take no storage; 0: all do (default: 4k)"),
        Opt('m', &["parallel"], Some("N"), "threads"),
        Opt('W', &["oob-writes"], None, "accepted: what is written is in any order"),
    ],
    operands: "SOURCE... TARGET",
    count: (1, usize::MAX),
};

/// Several images, one behind the other.
struct Row(Vec<Arc<dyn BlockBackend>>);

impl Row {
    fn find(&self, mut offset: u64) -> io::Result<(&dyn BlockBackend, u64)> {
        for image in &self.0 {
            if offset < image.capacity() {
                return Ok((&**image, offset));
            }
            offset -= image.capacity();
        }
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// A disk that is only read.
trait Source: Send + Sync {
    fn len(&self) -> u64;
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;
    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent>;
}

impl Source for Row {
    fn len(&self) -> u64 {
        self.0.iter().map(|i| i.capacity()).sum()
    }
    fn read(&self, mut offset: u64, mut data: &mut [u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (image, at) = self.find(offset)?;
            let n = (data.len() as u64).min(image.capacity() - at) as usize;
            let (now, rest) = data.split_at_mut(n);
            image.read_bytes(at, now)?;
            offset += n as u64;
            data = rest;
        }
        Ok(())
    }
    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let (image, at) = self.find(offset)?;
        rhea_block::image::status(image, at, len.min(image.capacity() - at))
    }
}

/// A disk as it was.
struct Old {
    image: Arc<Qcow2>,
    snapshot: String,
    len: u64,
}

impl Source for Old {
    fn len(&self) -> u64 {
        self.len
    }
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.image.read_snapshot(&self.snapshot, offset, data)
    }
    fn extent(&self, _offset: u64, len: u64) -> io::Result<Extent> {
        Ok(Extent::data(len))
    }
}

struct Reader<S>(S);

impl<S: Source> BlockBackend for Reader<S> {
    fn capacity(&self) -> u64 {
        self.0.len()
    }
    fn read(&self, mut offset: u64, segments: &mut [Segment]) -> io::Result<()> {
        for s in segments {
            let mut data = vec![0; s.len() as usize];
            self.0.read(offset, &mut data)?;
            s.store(0, &data)?;
            offset += data.len() as u64;
        }
        Ok(())
    }
    fn read_bytes(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, data)
    }
    fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.0.extent(offset, len)
    }
    fn write(&self, _offset: u64, _segments: &[Segment]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn write_zeroes(&self, _offset: u64, _len: u64, _may_unmap: bool) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn readonly(&self) -> bool {
        true
    }
    fn description(&self) -> String {
        "source".to_owned()
    }
}

fn source(args: &Args, names: &[String]) -> Result<Arc<dyn BlockBackend>, String> {
    let inherit = cache(args, 'T', Inherit { readonly: true, ..Inherit::default() })?;
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(open(args, name, args.value('f'), inherit)?);
    }
    if let Some(which) = args.value('l') {
        let which = which.strip_prefix("snapshot.id=").or(which.strip_prefix("snapshot.name=")).unwrap_or(which);
        let [node] = nodes.as_slice() else { return Err("-l needs a single source".to_owned()) };
        let image = node.qcow2().ok_or("only qcow2 images have snapshots")?.clone();
        let list = image.snapshots();
        let found = list.iter().find(|s| s.id == which).or_else(|| list.iter().find(|s| s.name == which));
        let len = found.ok_or_else(|| format!("there is no snapshot '{which}'"))?.disk_size;
        return Ok(Arc::new(Reader(Old { image, snapshot: which.to_owned(), len })));
    }
    if let [node] = nodes.as_slice() {
        return Ok(node.backend());
    }
    Ok(Arc::new(Reader(Row(nodes.iter().map(|n| n.backend()).collect()))))
}

pub fn run(args: &mut Args, output: &mut Output<'_>) -> Result<i32, String> {
    let format = args.value('O').unwrap_or("raw").to_owned();
    let format = format.as_str();
    if args.values('o').any(|o| matches!(o, "help" | "?" | "list")) {
        return create::run(args, output);
    }
    if args.operands.len() < 2 {
        return Err("expected SOURCE... TARGET".to_owned());
    }
    let Some(target) = args.operands.pop() else { return Err("the target is missing".to_owned()) };
    let source = source(args, &args.operands)?;
    let mut make = create::options(args, format, None)?.ok_or("the options are missing")?;
    if make.size() == 0 {
        make.set_size(source.capacity());
    } else if make.size() < source.capacity() {
        return Err("the target is smaller than the source".to_owned());
    }
    if let ImageOptions::Qcow2(q) = &mut make
        && let Some(file) = args.value('B')
    {
        q.backing_file = Some(file.to_owned());
    }
    let backed = matches!(&make, ImageOptions::Qcow2(q) if q.backing_file.is_some());
    let sparse = match args.value('S') {
        None => 4096,
        Some(text) => size::parse(text)?,
    };
    let jobs = match args.value('m') {
        None => std::thread::available_parallelism().map_or(2, |n| n.get().min(8)),
        Some(text) => text.parse().ok().filter(|n| (1..=16).contains(n)).ok_or("-m must be from 1 to 16")?,
    };
    let compress = args.flag('c');
    if compress && format != "qcow2" {
        return Err(format!("images of format '{format}' are not compressed: use -O qcow2"));
    }
    if !args.flag('n') {
        create::check_backing(&target, &mut make, true, false)?;
        rhea_block::image::create(Path::new(&target), &make)?;
    }
    // What is lost in a power failure is made again.
    let inherit =
        cache(args, 't', Inherit { no_flush: args.value('t').is_none(), discard: true, ..Inherit::default() })?;
    let node = open(&Args::default(), &target, Some(format), inherit)?;
    let image = node.backend();
    if image.capacity() < source.capacity() {
        return Err(format!("'{target}' is smaller than the source"));
    }
    let preallocated = matches!(&make, ImageOptions::Qcow2(q) if q.preallocation.name() != "off");
    let fresh = !args.flag('n') && !backed && !preallocated;
    let options = ConvertOptions {
        compress,
        sparse,
        target_is_zero: (fresh || args.flag('\u{2}')) && !(sparse == 0 && format == "raw"),
        skip_absent: false,
        jobs,
    };
    with_progress(args, |p| convert(&*source, &*image, node.qcow2().map(|q| &**q), options, p))
        .map_err(|e| format!("'{target}': {}", host(&e)))?;
    if sparse == 0 && format == "raw" {
        // Everything takes storage.
        let mut at = 0;
        while at < image.capacity() {
            let e = image.status(at, image.capacity() - at).map_err(|e| host(&e))?;
            if e.kind != ExtentKind::Data {
                let zeroes = vec![0; e.len.min(1 << 20) as usize];
                image.write_bytes(at, &zeroes).map_err(|e| host(&e))?;
                at += zeroes.len() as u64;
            } else {
                at += e.len;
            }
        }
    }
    image.close().map_err(|e| format!("'{target}': {}", host(&e)))?;
    Ok(0)
}
