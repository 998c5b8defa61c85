//! Fetches Debian's arm64 kernel and busybox with the tools of a Debian machine, as an ordinary
//! user and without touching the system: apt gets lists, cache and sources of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

/// The kernel modules of the demo, in the order of loading; each comes after what it needs. What
/// a release of Debian does not have, or has built in, is left out.
pub const MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "dimlib",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
    "virtio-rng",
];

/// The files that were taken out of the packages.
#[derive(Debug)]
pub struct Guest {
    pub kernel: PathBuf,
    pub busybox: PathBuf,
    modules: PathBuf,
}

impl Guest {
    fn in_folder(folder: &Path) -> Self {
        Self { kernel: folder.join("kernel"), busybox: folder.join("busybox"), modules: folder.join("modules") }
    }

    /// The file of a kernel module, compressed or not.
    pub fn module(&self, name: &str) -> Option<PathBuf> {
        ["ko", "ko.xz", "ko.zst", "ko.gz"]
            .iter()
            .map(|end| self.modules.join(format!("{name}.{end}")))
            .find(|path| path.exists())
    }
}

/// Returns the guest's files, fetching them when the cache does not have them yet.
pub fn prepare(cache: &Path) -> Result<Guest> {
    let folder = cache.join("debian");
    if folder.exists() {
        return Ok(Guest::in_folder(&folder));
    }
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        ensure!(is_installed(tool), "{tool} is not installed, so this is no Debian machine");
    }
    eprintln!("rhea demo: fetching Debian's arm64 kernel and busybox, once, into {}", cache.display());
    let work = Work::new(cache)?;
    let progress = Progress::new();
    let apt = Apt::new(&work.0)?;
    progress.stage("package lists", 0.0, 20.0);
    apt.update(&progress)?;
    let kernel_package = apt.kernel_package()?;
    progress.stage(&kernel_package, 20.0, 80.0);
    let kernel_deb = apt.download(&kernel_package, &progress)?;
    progress.stage("busybox-static", 80.0, 84.0);
    let busybox_deb = apt.download("busybox-static", &progress)?;
    progress.stage("unpacking", 84.0, 100.0);

    let new = work.0.join("debian");
    fs::create_dir_all(new.join("modules")).context("cannot create a folder in the cache")?;
    let kernel = unpack(&kernel_deb, &new, |path| {
        if path.starts_with("boot/vmlinuz-") {
            return Some(PathBuf::from("kernel"));
        }
        let (folder, file) = path.rsplit_once('/')?;
        let (name, end) = file.split_once('.')?;
        let wanted = folder.contains("lib/modules/") && end.starts_with("ko") && MODULES.contains(&name);
        wanted.then(|| Path::new("modules").join(file))
    })?;
    ensure!(kernel > 0 && new.join("kernel").exists(), "{kernel_package} holds no kernel");
    unpack(&busybox_deb, &new, |path| {
        matches!(path, "bin/busybox" | "usr/bin/busybox").then(|| PathBuf::from("busybox"))
    })?;
    ensure!(new.join("busybox").exists(), "busybox-static holds no busybox");
    progress.done();
    // Another demo may have been faster; then its files are as good.
    if let Err(e) = fs::rename(&new, &folder)
        && !folder.exists()
    {
        return Err(e).with_context(|| format!("cannot create {}", folder.display()));
    }
    Ok(Guest::in_folder(&folder))
}

fn is_installed(tool: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|paths| std::env::split_paths(&paths).any(|p| p.join(tool).is_file()))
}

/// Takes the files for which `place` gives a path in `folder` out of a package; returns how many.
fn unpack(deb: &Path, folder: &Path, place: impl Fn(&str) -> Option<PathBuf>) -> Result<usize> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let output = child.stdout.take().context("dpkg-deb has no output")?;
    let mut files = 0;
    let read = super::tar::read_files(
        BufReader::with_capacity(1 << 16, output),
        |path| place(path).is_some(),
        |path, content| {
            if let Some(to) = place(path) {
                fs::write(folder.join(to), content)?;
                files += 1;
            }
            Ok(())
        },
    );
    if read.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().context("cannot wait for dpkg-deb")?;
    read.with_context(|| format!("cannot unpack {}", deb.display()))?;
    ensure!(status.success(), "dpkg-deb cannot read {}", deb.display());
    Ok(files)
}

/// A folder for what is only needed while fetching.
struct Work(PathBuf);

impl Work {
    fn new(cache: &Path) -> Result<Self> {
        let path = cache.join(format!("work-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// apt with state of its own, for packages of arm64.
struct Apt {
    options: Vec<String>,
    downloads: PathBuf,
}

impl Apt {
    fn new(work: &Path) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial", "state", "downloads"] {
            let path = work.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let sources = work.join("sources.list");
        fs::write(&sources, debian_sources()?).with_context(|| format!("cannot write {}", sources.display()))?;
        let work_path = super::utf8(work)?;
        let options = [
            "APT::Architecture=arm64".to_owned(),
            "APT::Architectures=arm64".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
            "APT::Status-Fd=1".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=1".to_owned(),
            "Acquire::http::Timeout=20".to_owned(),
            "Acquire::https::Timeout=20".to_owned(),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Etc::sourcelist={}", super::utf8(&sources)?),
            format!("Dir::State={work_path}/state"),
            format!("Dir::State::lists={work_path}/lists"),
            format!("Dir::Cache={work_path}/cache"),
        ];
        Ok(Self { options: options.to_vec(), downloads: work.join("downloads") })
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command.env("LC_ALL", "C").current_dir(&self.downloads).stdin(Stdio::null());
        command
    }

    fn update(&self, progress: &Progress) -> Result<()> {
        follow(self.command("apt-get").args(["-qq", "update"]), progress)
            .context("the package lists of Debian cannot be fetched")
    }

    /// The package that the metapackage `linux-image-arm64` stands for at present.
    fn kernel_package(&self) -> Result<String> {
        let output = self
            .command("apt-cache")
            .args(["show", "--no-all-versions", "linux-image-arm64"])
            .output()
            .context("cannot start apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .find_map(|line| line.strip_prefix("Depends:"))
            .and_then(|depends| depends.split([',', ' ']).find(|p| p.starts_with("linux-image-")))
            .map(str::to_owned)
            .ok_or_else(|| anyhow!("Debian's package lists name no arm64 kernel"))
    }

    fn download(&self, package: &str, progress: &Progress) -> Result<PathBuf> {
        follow(self.command("apt-get").args(["-qq", "download", package]), progress)
            .with_context(|| format!("the package {package} cannot be fetched"))?;
        let prefix = format!("{package}_");
        fs::read_dir(&self.downloads)
            .context("cannot list the downloads")?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path())
            .with_context(|| format!("apt-get has not fetched {package}"))
    }
}

/// Runs apt and shows its progress; its first complaint becomes the error.
fn follow(command: &mut Command, progress: &Progress) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start apt-get")?;
    let stderr = child.stderr.take();
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // dlstatus:ITEM:PERCENT:DESCRIPTION
            let mut fields = line.split(':');
            if fields.next() == Some("dlstatus")
                && let Some(percent) = fields.nth(1).and_then(|p| p.parse().ok())
            {
                progress.at(percent);
            }
        }
    }
    let status = child.wait().context("cannot wait for apt-get")?;
    let complaints = complaints.join().unwrap_or_default();
    if status.success() {
        return Ok(());
    }
    let first = complaints.lines().find_map(|l| l.strip_prefix("E: ").or(l.strip_prefix("W: ")));
    bail!("{}", first.unwrap_or("apt-get failed").trim())
}

/// Sources for the release and the mirror that the machine itself uses.
fn debian_sources() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let value = release.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    ensure!(field("ID") == "debian", "this is no Debian machine");
    let suite = field("VERSION_CODENAME");
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"])
        .stdin(Stdio::null())
        .output()
        .context("cannot start apt-get")?;
    sources(&suite, &String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| anyhow!("apt has no mirror of Debian configured for '{suite}'"))
}

/// `targets`: lines of a suite and the address of its archive.
fn sources(suite: &str, targets: &str) -> Option<String> {
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    let wanted = [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")];
    let mut text = String::new();
    for line in targets.lines() {
        let Some((name, archive)) = line.split_once(' ') else { continue };
        let entry = format!("deb {signed}{archive} {name} main\n");
        if wanted.iter().any(|w| w == name) && !text.contains(&entry) {
            text += &entry;
        }
    }
    let has_release = text.contains(&format!(" {suite} main\n"));
    (!suite.is_empty() && has_release).then_some(text)
}

/// A bar on standard error, on a terminal only.
struct Progress {
    bar: ProgressBar,
    stage: std::cell::Cell<(f64, f64)>,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new(1000);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3}% {msg}") {
            bar.set_style(style);
        }
        Self { bar, stage: std::cell::Cell::new((0.0, 0.0)) }
    }

    /// What follows takes the bar from `from` to `to` percent.
    fn stage(&self, name: &str, from: f64, to: f64) {
        self.stage.set((from, to));
        self.bar.set_message(name.to_owned());
        self.at(0.0);
    }

    /// `percent` of the present stage.
    fn at(&self, percent: f64) {
        let (from, to) = self.stage.get();
        self.bar.set_position(((from + (to - from) * percent.clamp(0.0, 100.0) / 100.0) * 10.0) as u64);
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_come_from_the_machine() {
        let targets = "trixie http://mirror.example/debian/\n\
                       trixie http://mirror.example/debian/\n\
                       trixie-security http://security.example/\n\
                       nodistro http://other.example/\n";
        let text = sources("trixie", targets).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("http://mirror.example/debian/ trixie main"));
        assert!(text.contains("http://security.example/ trixie-security main"));
        assert_eq!(sources("bookworm", targets), None);
        assert_eq!(sources("", ""), None);
    }
}
