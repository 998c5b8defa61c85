//! Dirty bitmaps: what of images has changed, and copies of that.

use super::Context;
use super::images::{Arguments, node, text};
use rhea_block::job::Backup;
use rhea_block::{DirtyBitmap, DirtyParts, Node};
use rhea_control::{Call, Commands, Error, Value, json};
use std::sync::Arc;

const COMMANDS: [&str; 6] = [
    "block-dirty-bitmap-add",
    "block-dirty-bitmap-clear",
    "block-dirty-bitmap-disable",
    "block-dirty-bitmap-enable",
    "block-dirty-bitmap-merge",
    "block-dirty-bitmap-remove",
];

pub fn register(commands: &mut Commands<Context>) {
    macro_rules! add {
        ($($n:literal)*) => { commands.add(&[$((COMMANDS[$n], |context, call| alone(context, COMMANDS[$n], call))),*]) };
    }
    add!(0 1 2 3 4 5);
}

type Result<T = Value> = std::result::Result<T, Error>;

fn alone(context: &Context, kind: &str, call: &mut Call<'_>) -> Result {
    let mut done = Done::default();
    done.act(context, kind, call.arguments())?;
    done.keep();
    Ok(json!({}))
}

/// How clients are told of one.
pub fn about(bitmap: &DirtyBitmap) -> Value {
    json!({
        "name": bitmap.name(),
        "count": bitmap.bytes(),
        "granularity": bitmap.granularity(),
        "recording": bitmap.is_recording(),
        "busy": bitmap.is_busy(),
        "persistent": false,
    })
}

/// A bitmap that no job uses.
fn free(node: &Node, name: &str) -> Result<Arc<DirtyBitmap>> {
    let bitmap = node.dirty_bitmaps().find(name).map_err(Error::new)?;
    if bitmap.is_busy() {
        let why = "is currently in use by another operation and cannot be used";
        return Err(Error::new(format!("Bitmap '{name}' {why}")));
    }
    Ok(bitmap)
}

/// What was done to bitmaps, which is taken back when this is dropped.
#[derive(Default)]
pub struct Done(Vec<Box<dyn FnOnce()>>);

impl Done {
    /// All went well.
    pub fn keep(mut self) {
        self.0.clear();
    }
    /// Does what the command `kind` does.
    pub fn act(&mut self, context: &Context, kind: &str, arguments: &Arguments) -> Result<()> {
        let of = |key| text(arguments, key).unwrap_or_default();
        let (node, name) = (node(context, of("node"))?, of("name"));
        let undo: Box<dyn FnOnce()> = match kind {
            "block-dirty-bitmap-add" => {
                let flag = |key: &str| arguments.get(key).and_then(Value::as_bool).unwrap_or(false);
                if flag("persistent") {
                    return Err(Error::new("'persistent': true is not supported: bitmaps go with the emulator"));
                }
                let image = node.backend();
                let unit = match arguments.get("granularity").and_then(Value::as_u64) {
                    Some(unit) => unit,
                    None if image.cluster_size() == 0 => 64 << 10,
                    None => image.cluster_size().clamp(4096, 64 << 10),
                };
                let bitmaps = node.dirty_bitmaps();
                bitmaps.add(name, image.capacity(), unit, !flag("disabled")).map_err(Error::new)?;
                let name = name.to_owned();
                Box::new(move || node.dirty_bitmaps().remove(&name))
            }
            "block-dirty-bitmap-remove" => {
                let bitmap = free(&node, name)?;
                node.dirty_bitmaps().remove(name);
                Box::new(move || drop(node.dirty_bitmaps().put(bitmap)))
            }
            "block-dirty-bitmap-clear" => {
                let bitmap = free(&node, name)?;
                let parts = bitmap.take();
                Box::new(move || bitmap.merge(&parts))
            }
            "block-dirty-bitmap-enable" | "block-dirty-bitmap-disable" => {
                let bitmap = free(&node, name)?;
                let was = bitmap.record(kind == "block-dirty-bitmap-enable");
                Box::new(move || {
                    bitmap.record(was);
                })
            }
            _ => {
                let target = free(&node, of("target"))?;
                let mut all = Vec::new();
                for one in arguments.get("bitmaps").and_then(Value::as_array).into_iter().flatten() {
                    all.push(match one.as_object() {
                        Some(other) => {
                            let name = |key| text(other, key).unwrap_or_default();
                            free(&*self::node(context, name("node"))?, name("name"))?.parts()
                        }
                        None => free(&node, one.as_str().unwrap_or_default())?.parts(),
                    });
                }
                let before = target.parts();
                all.iter().for_each(|parts| target.merge(parts));
                Box::new(move || target.set(&before))
            }
        };
        self.0.push(undo);
        Ok(())
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        while let Some(undo) = self.0.pop() {
            undo();
        }
    }
}

/// A bitmap that a backup uses: what becomes of it is decided when this is dropped.
pub struct Used {
    bitmap: Arc<DirtyBitmap>,
    backup: Arc<Backup>,
    mode: String,
    /// What was dirty when the backup began.
    parts: Option<DirtyParts>,
    succeeded: bool,
}

impl Used {
    /// The one that the arguments of a backup name, if they do.
    pub fn of(node: &Node, arguments: &Arguments, backup: &Arc<Backup>) -> Result<Option<Self>> {
        let sync = text(arguments, "sync").unwrap_or_default();
        let needs = matches!(sync, "bitmap" | "incremental");
        let mode = text(arguments, "bitmap-mode");
        let Some(name) = text(arguments, "bitmap") else {
            return match mode {
                _ if needs => Err(Error::new(format!("must provide a valid bitmap name for '{sync}' sync mode"))),
                Some(_) => Err(Error::new("Cannot specify bitmap sync mode without a bitmap")),
                None => Ok(None),
            };
        };
        let mode = match (sync, mode) {
            ("incremental", None) => "on-success",
            ("incremental", Some(mode)) if mode != "on-success" => {
                return Err(Error::new("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'"));
            }
            (_, Some(mode)) => mode,
            (_, None) => return Err(Error::new("Bitmap sync mode must be given when providing a bitmap")),
        };
        if sync == "none" {
            return Err(Error::new("sync mode 'none' does not produce meaningful bitmap outputs"));
        }
        if mode == "never" && !needs {
            return Err(Error::new(format!(
                "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '{sync}'"
            )));
        }
        let bitmap = free(node, name)?;
        bitmap.use_it(true);
        let (backup, mode) = (backup.clone(), mode.to_owned());
        Ok(Some(Self { bitmap, backup, mode, parts: None, succeeded: false }))
    }
    /// The backup is of this moment.
    pub fn begin(&mut self) {
        self.parts = Some(self.bitmap.take());
    }
    /// What was dirty then.
    pub fn parts(&self) -> &DirtyParts {
        const NONE: &DirtyParts = &DirtyParts::NONE;
        self.parts.as_ref().unwrap_or(NONE)
    }
    pub fn succeed(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            match (self.mode.as_str(), self.succeeded) {
                ("never", _) | ("on-success", false) => self.bitmap.merge(&parts),
                ("always", false) => self.bitmap.merge(&self.backup.without_copied(&parts)),
                _ => {}
            }
        }
        self.bitmap.use_it(false);
    }
}
