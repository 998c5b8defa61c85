//! The source: what is wanted goes first, the rest behind it.

use super::super::ram;
use super::super::stream::{Kind, Result, Writer};
use super::{PageSet, broken};
use crossbeam_channel::{Receiver, TryRecvError, bounded};
use rhea_memory::RamBlock;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

/// Pages that go at once when nobody wants any: what is wanted waits behind them.
const BATCH: u64 = 16;
/// Answers that wait to be looked at.
const ANSWERS: usize = 1024;
/// Bytes of a line.
const LINE: u64 = 4096;

/// What the destination says.
#[derive(Debug)]
pub enum Said {
    Want(u64, String),
    Ok,
    Done,
    Missing(u64, u64, String),
    Ready,
    /// Anything else, which is why it gives up.
    Other(String),
    Ended,
}

impl Said {
    fn of(line: &str) -> Self {
        let words = |n: usize| line.splitn(n, ' ').collect::<Vec<_>>();
        let wants = words(3);
        let missing = words(4);
        match (line, &wants[..], &missing[..]) {
            ("ok", ..) => Self::Ok,
            ("done", ..) => Self::Done,
            ("ready", ..) => Self::Ready,
            (_, ["want", page, block], _) if page.parse::<u64>().is_ok() => {
                Self::Want(page.parse().unwrap_or(0), (*block).to_owned())
            }
            (_, _, ["missing", first, count, block]) => match (first.parse(), count.parse()) {
                (Ok(first), Ok(count)) => Self::Missing(first, count, (*block).to_owned()),
                _ => Self::Other(line.to_owned()),
            },
            _ => Self::Other(line.to_owned()),
        }
    }
    /// Reads answers in a thread of their own, until the connection ends or nobody wants them any longer.
    pub fn listen(from: Box<dyn Read + Send>) -> Result<Receiver<Self>> {
        let (say, said) = bounded(ANSWERS);
        let thread = move || {
            let mut from = BufReader::new(from);
            loop {
                let mut line = String::new();
                let what = match from.by_ref().take(LINE).read_line(&mut line) {
                    Ok(n) if n > 0 && line.ends_with('\n') => Self::of(line.trim_end()),
                    _ => Self::Ended,
                };
                let last = matches!(what, Self::Ended | Self::Done);
                if say.send(what).is_err() || last {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("rhea-postcopy".to_owned()).spawn(thread)?;
        Ok(said)
    }
}

/// What a move in post-copy tells of.
pub trait Late {
    /// The machine is the destination's: it has taken it over and is told to start it.
    fn gone(&self);
    /// Pages that were sent, and whether they were wanted; so many are left.
    fn sent(&self, pages: u64, wanted: bool, left: u64);
    /// # Errors
    /// The move was given up. Asked for only until [`Self::gone`].
    fn check(&self) -> Result<()>;
}

/// What is still to be sent.
pub struct Remainder {
    pages: PageSet,
    blocks: Vec<Arc<RamBlock>>,
    /// Where what was wanted last was.
    near: (usize, u64),
    pub gone: bool,
}

impl Remainder {
    pub fn new(blocks: &[Arc<RamBlock>], pages: &[(Arc<RamBlock>, Vec<u64>)]) -> Self {
        let mut all = PageSet::new(blocks);
        for (block, list) in pages {
            let Some(number) = all.position(block.name()) else { continue };
            list.iter().for_each(|page| {
                all.insert(number, *page);
            });
        }
        Self { pages: all, blocks: blocks.to_vec(), near: (0, 0), gone: false }
    }
    pub fn pages(&self) -> &PageSet {
        &self.pages
    }
    /// Sends all of it, by a stream that was begun, and waits until it has arrived.
    ///
    /// # Errors
    /// The connection's, or what the destination says; what has not arrived may have left this.
    pub fn send<W: Write>(&mut self, writer: &mut Writer<W>, said: &Receiver<Said>, late: &impl Late) -> Result<()> {
        let mut ended = false;
        loop {
            if !self.gone {
                late.check()?;
            }
            let idle = self.pages.count() == 0 && (ended || !self.gone);
            let next = if idle { said.recv().map_err(|_| TryRecvError::Disconnected) } else { said.try_recv() };
            match next {
                Ok(Said::Want(page, name)) => {
                    let number = self.pages.position(&name);
                    let number = number.ok_or_else(|| broken(format!("the destination wants memory '{name}'")))?;
                    let left = self.pages.remove(number, page);
                    if left {
                        ram::write(writer, &self.blocks[number], page, 1)?;
                        writer.flush()?;
                    }
                    self.near = (number, page);
                    late.sent(u64::from(left), true, self.pages.count());
                }
                Ok(Said::Ok) if !self.gone => {
                    late.check()?;
                    writer.section(Kind::Go, "", 1, &[])?;
                    writer.flush()?;
                    self.gone = true;
                    late.gone();
                }
                Ok(Said::Done) if ended => return Ok(()),
                Ok(Said::Other(why)) => return Err(broken(format!("the other end says: {why}"))),
                Ok(Said::Ended) | Err(TryRecvError::Disconnected) => {
                    return Err(broken("the connection has ended"));
                }
                Ok(other) => return Err(broken(format!("the other end says: {other:?}"))),
                Err(TryRecvError::Empty) => match self.pages.take(self.near, BATCH) {
                    Some((number, first, count)) => {
                        ram::write(writer, &self.blocks[number], first, count)?;
                        self.near = (number, first + count);
                        if self.pages.count() == 0 {
                            writer.flush()?;
                        }
                        late.sent(count, false, self.pages.count());
                    }
                    None => {
                        writer.end()?;
                        ended = true;
                    }
                },
            }
        }
    }
    /// Learns by another connection what has not arrived by the last one.
    pub fn resume(&mut self, said: &Receiver<Said>) -> Result<()> {
        let mut pages = PageSet::new(&self.blocks);
        loop {
            match said.recv() {
                Ok(Said::Missing(first, count, name)) => {
                    let number = pages.position(&name).ok_or_else(|| broken(format!("there is no memory '{name}'")))?;
                    pages.insert_run(number, first, count).map_err(broken)?;
                }
                Ok(Said::Ready) => break,
                Ok(Said::Other(why)) => return Err(broken(format!("the other end says: {why}"))),
                other => return Err(broken(format!("the other end says: {other:?}"))),
            }
        }
        self.pages = pages;
        Ok(())
    }
}
