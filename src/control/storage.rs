//! Commands about storage.

use super::Context;
use rhea_block::{CacheMode, Drive};
use rhea_control::{Call, Commands, Error, Value, json};

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("query-block", block), ("query-named-block-nodes", nodes), ("query-blockstats", statistics)]);
}

type Result = std::result::Result<Value, Error>;

/// The file of a drive, as far as the command line named one.
fn file(context: &Context, drive: &Drive) -> String {
    let named =
        context.config.drives.iter().find(|d| d.id.as_deref() == Some(drive.id())).and_then(|d| d.file.as_ref());
    named.map_or_else(|| drive.backend().description(), |path| path.display().to_string())
}

fn medium(context: &Context, drive: &Drive) -> Value {
    let file = file(context, drive);
    let cache = drive.cache();
    let cache = json!({
        "writeback": cache.write_cache(),
        "direct": matches!(cache, CacheMode::None | CacheMode::DirectSync),
        "no-flush": cache == CacheMode::Unsafe,
    });
    let mut image = json!({"filename": file, "format": "raw", "virtual-size": drive.capacity()});
    if let Ok(about) = std::fs::metadata(&file) {
        image["actual-size"] = json!(std::os::unix::fs::MetadataExt::blocks(&about) * 512);
    }
    json!({
        "file": file,
        "node-name": drive.id(),
        "ro": drive.readonly(),
        "drv": "raw",
        "encrypted": false,
        "detect_zeroes": "off",
        "cache": cache,
        "image": image,
        "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
        "backing_file_depth": 0,
        "write_threshold": 0,
    })
}

/// The object of the device that uses a drive.
fn device(context: &Context, drive: &Drive) -> Option<String> {
    let devices = context.machine.inventory().devices();
    devices.iter().find(|d| d.spec.value("drive") == Some(drive.id())).map(rhea_machine::inventory::DeviceEntry::path)
}

fn block(context: &Context, _: &mut Call<'_>) -> Result {
    let one = |drive: &Drive| {
        let mut entry = json!({
            "device": drive.id(),
            "type": "unknown",
            "removable": false,
            "locked": false,
            "inserted": medium(context, drive),
            "io-status": "ok",
        });
        if let Some(path) = device(context, drive) {
            entry["qdev"] = json!(path);
        }
        entry
    };
    Ok(context.machine.inventory().drives().iter().map(|d| one(d)).collect())
}

fn nodes(context: &Context, _: &mut Call<'_>) -> Result {
    Ok(context.machine.inventory().drives().iter().map(|d| medium(context, d)).collect())
}

fn statistics(context: &Context, call: &mut Call<'_>) -> Result {
    let nodes = call.flag("query-nodes");
    let one = |drive: &Drive| {
        let [reads, read_bytes, writes, written] = drive.statistics();
        let stats = json!({
            "rd_bytes": read_bytes, "wr_bytes": written, "rd_operations": reads, "wr_operations": writes,
        });
        let mut entry = json!({"node-name": drive.id(), "stats": stats});
        if !nodes {
            entry["device"] = json!(drive.id());
            if let Some(path) = device(context, drive) {
                entry["qdev"] = json!(path);
            }
        }
        entry
    };
    Ok(context.machine.inventory().drives().iter().map(|d| one(d)).collect())
}
