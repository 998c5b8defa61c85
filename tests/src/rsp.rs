use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The client's side of GDB's remote serial protocol, as far as tests need it.
#[derive(Debug)]
pub struct Rsp(TcpStream);

impl Rsp {
    /// Connects to a stub on the loopback interface, waiting until it listens.
    ///
    /// # Panics
    /// When nothing listens within `timeout`.
    #[must_use]
    pub fn connect(port: u16, timeout: Duration) -> Self {
        let end = Instant::now() + timeout;
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                let _ = stream.set_read_timeout(Some(timeout));
                let _ = stream.set_nodelay(true);
                return Self(stream);
            }
            assert!(Instant::now() < end, "no GDB stub on port {port}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a packet and returns the answer's content.
    ///
    /// # Panics
    /// When the stub does not answer.
    pub fn ask(&mut self, packet: &str) -> String {
        self.tell(packet);
        self.answer()
    }

    /// Sends a packet whose answer comes later, such as `c`.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn tell(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap_or_else(|e| panic!("sending {packet}: {e}"));
    }

    /// The next packet from the stub, acknowledged.
    ///
    /// # Panics
    /// When none comes.
    pub fn answer(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut content = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'}' => {
                    let escaped = self.byte() ^ 0x20;
                    content.push(escaped);
                }
                b'*' => {
                    // Run-length encoding: the count is offset by 29.
                    let count = self.byte().saturating_sub(29);
                    let last = content.last().copied().unwrap_or(0);
                    content.extend(std::iter::repeat_n(last, usize::from(count)));
                }
                byte => content.push(byte),
            }
        }
        let _checksum = [self.byte(), self.byte()];
        let _ = self.0.write_all(b"+");
        String::from_utf8_lossy(&content).into_owned()
    }

    /// Interrupts the running guest.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn interrupt(&mut self) {
        self.0.write_all(&[3]).unwrap_or_else(|e| panic!("interrupting: {e}"));
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).unwrap_or_else(|e| panic!("the GDB stub's answer: {e}"));
        byte[0]
    }
}
