use super::*;
use crate::image::{ImageOptions, create};
use crate::{BlockGraph, Inherit, MemoryBackend, NodeOptions};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const SIZE: u64 = 4 << 20;

/// A folder with images, their nodes, a drive, and what is on it.
struct Bench {
    folder: PathBuf,
    graph: Arc<BlockGraph>,
    drive: Arc<Drive>,
    model: Vec<u8>,
    seed: u64,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Bench {
    /// A drive on the node `base`, a qcow2 image with something in it.
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("rhea-jobs-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let graph = BlockGraph::new();
        let drive = Drive::new("d", Arc::new(MemoryBackend::new(Vec::new(), false)), crate::CacheMode::Writeback);
        let mut bench = Self { folder, graph, drive, model: vec![0; SIZE as usize], seed: 1 };
        let base = bench.image("base", "");
        bench.drive = Drive::for_node("base", &base);
        bench.write(20);
        bench
    }
    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }
    /// A new image and its node.
    fn image(&self, name: &str, more: &str) -> Arc<Node> {
        let options = NodeOptions::parse(&format!("size={SIZE},cluster_size=16k{more}")).unwrap();
        create(self.file(name).as_ref(), &ImageOptions::parse("qcow2", options).unwrap()).unwrap();
        self.open(name, "")
    }
    fn open(&self, name: &str, more: &str) -> Arc<Node> {
        let text = format!("driver=qcow2,node-name={name},file.driver=file,file.filename={}{more}", self.file(name));
        self.graph.add(NodeOptions::parse(&text).unwrap(), &Inherit::default()).unwrap()
    }
    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }
    /// What a guest may do, so many times.
    fn write(&mut self, times: usize) {
        for _ in 0..times {
            let len = 512 * (1 + self.random(100));
            let offset = 512 * self.random((SIZE - len) / 512);
            let (value, zero) = (self.random(255) as u8 + 1, self.random(4) == 0);
            let range = offset as usize..(offset + len) as usize;
            if zero {
                let mut operation = crate::Operation::WriteZeroes { offset, len, may_unmap: true, flush: false };
                self.drive.run(&mut operation).unwrap();
                self.model[range].fill(0);
            } else {
                self.drive.write_bytes(offset, &vec![value; len as usize]).unwrap();
                self.model[range].fill(value);
            }
        }
    }
    fn check(&self) {
        let mut data = vec![0; SIZE as usize];
        self.drive.read_bytes(0, &mut data).unwrap();
        assert!(data == self.model, "the guest sees something else");
    }
    /// Puts a new image over that which the drive is on.
    fn snapshot(&self, name: &str) -> Arc<Node> {
        let (node, overlay) = (self.drive.node().unwrap(), self.image(name, ""));
        overlay.qcow2().unwrap().set_backing_name(Some(node.filename()), Some("qcow2")).unwrap();
        put_over(&[Put { node, overlay: overlay.clone(), drives: vec![self.drive.clone()] }]).unwrap();
        overlay
    }
}

fn content(node: &Node) -> Vec<u8> {
    let mut data = vec![0; SIZE as usize];
    node.backend().read_bytes(0, &mut data).unwrap();
    data
}

#[test]
fn snapshots_and_streams() {
    let mut bench = Bench::new();
    let base = bench.drive.node().unwrap();
    let before = bench.model.clone();
    let middle = bench.snapshot("middle");
    bench.write(20);
    let top = bench.snapshot("top");
    bench.write(20);
    bench.check();
    assert!(content(&base) == before && base.settings().readonly && base.backend().readonly());
    assert!(middle.backend().write_bytes(0, &[1; 512]).is_err(), "what is below is not written");
    // What is in use twice, or over something already, is refused, and nothing changes.
    let put = |node: &Arc<Node>, overlay: &Arc<Node>| {
        put_over(&[Put { node: node.clone(), overlay: overlay.clone(), drives: vec![bench.drive.clone()] }])
    };
    let other = bench.image("other", "");
    assert!(put(&top, &middle).unwrap_err().contains("backing"));
    assert!(put(&base, &other).unwrap_err().contains("busy"));
    assert!(other.child("backing").is_none());
    let twice = [&other, &bench.image("another", "")].map(|overlay| Put {
        node: top.clone(),
        overlay: overlay.clone(),
        drives: vec![bench.drive.clone()],
    });
    assert!(put_over(&twice).unwrap_err().contains("two images"));
    bench.check();
    // The image in the middle is taken in, while the guest writes.
    let mut steps = 0;
    let (drive, image) = (bench.drive.clone(), top.backend());
    stream(&drive, &image, Some(&base.backend()), |_| {
        steps += 1;
        bench.write(3);
        true
    })
    .unwrap();
    assert_eq!(steps, SIZE / STEP);
    top.set_backing(Some(base.clone())).unwrap();
    drop(middle);
    bench.graph.remove("middle").unwrap();
    bench.check();
    // All is taken in.
    stream(&drive, &image, None, |_| true).unwrap();
    top.set_backing(None).unwrap();
    bench.check();
    assert!(content(&base) == before);
    // A stop is an error.
    assert_eq!(stream(&drive, &image, None, |_| false).unwrap_err().kind(), io::ErrorKind::Interrupted);
}

#[test]
fn a_mirror_follows() {
    let mut bench = Bench::new();
    bench.write(30);
    let (source, target) = (bench.drive.node().unwrap().backend(), bench.image("target", ""));
    target.backend().write_bytes(0, &[7; 4096]).unwrap();
    let copier = Copier::new(&source, &target.backend(), 64 << 10).unwrap();
    let filter = Installed::new(&bench.drive, &source, copier.clone(), || {
        copier.mark_all();
        Ok(())
    })
    .unwrap();
    assert_eq!(copier.left(), SIZE);
    // One filter at a time.
    let again = Installed::new(&bench.drive, &source, copier.clone(), || panic!("not ready"));
    assert!(again.is_err_and(|e| e.contains("busy")));
    for _ in 0..3 {
        bench.write(1);
        copier.step().unwrap();
    }
    assert!(copier.left() > 0);
    filter
        .replace(|| {
            copier.finish().map_err(|e| e.to_string())?;
            Ok(target.backend())
        })
        .unwrap();
    assert!(content(&target) == bench.model);
    let before = bench.model.clone();
    bench.write(10);
    bench.check();
    assert!(content(&bench.graph.get("base").unwrap()) == before, "the source is not written any more");
}

#[test]
fn a_filter_goes_with_whoever_gives_up() {
    let mut bench = Bench::new();
    let (source, target) = (bench.drive.node().unwrap().backend(), bench.image("target", ""));
    let copier = Copier::new(&source, &target.backend(), 64 << 10).unwrap();
    let filter = Installed::new(&bench.drive, &source, copier.clone(), || Ok(())).unwrap();
    bench.write(1);
    assert!(copier.left() > 0 && !Arc::ptr_eq(&bench.drive.backend(), &source));
    drop(filter);
    assert!(Arc::ptr_eq(&bench.drive.backend(), &source));
    let filter = Installed::new(&bench.drive, &source, copier.clone(), || Ok(())).unwrap();
    assert!(filter.replace(|| Err("no".to_owned())).is_err_and(|e| e == "no"));
    assert!(Arc::ptr_eq(&bench.drive.backend(), &source));
    bench.check();
}

#[test]
fn commits_go_down() {
    let mut bench = Bench::new();
    let base = bench.drive.node().unwrap();
    let middle = bench.snapshot("middle");
    bench.write(20);
    let between = bench.model.clone();
    let top = bench.snapshot("top");
    bench.write(20);
    // The one in the middle: nobody writes it.
    base.set_readonly(false).unwrap();
    let copier = Copier::new(&middle.backend(), &base.backend(), 64 << 10).unwrap();
    copier.mark_above(&base.backend()).unwrap();
    while copier.step().unwrap().is_some() {
        bench.write(1);
        bench.check();
    }
    copier.finish().unwrap();
    top.set_backing(Some(base.clone())).unwrap();
    bench.check();
    assert!(content(&base) == between);
    // The uppermost, while the guest writes.
    let (source, target) = (top.backend(), base.backend());
    let copier = Copier::new(&source, &target, 64 << 10).unwrap();
    let marked = || copier.mark_above(&target).map_err(|e| e.to_string());
    let filter = Installed::new(&bench.drive, &source, copier.clone(), marked).unwrap();
    for _ in 0..30 {
        bench.write(1);
        bench.check();
        copier.step().unwrap();
    }
    filter.replace(|| copier.finish().map(|()| target.clone()).map_err(|e| e.to_string())).unwrap();
    bench.drive.set_node(Some(base.clone()));
    bench.check();
    bench.write(5);
    bench.check();
    base.backend().close().unwrap();
    let report = base.qcow2().unwrap().check(crate::qcow2::Fix::Nothing, &mut |_, text| panic!("{text}")).unwrap();
    assert_eq!((report.corruptions, report.leaks), (0, 0));
}

#[test]
fn a_backup_is_of_one_moment() {
    let mut bench = Bench::new();
    bench.write(30);
    let before = bench.model.clone();
    let (source, target) = (bench.drive.node().unwrap().backend(), bench.image("target", ""));
    let backup = Backup::new(&source, &target.backend()).unwrap();
    let filter = Installed::new(&bench.drive, &source, backup.clone(), || Ok(())).unwrap();
    bench.write(5);
    backup
        .run(|_| {
            bench.write(1);
            true
        })
        .unwrap();
    drop(filter);
    bench.check();
    assert!(content(&target) == before);
    // A copy that fails does not hold the guest up, and is told.
    let target: Arc<dyn BlockBackend> = Arc::new(MemoryBackend::new(vec![0; SIZE as usize / 2], true));
    struct Refuses(Arc<dyn BlockBackend>);
    impl BlockBackend for Refuses {
        fn capacity(&self) -> u64 {
            SIZE
        }
        fn read(&self, offset: u64, segments: &mut [crate::Segment]) -> io::Result<()> {
            self.0.read(offset, segments)
        }
        fn write(&self, _: u64, _: &[crate::Segment]) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
        fn discard(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn readonly(&self) -> bool {
            false
        }
        fn description(&self) -> String {
            "full".to_owned()
        }
    }
    let backup = Backup::new(&source, &(Arc::new(Refuses(target)) as Arc<dyn BlockBackend>)).unwrap();
    let _filter = Installed::new(&bench.drive, &source, backup.clone(), || Ok(())).unwrap();
    bench.write(5);
    bench.check();
    assert_eq!(backup.check().unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn locks_follow() {
    let bench = Bench::new();
    let base = bench.drive.node().unwrap();
    let another = || {
        let inherit = Inherit { readonly: true, ..Inherit::default() };
        crate::open_image(&bench.file("base"), Some("qcow2"), &inherit)
    };
    assert!(another().is_err_and(|e| e.contains("lock")));
    base.set_readonly(true).unwrap();
    let reader = another().unwrap();
    assert!(base.set_readonly(false).is_err_and(|e| e.contains("lock")));
    assert!(base.settings().readonly && base.backend().readonly());
    drop(reader);
    base.set_readonly(false).unwrap();
    bench.drive.write_bytes(0, &[1; 512]).unwrap();
    assert!(another().is_err());
}
