//! `avro-client`: sends the lines of files, or of standard input, to an avro source.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use thiserror::Error;

use super::{JavaArgs, fail, progress};
use crate::config::{Finding, Globals, Props, Severity, parse};
use crate::event::{Batch, Headers};
use crate::metrics::SinkCounters;
use crate::rpc::avro::Avro;
use crate::rpc::event_client::{ClientConfig, EventClient, SendError};
use crate::source::{LineSplitter, Terminator};

const BATCH_SIZE: i32 = 5;
/// Flume's client library's own, for those who configure it by a file.
const FILE_BATCH_SIZE: i32 = 100;
const READ_BYTES: usize = 64 << 10;
const MAX_LINE_BYTES: usize = 16 << 20;
const COMPLETED: &str = ".COMPLETED";

/// Options of `avro-client`.
#[derive(Args, Debug)]
pub struct AvroClientArgs {
    /// A properties file with the client's keys: hosts, client.type, compression-type, ssl and so on
    #[arg(short = 'P', long = "rpcProps", value_name = "FILE")]
    rpc_props: Option<PathBuf>,
    /// The host of the avro source
    #[arg(short = 'H', long)]
    host: Option<String>,
    /// The port of the avro source
    #[arg(short, long)]
    port: Option<u16>,
    /// The file whose lines are sent; without it, standard input
    #[arg(short = 'F', long, value_name = "FILE")]
    filename: Option<PathBuf>,
    /// A directory whose files are sent, the oldest first; each is renamed when it is done
    #[arg(long, value_name = "DIR")]
    dirname: Option<PathBuf>,
    /// A properties file with headers that every event gets
    #[arg(short = 'R', long = "headerFile", value_name = "FILE")]
    header_file: Option<PathBuf>,
    /// Events in a request
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    batch_size: Option<i32>,
    /// Accepted, as Flume's wrapper takes it for every command
    #[arg(short, long, value_name = "DIR", hide = true)]
    conf: Option<PathBuf>,
}

/// Why not everything was sent.
#[derive(Debug, Error)]
enum ClientError {
    #[error("{0}")]
    Usage(&'static str),
    #[error("the client's configuration is wrong")]
    Config,
    #[error("{path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} has a line of more than {MAX_LINE_BYTES} bytes")]
    Line(PathBuf),
    // The error has its causes in its text.
    #[error("Unable to open connection to Flume. Exception follows. {0}")]
    Connect(SendError),
    #[error("Unable to deliver events to Flume. Exception follows. {0}")]
    Deliver(SendError),
    #[error("the runtime could not be started")]
    Runtime(#[source] io::Error),
}

impl ClientError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

/// Sends everything and says how much that was. The exit status is 0 when all of it is delivered, 2 when the command line
/// or a file is wrong, and otherwise 1; Flume's is always 0.
pub fn run(args: &AvroClientArgs, java: JavaArgs) -> ExitCode {
    match send_all(args, &java.globals()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = fail(&error);
            if matches!(error, ClientError::Connect(_) | ClientError::Deliver(_)) { ExitCode::FAILURE } else { code }
        }
    }
}

fn send_all(args: &AvroClientArgs, globals: &Globals) -> Result<(), ClientError> {
    if args.filename.is_some() && args.dirname.is_some() {
        return Err(ClientError::Usage("--filename and --dirname options cannot be used simultaneously"));
    }
    let config = client_config(args, globals)?;
    let headers = args.header_file.as_deref().map_or(Ok(Headers::new()), headers)?;
    let inputs = inputs(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
    let batch_size = config.batch_size;
    let client = EventClient::new(config, Arc::new(Avro), Arc::new(SinkCounters::new("avro-client")));
    let size: Option<u64> = inputs.iter().map(|input| input.size).sum();
    let mut sender = Sender { client, headers, batch_size, totals: Totals::new(size, args.filename.as_deref()) };
    runtime.block_on(async {
        let outcome = match sender.client.connect().await {
            Ok(()) => sender.send_inputs(inputs).await,
            Err(error) => Err(ClientError::Connect(error)),
        };
        sender.client.close().await;
        sender.totals.say();
        outcome
    })
}

/// Reads the client's keys from `--rpcProps`, or takes the host and port.
fn client_config(args: &AvroClientArgs, globals: &Globals) -> Result<ClientConfig, ClientError> {
    let mut findings = Vec::new();
    let mut entries = BTreeMap::new();
    let mut first = None;
    let mut batch_size = BATCH_SIZE;
    match (&args.rpc_props, &args.host, args.port) {
        (Some(path), ..) => {
            let text = fs::read(path).map_err(ClientError::file(path))?;
            let properties = parse(&path.to_string_lossy(), &text, &mut findings);
            entries.extend(properties.into_iter().map(|property| (property.key.clone(), property)));
            batch_size = FILE_BATCH_SIZE;
        }
        (None, Some(host), Some(port)) => first = Some((host.clone(), port)),
        (None, None, None) => {
            return Err(ClientError::Usage("Either --rpcProps or both --host and --port must be specified."));
        }
        (None, Some(_), None) => {
            return Err(ClientError::Usage("You must specify a port to connect to with --port"));
        }
        (None, None, Some(_)) => {
            return Err(ClientError::Usage("You must specify a hostname to connect to with --host"));
        }
    }
    let props = Props::new("rpcProps", &entries, None, globals);
    let mut config = ClientConfig::from_props(&props, first, batch_size).for_avro(&props);
    if let Some(batch_size) = args.batch_size {
        config.batch_size = batch_size as usize;
    }
    let config = props.finish(config);
    findings.extend(props.into_findings());
    for finding in findings.iter().filter(|finding| finding.severity != Severity::Note) {
        eprintln!("{finding}");
    }
    config.ok_or(ClientError::Config)
}

fn headers(path: &Path) -> Result<Headers, ClientError> {
    let text = fs::read(path).map_err(ClientError::file(path))?;
    let mut findings: Vec<Finding> = Vec::new();
    let properties = parse(&path.to_string_lossy(), &text, &mut findings);
    for finding in findings.iter().filter(|finding| finding.severity != Severity::Note) {
        eprintln!("{finding}");
    }
    Ok(properties.into_iter().map(|property| (property.key, property.value)).collect())
}

/// Where lines come from.
struct Input {
    /// The file, or none for standard input.
    path: Option<PathBuf>,
    size: Option<u64>,
    /// Whether the file is renamed when it is done.
    rename: bool,
}

fn inputs(args: &AvroClientArgs) -> Result<Vec<Input>, ClientError> {
    if let Some(directory) = &args.dirname {
        return files(directory).map_err(ClientError::file(directory));
    }
    let size = match &args.filename {
        None => None,
        Some(path) => {
            let metadata = fs::metadata(path).map_err(ClientError::file(path))?;
            // What a pipe will bring is not known.
            metadata.is_file().then_some(metadata.len())
        }
    };
    Ok(vec![Input { path: args.filename.clone(), size, rename: false }])
}

/// The files of a directory that are to be sent, the oldest first.
fn files(directory: &Path) -> io::Result<Vec<Input>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let metadata = entry.metadata()?;
        if metadata.is_file() && !name.starts_with('.') && !name.ends_with(COMPLETED) {
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let input = Input { path: Some(entry.path()), size: Some(metadata.len()), rename: true };
            files.push(((modified, entry.file_name()), input));
        }
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files.into_iter().map(|(_, input)| input).collect())
}

struct Sender {
    client: EventClient,
    headers: Headers,
    batch_size: usize,
    totals: Totals,
}

impl Sender {
    async fn send_inputs(&mut self, inputs: Vec<Input>) -> Result<(), ClientError> {
        for Input { path, rename, .. } in inputs {
            let Some(path) = path else {
                self.send_lines(&mut io::stdin().lock(), Path::new("standard input")).await?;
                continue;
            };
            let mut file = File::open(&path).map_err(ClientError::file(&path))?;
            self.send_lines(&mut file, &path).await?;
            if rename {
                let mut name = path.as_os_str().to_owned();
                name.push(OsStr::new(COMPLETED));
                fs::rename(&path, name).map_err(ClientError::file(&path))?;
            }
        }
        Ok(())
    }

    /// Sends all lines; those that are there go out at once, whether or not they fill a batch.
    async fn send_lines(&mut self, input: &mut impl Read, path: &Path) -> Result<(), ClientError> {
        let mut splitter = LineSplitter::new(Terminator::Any);
        let mut pending = Vec::new();
        loop {
            let before = pending.len();
            pending.resize(before + READ_BYTES, 0);
            let read = loop {
                match input.read(&mut pending[before..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read.map_err(ClientError::file(path))?,
                }
            };
            pending.truncate(before + read);
            if read == 0 && !pending.is_empty() {
                pending.push(b'\n');
            }
            // Only what is new can hold the end of a line.
            let whole = match splitter.whole(&pending[before..]) {
                0 if pending.len() > MAX_LINE_BYTES => return Err(ClientError::Line(path.to_owned())),
                0 => 0,
                whole => before + whole,
            };
            let rest = pending.split_off(whole);
            self.send_text(&mut splitter, pending).await?;
            self.totals.progress(read as u64);
            pending = rest;
            if read == 0 {
                return Ok(());
            }
        }
    }

    /// Sends whole lines.
    async fn send_text(&mut self, splitter: &mut LineSplitter, text: Vec<u8>) -> Result<(), ClientError> {
        let text = bytes::Bytes::from(text);
        let mut at = 0;
        while at < text.len() {
            let piece = text.slice(at..);
            let mut batch = Batch::with_capacity(self.batch_size);
            let buffer = batch.push_buffer(piece.clone());
            let headers = batch.push_headers(self.headers.clone());
            at +=
                splitter.split_some(&piece, self.batch_size, |start, end| batch.push_span(buffer, start, end, headers));
            if !batch.is_empty() {
                self.client.send(&batch).await.map_err(ClientError::Deliver)?;
                self.totals.sent(&batch);
            }
        }
        Ok(())
    }
}

/// What has been sent, shown while it goes on and at the end.
struct Totals {
    start: Instant,
    events: u64,
    bytes: u64,
    bar: ProgressBar,
}

impl Totals {
    /// Nothing yet, of so many bytes when that is known.
    fn new(size: Option<u64>, file: Option<&Path>) -> Self {
        let name = file.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let bar = progress::bar(size, name);
        Self { start: Instant::now(), events: 0, bytes: 0, bar }
    }

    fn progress(&self, read: u64) {
        self.bar.inc(read);
        self.bar.set_message(format!("{}/s", HumanCount(self.rate())));
    }

    fn sent(&mut self, batch: &Batch) {
        self.events += batch.len() as u64;
        self.bytes += batch.body_bytes() as u64;
    }

    fn rate(&self) -> u64 {
        (self.events as f64 / self.start.elapsed().max(Duration::from_micros(1)).as_secs_f64()) as u64
    }

    fn say(&self) {
        self.bar.finish_and_clear();
        let plural = if self.events == 1 { "" } else { "s" };
        eprintln!(
            "{} event{plural} sent, {} in {:.2} s, {} events/s",
            HumanCount(self.events),
            HumanBytes(self.bytes),
            self.start.elapsed().as_secs_f64(),
            HumanCount(self.rate())
        );
    }
}
