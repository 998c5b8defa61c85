//! Commands about jobs.

use super::Context;
use rhea_control::{Call, Commands, Error, Job, Value, json};
use std::sync::Arc;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("query-jobs", |context, _| Ok(context.jobs.list())),
        ("query-block-jobs", |context, _| Ok(context.jobs.list_block())),
        ("job-pause", |context, call| done(job(context, call)?.pause())),
        ("job-resume", |context, call| done(job(context, call)?.resume())),
        ("job-cancel", |context, call| done(job(context, call)?.cancel(true))),
        ("job-complete", |context, call| done(job(context, call)?.complete())),
        ("job-finalize", |context, call| done(job(context, call)?.finalize())),
        ("job-dismiss", |context, call| done(context.jobs.dismiss(&job(context, call)?))),
        ("block-job-pause", |context, call| done(block_job(context, call, "device")?.pause())),
        ("block-job-resume", |context, call| done(block_job(context, call, "device")?.resume())),
        ("block-job-cancel", |context, call| done(block_job(context, call, "device")?.cancel(call.flag("force")))),
        ("block-job-complete", |context, call| done(block_job(context, call, "device")?.complete())),
        ("block-job-finalize", |context, call| done(block_job(context, call, "id")?.finalize())),
        ("block-job-dismiss", |context, call| done(context.jobs.dismiss(&block_job(context, call, "id")?))),
        ("block-job-set-speed", set_speed),
    ]);
}

type Result<T = Value> = std::result::Result<T, Error>;

fn done(result: Result<()>) -> Result {
    result.map(|()| json!({}))
}

fn job(context: &Context, call: &Call<'_>) -> Result<Arc<Job>> {
    context.jobs.get(call.required("id"))
}

fn block_job(context: &Context, call: &Call<'_>, argument: &str) -> Result<Arc<Job>> {
    context.jobs.block(call.required(argument))
}

/// Bytes a second.
pub fn speed(number: Option<i64>) -> Result<u64> {
    u64::try_from(number.unwrap_or(0)).map_err(|_| Error::new("Parameter 'speed' expects a non-negative value"))
}

fn set_speed(context: &Context, call: &mut Call<'_>) -> Result {
    block_job(context, call, "device")?.set_speed(speed(call.number("speed"))?);
    Ok(json!({}))
}
