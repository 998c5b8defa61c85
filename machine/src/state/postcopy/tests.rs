use super::receive::check;
use super::send::{Late, Remainder, Said};
use super::{Arrival, PageSet, Token};
use crate::state::ram;
use crate::state::stream::{Kind, Reader, Result, Section, Writer};
use parking_lot::Mutex;
use rhea_memory::{PAGE_SIZE, RamBlock};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const PAGES: u64 = 600;
const TOKEN: Token = [1, 2];

fn blocks() -> Vec<Arc<RamBlock>> {
    [("low", 4), ("ram", PAGES)].map(|(name, pages)| RamBlock::anonymous(name, pages * PAGE_SIZE).unwrap()).into()
}

#[test]
fn sets_of_pages() {
    let blocks = blocks();
    let mut set = PageSet::new(&blocks);
    for page in [0, 1, 2, 63, 64, 65, 300, PAGES - 1, PAGES, u64::MAX] {
        assert_eq!(set.insert(1, page), page < PAGES);
    }
    assert!(set.insert(0, 3) && !set.insert(0, 3) && !set.insert(0, 4) && !set.insert(2, 0));
    assert_eq!(set.count(), 9);
    assert_eq!(set.runs(1), [(0, 3), (63, 3), (300, 1), (PAGES - 1, 1)]);
    assert_eq!(set.take((1, 64), 16), Some((1, 64, 2)));
    assert_eq!(set.take((1, 64), 16), Some((1, 300, 1)));
    assert_eq!(set.take((1, 301), 16), Some((1, PAGES - 1, 1)));
    assert_eq!(set.take((1, PAGES), 2), Some((0, 3, 1)));
    assert_eq!(set.take((0, 3), 2), Some((1, 0, 2)));
    assert_eq!(set.take((1, 50), 2), Some((1, 63, 1)));
    assert_eq!(set.take((1, 50), 2), Some((1, 2, 1)));
    assert_eq!((set.take((1, 50), 2), set.count()), (None, 0));
    assert_eq!(PageSet::new(&[]).take((0, 0), 1), None);
}

#[test]
fn sets_go_through_streams() {
    let blocks = blocks();
    let mut set = PageSet::new(&blocks);
    [5, 6, 9].into_iter().for_each(|page| assert!(set.insert(1, page)));
    let mut writer = Writer::new(Vec::new()).unwrap();
    set.write(&mut writer).unwrap();
    let bytes = writer.finish().unwrap();
    let (mut reader, mut read) = (Reader::new(&bytes[..]).unwrap(), PageSet::new(&blocks));
    while let Some(section) = reader.next().unwrap() {
        read.read(&section).unwrap();
    }
    assert_eq!((read.runs(0), read.runs(1)), (vec![], vec![(5, 2), (9, 1)]));
    let section = |name: &str, words: &[u64]| Section {
        kind: Kind::Missing,
        name: name.to_owned(),
        version: 1,
        data: words.iter().flat_map(|w| w.to_le_bytes()).collect(),
    };
    for bad in [
        section("other", &[]),
        section("ram", &[1]),
        section("ram", &[PAGES, 1]),
        section("ram", &[u64::MAX, 2]),
        section("low", &[3, 2]),
    ] {
        assert!(read.read(&bad).is_err());
    }
}

/// What the source has told.
#[derive(Default)]
struct Told {
    gone: AtomicBool,
    wanted: AtomicU64,
}

impl Late for Told {
    fn gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }
    fn sent(&self, _: u64, wanted: bool, _: u64) {
        self.wanted.fetch_add(u64::from(wanted), Ordering::SeqCst);
    }
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

fn filled() -> Vec<Arc<RamBlock>> {
    let blocks = blocks();
    for page in 0..PAGES {
        if page % 3 != 0 {
            blocks[1].fill(page * PAGE_SIZE, PAGE_SIZE, page as u8).unwrap();
        }
    }
    blocks
}

/// All pages are missing; the guest waits for some. The first connection breaks, and another one goes on.
#[test]
fn what_is_missing_arrives() {
    if let Err(why) = check() {
        return println!("skipped: {why}");
    }
    let (from, to) = (filled(), blocks());
    // What was there before is not what arrives.
    to[1].fill(0, PAGES * PAGE_SIZE, 0xee).unwrap();
    let all: Vec<u64> = (0..PAGES).collect();
    let mut rest = Remainder::new(&from, &[(from[1].clone(), all.clone())]);
    let mut missing = PageSet::new(&to);
    all.iter().for_each(|page| assert!(missing.insert(1, *page)));

    let (here, there) = UnixStream::pair().unwrap();
    let answers: Box<dyn Write + Send> = Box::new(there.try_clone().unwrap());
    let mut arrival = Arrival::begin(to.clone(), missing, there, &mut Some(answers)).unwrap();
    let told = Told::default();
    std::thread::scope(|s| {
        let reader = s.spawn(|| [to[1].load(400 * PAGE_SIZE, 1).unwrap(), to[1].load(399 * PAGE_SIZE, 1).unwrap()]);
        // A source that answers the first wish, says "go", and is gone.
        let mut lines = BufReader::new(here.try_clone().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(["want 400 ram", "want 399 ram"].contains(&line.as_str()), "{line}");
        let mut writer = Writer::new(here.try_clone().unwrap()).unwrap();
        ram::write(&mut writer, &from[1], 400, 1).unwrap();
        writer.section(Kind::Go, "", 1, &[]).unwrap();
        arrival.take_over().unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "ok");
        here.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(arrival.finish().is_err());

        // Somebody else's move is none of ours.
        let (here, there) = UnixStream::pair().unwrap();
        let mut writer = Writer::new(here).unwrap();
        writer.section(Kind::Resume, "", 1, &[0; 16]).unwrap();
        let answers = Box::new(there.try_clone().unwrap());
        assert!(arrival.resume(there, answers, TOKEN).is_err());

        let (here, there) = UnixStream::pair().unwrap();
        let mut writer = Writer::new(here.try_clone().unwrap()).unwrap();
        let token: Vec<u8> = TOKEN.into_iter().flat_map(u64::to_le_bytes).collect();
        writer.section(Kind::Resume, "", 1, &token).unwrap();
        let answers = Box::new(there.try_clone().unwrap());
        arrival.resume(there, answers, TOKEN).unwrap();
        let said = Said::listen(Box::new(here)).unwrap();
        rest.gone = true;
        rest.resume(&said).unwrap();
        assert_eq!(rest.pages().runs(1), [(0, 400), (401, PAGES - 401)]);
        let (rest, told) = (&mut rest, &told);
        let source = s.spawn(move || rest.send(&mut writer, &said, told));
        arrival.finish().unwrap();
        source.join().unwrap().unwrap();
        assert_eq!(reader.join().unwrap(), [400 % 256, 0]);
    });
    drop(arrival);
    let (mut a, mut b) = (vec![0; (PAGES * PAGE_SIZE) as usize], vec![0; (PAGES * PAGE_SIZE) as usize]);
    from[1].read(0, &mut a).unwrap();
    to[1].read(0, &mut b).unwrap();
    assert!(a == b);
    assert!(!told.gone.load(Ordering::SeqCst));
}

/// What is wanted goes first, and again only if it was asked for by somebody who has not got it.
#[test]
fn what_is_wanted_goes_first() {
    let from = filled();
    let mut rest = Remainder::new(&from, &[(from[1].clone(), (0..PAGES).collect())]);
    let (say, said) = crossbeam_channel::unbounded();
    for page in [500, 7, 7] {
        say.send(Said::Want(page, "ram".to_owned())).unwrap();
    }
    say.send(Said::Ok).unwrap();
    let told = Told::default();
    let mut writer = Writer::new(Vec::new()).unwrap();
    drop(say);
    assert!(rest.send(&mut writer, &said, &told).is_err());
    assert!(rest.gone && told.gone.load(Ordering::SeqCst) && told.wanted.load(Ordering::SeqCst) == 3);
    assert_eq!(rest.pages().count(), PAGES - 2);
    let bytes = writer.finish().unwrap();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let mut pages = Vec::new();
    while let Some(section) = reader.next().unwrap() {
        if section.kind == Kind::Pages {
            ram::each(&section, &from, |_, page, _| {
                pages.push(page);
                Ok(())
            })
            .unwrap();
        }
    }
    assert_eq!(pages, [500, 7]);
}

/// A destination that says what it should not ends the move, and nothing else.
#[test]
fn answers_that_are_none_end_the_move() {
    let from = filled();
    for answers in
        ["want 1 none\n", "nonsense\n", "done\n", "ready\n", "want x ram\n", "missing 1 2\n", "ok\nok\n", "o", ""]
    {
        let mut rest = Remainder::new(&from, &[(from[1].clone(), vec![1])]);
        let said = Said::listen(Box::new(std::io::Cursor::new(answers.as_bytes().to_vec()))).unwrap();
        let mut writer = Writer::new(std::io::sink()).unwrap();
        assert!(rest.send(&mut writer, &said, &Told::default()).is_err(), "{answers}");
    }
    for answers in ["missing 600 1 ram\nready\n", "missing 1 1 none\nready\n", "ok\n", "missing 1 1 ram\n"] {
        let mut rest = Remainder::new(&from, &[]);
        let said = Said::listen(Box::new(std::io::Cursor::new(answers.as_bytes().to_vec()))).unwrap();
        assert!(rest.resume(&said).is_err(), "{answers}");
    }
}

/// A source that sends what it should not is not believed.
#[test]
fn sections_that_do_not_belong_end_the_move() {
    if check().is_err() {
        return println!("skipped: no userfaultfd");
    }
    let section = |kind, name: &str, content: &[u8]| {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.section(kind, name, 1, content).unwrap();
        writer.finish().unwrap()
    };
    for bytes in [
        section(Kind::Cpu, "cpu/0", &[]),
        section(Kind::Pages, "none", &[0; 42]),
        section(Kind::Pages, "ram", &[0xff; 42]),
        // The end before all is there.
        section(Kind::Go, "", &[]),
        vec![1; 100],
    ] {
        let to = blocks();
        let mut missing = PageSet::new(&to);
        missing.insert(1, 1);
        let arrival = Arrival::begin(to, missing, std::io::Cursor::new(bytes), &mut None).unwrap();
        assert!(arrival.finish().is_err());
    }
    // What is there already stays as it is.
    let (from, to) = (filled(), blocks());
    let said: Arc<Mutex<Vec<u8>>> = Arc::default();
    struct Kept(Arc<Mutex<Vec<u8>>>);
    impl Write for Kept {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(data)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut missing = PageSet::new(&to);
    missing.insert(1, 1);
    let mut writer = Writer::new(Vec::new()).unwrap();
    ram::write(&mut writer, &from[1], 0, 4).unwrap();
    writer.section(Kind::Go, "", 1, &[]).unwrap();
    let stream = std::io::Cursor::new(writer.finish().unwrap());
    let arrival =
        Arrival::begin(to.clone(), missing, stream.chain(std::io::empty()), &mut Some(Box::new(Kept(said.clone()))))
            .unwrap();
    arrival.take_over().unwrap();
    arrival.finish().unwrap();
    assert_eq!([1, 2].map(|page| to[1].load(page * PAGE_SIZE, 1).unwrap()), [1, 0]);
    assert_eq!(*said.lock(), b"ok\ndone\n");
    assert!(matches!(Arrival::check_blocks(&to), Ok(())));
}
