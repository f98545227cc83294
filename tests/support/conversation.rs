//! A client that checks every byte.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::DEADLINE;

/// One connection.
pub struct Conversation {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Conversation {
    /// Connects.
    pub fn with(port: u16) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", port)).expect("the port accepts connections"))
    }

    /// Takes over a connection.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(DEADLINE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("the option can be set");
        let reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        Self { stream, reader }
    }

    /// Sends bytes, in one packet if they fit.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the peer reads");
    }

    /// Sends bytes, and says whether the peer still reads.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// The next line without its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).expect("the peer answers");
        assert_ne!(read, 0, "the peer has closed the connection");
        assert!(line.ends_with('\n'), "half a line: {line:?}");
        line.truncate(line.len() - 1);
        line
    }

    /// The next bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("the peer answers");
        bytes
    }

    /// The next lines.
    pub fn lines(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// Sends a line and gives the answer.
    pub fn ask(&mut self, line: impl AsRef<[u8]>) -> String {
        self.send([line.as_ref(), b"\n"].concat());
        self.line()
    }

    /// Says that nothing more is sent, and gives all that still comes until the peer closes.
    pub fn finish(mut self) -> String {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).expect("the peer closes");
        rest
    }

    /// Where the peer sees this end.
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }

    /// Whether nothing has come that has not been read.
    pub fn is_quiet(&self) -> bool {
        self.stream.set_nonblocking(true).expect("the option can be set");
        let nothing = self.stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).expect("the option can be set");
        nothing && self.reader.buffer().is_empty()
    }

    /// The next bytes, unless the peer closes before.
    pub fn try_bytes(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(bytes)
    }

    /// Waits for more, and says whether the peer has closed instead.
    pub fn is_closed(&mut self) -> bool {
        self.reader.fill_buf().expect("the peer closes in order").is_empty()
    }

    /// All that still comes until the peer closes, or resets the connection as it has not read everything.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.reader.read_to_end(&mut rest) {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the peer closes");
        }
        rest
    }

    /// Says that nothing more is sent.
    pub fn end(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Nothing more comes: the peer has closed.
    pub fn expect_eof(&mut self) {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).expect("the peer closes in order");
        assert_eq!(rest, "", "nothing more was expected");
    }
}
