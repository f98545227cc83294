//! An HTTP request, byte by byte.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::DEADLINE;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The header lines.
    pub headers: Vec<String>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.iter().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Asks once, on a connection of its own.
pub fn http(port: u16, method: &str, path: &str) -> Reply {
    ask(port, format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Posts once, on a connection of its own.
pub fn post(port: u16, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    ask(port, &[head.as_bytes(), body].concat())
}

fn ask(port: u16, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port accepts connections");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    // A server may answer and close before it has read everything.
    let _closed = stream.write_all(request);
    let mut text = Vec::new();
    let _reset = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    Reply {
        status: status.expect("an answer begins with a status"),
        headers: lines.map(str::to_owned).collect(),
        body: body.to_owned(),
    }
}
