//! A source of one's own: a client that reads lines, and connects again when the server has closed the connection or
//! cannot be reached. The job counts their words.
//!
//! ```text
//! nc -lk 9999
//! cargo run -p flume-rs-stream --example own_source localhost:9999
//! ```
//!
//! (There is a source of this kind already, `type = "socket"`.)

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use async_trait::async_trait;
use flume_rs_stream::engine::{Engine, EngineError};
use flume_rs_stream::format::Records;
use flume_rs_stream::job::Job;
use flume_rs_stream::source::{Cut, Position, Source, SourceConfig, SourceError};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

/// What is done with the lines; the source is added to it.
const JOB: &str = r#"
batch = "arrival"
[view.words]
sql = "select unnest(string_to_array(value, ' ')) as word from lines"
[table.counts]
sql = "select word, count(*) as n from words where word <> '' group by word"
[sink.screen]
type = "print"
sql = "select word, n from counts order by n desc, word"
"#;

/// So many lines may wait for the next batch; a server that is faster is held back.
const MAX_WAITING: usize = 10_000;

/// Where the lines come from, `host:port`.
#[derive(Clone, Debug)]
struct Server(String);

impl SourceConfig for Server {
    fn build(&self, _: &str, _: bool) -> Box<dyn Source> {
        let (lines, waiting) = channel(MAX_WAITING);
        Box::new(Lines { server: self.clone(), lines, waiting, first: None })
    }
}

struct Lines {
    server: Server,
    lines: Sender<String>,
    waiting: Receiver<String>,
    /// The one that ended the wait for the next batch.
    first: Option<String>,
}

#[async_trait]
impl Source for Lines {
    /// The server cannot be asked for lines again, so there are no positions.
    async fn open(&mut self, _: Option<&Position>) -> Result<(), SourceError> {
        tokio::spawn(receive(self.server.clone(), self.lines.clone()));
        Ok(())
    }

    async fn ready(&mut self) {
        if self.first.is_none() {
            self.first = self.waiting.recv().await;
        }
    }

    async fn cut(&mut self, max_records: usize) -> Result<Cut, SourceError> {
        let mut records = Records::default();
        while records.len() < max_records
            && let Some(line) = self.first.take().or_else(|| self.waiting.try_recv().ok())
        {
            records.push(line.as_bytes());
        }
        Ok(Cut { records: vec![records], position: None })
    }
}

/// Reads lines for as long as anybody wants them.
async fn receive(server: Server, lines: Sender<String>) {
    while !lines.is_closed() {
        if let Ok(stream) = TcpStream::connect(&server.0).await {
            let mut text = BufReader::new(stream).lines();
            while let Ok(Some(line)) = text.next_line().await {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn run(address: &str) -> Result<(), EngineError> {
    let mut job = Job::parse(Path::new("own_source.toml"), JOB.to_owned()).map_err(EngineError::Job)?;
    job.add_source("lines", Server(address.to_owned()));
    Engine::new(job, false).await?.run(&CancellationToken::new()).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address] = arguments.as_slice() else {
        eprintln!("usage: own_source HOST:PORT");
        return ExitCode::FAILURE;
    };
    match run(address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
