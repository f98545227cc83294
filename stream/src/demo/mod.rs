//! The whole way on one machine: a shop's access log is made up, an agent follows it and sends what is new, the job
//! counts it, and the page shows it.
//!
//! The agent runs within this process. It sends to the job itself, or over a Kafka that is there.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flume_rs::agent::{Agent, ResolvedAgent, resolve};
use flume_rs::config::{Globals, Lookups, Severity, load};
use flume_rs::metrics::Metrics;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError};
use crate::generate::{AccessLog, Generator, Output, Pace, Rate, Site, Target};
use crate::job::Job;

/// What is the same in every demonstration.
const JOB: &str = include_str!("job.toml");
/// What the agent calls itself.
const AGENT: &str = "demo";
/// The log begins anew when it is so large.
const MAX_LOG: u64 = 16 << 20;
/// How long the agent may take to deliver what it has, at the end.
const DRAIN: Duration = Duration::from_secs(3);

/// How lines get from the agent to the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The agent's avro sink sends to the job's Flume source.
    Direct,
    /// Through a topic of a Kafka.
    Kafka {
        /// Its brokers, as `host:port`.
        servers: String,
        /// The topic.
        topic: String,
    },
}

/// Why there is no demonstration.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Files or ports.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// The agent's configuration is wrong.
    #[error("the agent: {0}")]
    Agent(String),
    /// The job.
    #[error(transparent)]
    Job(#[from] EngineError),
}

/// A demonstration that is ready to run. Its files go with it.
pub struct Demo {
    home: TempDir,
    agent: ResolvedAgent,
    engine: Engine,
    rate: Rate,
}

impl Demo {
    /// Prepares everything; the page's address is known then.
    pub async fn new(way: &Way, rate: Rate, ui: String) -> Result<Self, DemoError> {
        let failed = |error| DemoError::Io("a temporary folder".to_owned(), error);
        let home = tempfile::Builder::new().prefix("flume-rs-stream-demo-").tempdir().map_err(failed)?;
        let (source, sink) = match way {
            Way::Direct => {
                let port = free_port().map_err(|error| DemoError::Io("a free port".to_owned(), error))?;
                (
                    format!("type = \"flume-push\"\nlisten = \"127.0.0.1:{port}\"\n"),
                    format!("type = avro\nhostname = 127.0.0.1\nport = {port}\nbatch-size = 1000\n"),
                )
            }
            Way::Kafka { servers, topic } => (
                format!("type = \"kafka\"\nservers = {servers:?}\ntopics = {topic:?}\n"),
                format!(
                    "type = org.apache.flume.sink.kafka.KafkaSink\nkafka.bootstrap.servers = {servers}\n\
                     kafka.topic = {topic}\nflumeBatchSize = 1000\n"
                ),
            ),
        };
        let mut job = Job::parse(Path::new("demo.toml"), format!("{JOB}{source}")).map_err(EngineError::Job)?;
        job.ui = Some(ui);
        let engine = Engine::new(job, false).await?;
        let agent = agent(home.path(), &sink)?;
        Ok(Self { home, agent, engine, rate })
    }

    /// Where the page is.
    pub fn page(&self) -> Option<String> {
        self.engine.page()
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// Runs until it is stopped; then what is on its way is still counted, unless `now` cuts that short.
    pub async fn run(self, stop: &CancellationToken, now: &CancellationToken) -> Result<(), DemoError> {
        let Self { home, agent: resolved, engine, rate } = self;
        let mut batches = engine.progress().watch();
        let end = CancellationToken::new();
        let feeding = async {
            // Once there was a batch, the job takes what the agent sends.
            if let Some(Ok(())) = stop.run_until_cancelled(batches.changed()).await {
                let mut agent = Agent::new(AGENT, Arc::new(Metrics::default()), DRAIN);
                agent.apply(resolved, now).await;
                let log = home.path().join("access.log");
                let written = stop.run_until_cancelled(write_log(&log, rate)).await;
                agent.stop(now).await;
                if let Some(Err(error)) = written {
                    return Err(DemoError::Io(log.display().to_string(), error));
                }
            }
            Ok(())
        };
        let feeding = async {
            let fed = feeding.await;
            end.cancel();
            fed
        };
        let (fed, worked) = tokio::join!(feeding, async {
            let worked = engine.run(&end).await;
            // A job that has failed ends everything.
            stop.cancel();
            now.cancel();
            worked
        });
        worked?;
        fed
    }
}

/// A port that nobody has yet.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// An agent that follows the log.
fn agent(home: &Path, sink: &str) -> Result<ResolvedAgent, DemoError> {
    let folder = home.display();
    let mut text = format!(
        "{AGENT}.sources = log\n{AGENT}.channels = memory\n{AGENT}.sinks = job\n\
         {AGENT}.sources.log.type = TAILDIR\n{AGENT}.sources.log.channels = memory\n\
         {AGENT}.sources.log.filegroups = access\n{AGENT}.sources.log.filegroups.access = {folder}/access\\\\.log\n\
         {AGENT}.sources.log.positionFile = {folder}/positions.json\n{AGENT}.sources.log.batchSize = 1000\n\
         {AGENT}.channels.memory.type = memory\n{AGENT}.channels.memory.capacity = 100000\n\
         {AGENT}.channels.memory.transactionCapacity = 1000\n{AGENT}.sinks.job.channel = memory\n"
    );
    for line in sink.lines() {
        text.push_str(&format!("{AGENT}.sinks.job.{line}\n"));
    }
    let lookups = Lookups::default();
    let mut configuration = load(&[("the demonstration's agent".to_owned(), text.into_bytes())], &lookups);
    let globals = Globals { heap_bytes: 256 << 20, ..Globals::default() };
    let plan = configuration.agents.get(AGENT).ok_or_else(|| DemoError::Agent("it has no configuration".to_owned()))?;
    let resolved = resolve(plan, &globals, &mut configuration.findings);
    if let Some(wrong) = configuration.findings.iter().find(|finding| finding.severity == Severity::Error) {
        return Err(DemoError::Agent(wrong.message.clone()));
    }
    Ok(resolved)
}

/// Writes a shop's log for ever; one that is large enough is put aside, and the one before is removed.
async fn write_log(path: &Path, rate: Rate) -> io::Result<()> {
    let mut generator = Generator::new(Box::new(AccessLog::new(Site::Shop, true)), None, rate);
    let (mut pace, mut lines) = (Pace::new(rate), Vec::new());
    loop {
        let mut output = Output::open(&Target::File(path.to_owned())).await?;
        let mut written = 0;
        while written < MAX_LOG {
            let due = pace.due().await;
            lines.clear();
            generator.push(due, &mut lines);
            output.write(&lines).await?;
            written += lines.len() as u64;
        }
        fs::rename(path, path.with_extension("log.1"))?;
    }
}
