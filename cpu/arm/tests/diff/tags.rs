//! Tagged addresses: aliases of one page under all tags, so often that generated code begins to remove tags itself.

use super::asm::constant;
use super::board::{Board, Exception, PAGES, Page, SVC, Then};
use super::check::config;
use super::program::CODE;
use parking_lot::Mutex;
use rhea_arm::reg::Reg;
use rhea_diff::Engine;
use std::sync::Arc;

const ROUNDS: u64 = 30_000;

#[test]
fn tagged_aliases() {
    let mut code = Vec::new();
    constant(&mut code, 0, PAGES + 0x1230);
    constant(&mut code, 1, 1 << 56);
    constant(&mut code, 2, ROUNDS);
    code.extend([
        0x8b01_0000u32, // add x0, x0, x1
        0xf940_0003,    // ldr x3, [x0]
        0x9100_0463,    // add x3, x3, #1
        0xf900_0003,    // str x3, [x0]
        0xf100_0442,    // subs x2, x2, #1
        0x54ff_ff61,    // b.ne to the first
        0xf940_0003,    // ldr x3, [x0]
        0xd400_0001,    // svc
    ]);
    let code: Vec<u8> = code.iter().flat_map(|w| w.to_le_bytes()).collect();
    for engine in Engine::ALL {
        let board = Board::new(&config(), engine);
        board.write(CODE, &code);
        for _ in 0..2 {
            board.write(PAGES + 0x1230, &0u64.to_le_bytes());
            let seen = Arc::new(Mutex::new(Vec::new()));
            let (log, pages) = (seen.clone(), board.pages());
            board.pages().set(PAGES + 0x1000, Page::ReadOnly);
            board.run(
                CODE,
                |_| (),
                move |e: &mut Exception| {
                    log.lock().push((e.class(), e.cpu[Reg::FarEl1] & (u64::MAX >> 8), e.cpu.x[3]));
                    if e.class() == SVC {
                        return Then::Stop;
                    }
                    pages.set(PAGES + 0x1000, Page::ReadWrite);
                    Then::Return
                },
            );
            board.pages().set(PAGES + 0x1000, Page::ReadWrite);
            let seen = seen.lock();
            assert_eq!(seen.len(), 2, "{engine:?}: {seen:x?}");
            assert_eq!((seen[0].1, seen[1].2), (PAGES + 0x1230, ROUNDS), "{engine:?}");
        }
    }
}
