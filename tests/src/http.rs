use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A web server on the loopback interface that answers every request with the same bytes. Its
/// thread ends with the test process.
#[derive(Debug)]
pub struct HttpServer {
    port: u16,
}

impl HttpServer {
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(content: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("listen: {e}"));
        let port = listener.local_addr().map_or(0, |a| a.port());
        let content = Arc::new(content);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = Arc::clone(&content);
                std::thread::spawn(move || answer(stream, &content));
            }
        });
        Self { port }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn answer(mut stream: TcpStream, content: &[u8]) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).ok()?;
    stream.write_all(content).ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()
}

/// A TCP port of the loopback interface that nothing uses at the moment.
///
/// # Panics
/// When none can be had.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("listen: {e}"));
    listener.local_addr().map_or(0, |a| a.port())
}

/// Fetches `path` from a port of the loopback interface; tries again until `timeout`, since a
/// forwarded port is open before the guest listens. Returns the body.
///
/// # Panics
/// When there is no answer in time.
#[must_use]
pub fn http_get(port: u16, path: &str, timeout: Duration) -> Vec<u8> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(body) = try_get(port, path) {
            return body;
        }
        assert!(Instant::now() < end, "no answer from port {port} within {timeout:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn try_get(port: u16, path: &str) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: guest\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    answer.starts_with(b"HTTP/").then(|| answer.split_off(head + 4))
}
