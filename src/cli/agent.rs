//! `agent`: reads a configuration, runs what it says, follows its changes, and stops in order.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::check::resolve_agents;
use super::{ConfigArgs, JavaArgs, fail, read_texts};
use crate::agent::{Agent, ResolvedAgent};
use crate::config::{Configuration, Finding, Location, Severity, load};
use crate::logging::LogSettings;
use crate::metrics::{Metrics, MetricsServer, Page};

const POLL_SECONDS: u64 = 30;
const HTTP_POLL_SECONDS: u64 = 300;
const DRAIN_SECONDS: f64 = 10.0;
/// A month is as good as no limit.
const MAX_DRAIN_SECONDS: f64 = 30.0 * 24.0 * 3600.0;
/// How long tasks that were cut off may take to go.
const LAST_MOMENT: Duration = Duration::from_millis(500);
/// Sinks that block have a thread each; no agent has so many.
const MAX_BLOCKING_THREADS: usize = 4096;
const MONITORING_PORT: u16 = 41414;

/// Options of `agent`.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// The name of the agent in the configuration
    #[arg(short, long)]
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// How often to look for changes of the configuration, in seconds
    #[arg(short = 'i', long, value_name = "SECONDS")]
    poll_interval: Option<u64>,
    /// Do not look for changes of the configuration
    #[arg(long)]
    no_reload_conf: bool,
    /// Keep the last good configuration in this directory, and use it when there is no other
    #[arg(short, long, value_name = "DIR")]
    backup_directory: Option<PathBuf>,
    /// Refuse a configuration that `check` finds errors in
    #[arg(long)]
    strict: bool,
    /// How long to deliver what is left when stopping, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DRAIN_SECONDS, allow_negative_numbers = true)]
    drain_timeout: f64,
    /// Write the log as JSON lines
    #[arg(long)]
    log_json: bool,
    /// Check the configuration, do not start anything
    #[arg(short, long)]
    dryrun: bool,
    /// Accepted; there is nothing to plug in
    #[arg(long, value_name = "DIRS", hide = true)]
    plugins_path: Option<String>,
    #[arg(short, long = "auth-provider", hide = true)]
    auth_provider: Option<String>,
    #[arg(long = "conf-provider", alias = "prov", hide = true)]
    conf_provider: Option<String>,
    /// ZooKeeper's addresses; not in this version
    #[arg(short = 'z', long = "zkConnString", hide = true)]
    zk_conn_string: Option<String>,
    #[arg(short = 'p', long = "zkBasePath", hide = true)]
    zk_base_path: Option<String>,
}

/// Flume also reads these files for `name = a1` and `conf-file = x`; the command line wins.
fn options_from_files(args: &mut AgentArgs) {
    let directories = std::iter::once(PathBuf::from("/etc/flume")).chain(args.config.directories());
    for path in directories.map(|directory| directory.join("flume.opts")) {
        let Ok(text) = std::fs::read(&path) else { continue };
        for option in crate::config::parse(&path.to_string_lossy(), &text, &mut Vec::new()) {
            match option.key.as_str() {
                "name" | "n" if args.name.is_none() => args.name = Some(option.value),
                "conf-file" | "f" if args.config.conf_file.is_empty() && args.config.conf_uri.is_empty() => {
                    args.config.conf_file.push(option.value.into());
                }
                "conf-uri" | "u" if args.config.conf_file.is_empty() && args.config.conf_uri.is_empty() => {
                    args.config.conf_uri.push(option.value);
                }
                _ => {}
            }
        }
    }
}

/// Runs an agent until a signal ends it.
pub fn run(mut args: AgentArgs, java: JavaArgs) -> ExitCode {
    options_from_files(&mut args);
    let usage = |text: &str| {
        eprintln!("{text}\nusage: flume-rs agent --name NAME --conf-file FILE; see flume-rs help");
        ExitCode::from(2)
    };
    let Some(name) = args.name.clone() else { return usage("Missing required option: n") };
    if args.zk_conn_string.is_some()
        || args.zk_base_path.is_some()
        || args.conf_provider.is_some()
        || args.auth_provider.is_some()
    {
        return usage(
            "Configurations in ZooKeeper and providers by class name are not in this version; use --conf-file or --conf-uri",
        );
    }
    let Ok(drain) = Duration::try_from_secs_f64(args.drain_timeout.min(MAX_DRAIN_SECONDS)) else {
        return usage("--drain-timeout: expected a number of seconds, at least 0");
    };
    let locations = match args.config.locations() {
        Ok(locations) if locations.is_empty() => {
            return usage("No configuiration was provided: expected --conf-file or --conf-uri");
        }
        Ok(locations) => locations,
        Err(error) => return fail(&error),
    };
    let log = LogSettings::new(&java.system, args.config.conf.as_deref()).json(args.log_json);
    if let Err(error) = log.install() {
        return fail(&error);
    }
    for problem in &log.problems {
        warn!("{problem}");
    }
    if !java.ignored.is_empty() {
        info!("Options for Java have no effect here: {}", java.ignored.join(" "));
    }
    let reader = Reader { name, locations, java, backup: args.backup_directory.clone() };
    // Before the first reading, so that no change is missed. Where nobody looks for changes, nothing is read twice.
    let stamp = if args.no_reload_conf { Stamp::new() } else { reader.stamp() };
    let (configuration, text) = match reader.read_or_backup() {
        Ok(read) => read,
        Err(text) => {
            error!("A fatal error occurred while running. Exception follows. {text}");
            return ExitCode::FAILURE;
        }
    };
    let (resolved, findings) = reader.resolve(configuration);
    report(&findings);
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if args.dryrun {
        eprintln!("Warning: Dryrun mode enabled (will not actually initiate startup)");
        return if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if errors > 0 {
        if args.strict {
            error!("the configuration has {errors} errors, and --strict refuses it");
            return ExitCode::FAILURE;
        }
        warn!(
            "the configuration has {errors} errors; what is right in it runs, as in Flume; --strict refuses such a configuration"
        );
    }
    if !reader.has_errors(&findings) {
        reader.keep_backup(&text);
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("flume-worker")
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let reload = (!args.no_reload_conf).then(|| {
        let http = reader.locations.iter().any(|location| matches!(location, Location::Http { .. }));
        Duration::from_secs(args.poll_interval.unwrap_or(if http { HTTP_POLL_SECONDS } else { POLL_SECONDS }).max(1))
    });
    let code = runtime.block_on(live(reader, resolved, findings, stamp, reload, drain));
    // What a cut-off sink or command still does must not hold the process, but its group of processes must go.
    runtime.shutdown_timeout(LAST_MOMENT);
    code
}

/// Thousands of connections need as many descriptors; Java raises the soft limit too.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!("could not raise the limit of open files: {error}");
    }
}

/// Logs findings as Flume would, each with its place.
fn report(findings: &[Finding]) {
    for finding in findings {
        match finding.severity {
            Severity::Error => error!("{}", finding.log_line()),
            Severity::Warning => warn!("{}", finding.log_line()),
            Severity::Note => info!("{}", finding.log_line()),
        }
    }
}

/// Reads one agent's configuration, again and again.
struct Reader {
    name: String,
    locations: Vec<Location>,
    java: JavaArgs,
    backup: Option<PathBuf>,
}

impl Reader {
    /// The configuration, and the text that it came from: all texts in their order.
    fn read(&self) -> Result<(Configuration, Vec<u8>), String> {
        self.read_from(&self.locations)
    }

    fn read_from(&self, locations: &[Location]) -> Result<(Configuration, Vec<u8>), String> {
        let texts = read_texts(locations).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            format!("{error}{cause}")
        })?;
        // Later texts override earlier ones in one file just as in several.
        let together = texts.iter().flat_map(|(_, text)| text.iter().copied().chain([b'\n'])).collect();
        Ok((load(&texts, &self.java.lookups()), together))
    }

    fn backup_file(&self) -> Option<PathBuf> {
        self.backup.as_ref().map(|directory| directory.join(format!(".{}.properties", self.name)))
    }

    fn read_or_backup(&self) -> Result<(Configuration, Vec<u8>), String> {
        let primary = self.read();
        let (Err(text), Some(backup)) = (&primary, self.backup_file()) else { return primary };
        warn!("{text}");
        warn!("Unable to access primary configuration. Trying backup");
        self.read_from(&[Location::File(backup)])
    }

    /// Keeps a configuration for the day on which there is no other.
    fn keep_backup(&self, text: &[u8]) {
        let Some(path) = self.backup_file() else { return };
        if let Err(error) = replace_file(&path, text) {
            warn!("could not keep a backup of the configuration in {}: {error}", path.display());
        }
    }

    fn has_errors(&self, findings: &[Finding]) -> bool {
        findings.iter().any(|finding| finding.severity == Severity::Error && self.concerns(finding))
    }

    /// The agent's part, and all findings.
    fn resolve(&self, mut configuration: Configuration) -> (ResolvedAgent, Vec<Finding>) {
        let agents = resolve_agents(&mut configuration, &self.locations, Some(&self.name), &self.java.globals());
        let names: Vec<&str> = configuration.agents.keys().map(String::as_str).collect();
        info!("Post-validation flume configuration contains configuration for agents: [{}]", names.join(", "));
        (agents.into_iter().next().unwrap_or_default(), configuration.findings)
    }

    fn stamp(&self) -> Stamp {
        let stamp = |location: &Location| match location {
            Location::Http { .. } => (None, location.read().ok()),
            _ => (location.version(), None),
        };
        self.locations.iter().map(stamp).collect()
    }

    /// Whether a finding is about this agent, or about the text as a whole.
    fn concerns(&self, finding: &Finding) -> bool {
        let of_this = |key: &String| {
            key.strip_prefix(self.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        finding.key.as_ref().is_none_or(of_this)
    }
}

/// What changes when a configuration does: versions of files, and the texts of what has none.
type Stamp = Vec<(Option<(SystemTime, u64, u64)>, Option<Vec<u8>>)>;

fn replace_file(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("properties.tmp");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

/// The signals that end an agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The agent's life, from the first start to the last line of the log.
async fn live(
    reader: Reader,
    resolved: ResolvedAgent,
    mut findings: Vec<Finding>,
    mut stamp: Stamp,
    reload: Option<Duration>,
    drain: Duration,
) -> ExitCode {
    let (mut signals, mut hangup) = match (Signals::listen(), signal(SignalKind::hangup())) {
        (Ok(signals), Ok(hangup)) => (signals, hangup),
        (Err(error), _) | (_, Err(error)) => {
            error!("could not listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let metrics = Arc::new(Metrics::default());
    let mut agent = Agent::new(&reader.name, Arc::clone(&metrics), drain);
    let system = reader.java.system.clone();
    let reader = Arc::new(reader);
    agent.apply(resolved, &CancellationToken::new()).await;
    let monitoring = CancellationToken::new();
    start_monitoring(&system, metrics, monitoring.clone()).await;

    let stopped_by = loop {
        let asked = tokio::select! {
            signal = signals.stop() => break signal,
            _ = hangup.recv() => true,
            () = pause(reload) => false,
        };
        // Reading may take long where the configuration is far away; a signal does not wait for it.
        let next = tokio::select! {
            signal = signals.stop() => break signal,
            next = next_configuration(&reader, &mut stamp, asked) => next,
        };
        if let Some((resolved, new, text)) = next {
            let known =
                |finding: &Finding| findings.iter().any(|old| old.key == finding.key && old.message == finding.message);
            let fresh: Vec<Finding> = new.iter().filter(|finding| !known(finding)).cloned().collect();
            report(&fresh);
            if fresh.iter().any(|finding| finding.severity == Severity::Error && reader.concerns(finding)) {
                error!("the changed configuration has new errors and is not applied; the agent goes on as it was");
                continue;
            }
            let now = CancellationToken::new();
            let mut applied = std::pin::pin!(agent.apply(resolved, &now));
            // A signal cuts the drain of channels that leave short, and is then served.
            let signal = tokio::select! {
                () = &mut applied => None,
                signal = signals.stop() => Some(signal),
            };
            if let Some(signal) = signal {
                now.cancel();
                applied.await;
                break signal;
            }
            findings = new;
            if !reader.has_errors(&findings) {
                let reader = Arc::clone(&reader);
                tokio::task::spawn_blocking(move || reader.keep_backup(&text));
            }
        }
    };

    info!("{stopped_by}: stopping");
    let now = CancellationToken::new();
    let mut stopping = pin!(agent.stop(&now));
    let lost = tokio::select! {
        biased;
        lost = &mut stopping => lost,
        signal = signals.stop() => {
            warn!("{signal} again: ending at once");
            now.cancel();
            stopping.await
        }
    };
    monitoring.cancel();
    if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The configuration when it has changed, or when it is asked for. Nothing when it cannot be read: a file that is gone
/// for a moment is no change.
async fn next_configuration(
    reader: &Arc<Reader>,
    stamp: &mut Stamp,
    asked: bool,
) -> Option<(ResolvedAgent, Vec<Finding>, Vec<u8>)> {
    let far = Arc::clone(reader);
    let now = tokio::task::spawn_blocking(move || far.stamp()).await.ok()?;
    let gone = now.iter().any(|(version, text)| version.is_none() && text.is_none());
    if !asked && (now == *stamp || gone) {
        return None;
    }
    *stamp = now;
    let names: Vec<String> = reader.locations.iter().map(Location::name).collect();
    info!("Reloading configuration file:{}", names.join(","));
    let far = Arc::clone(reader);
    let read = tokio::task::spawn_blocking(move || {
        far.read().map(|(configuration, text)| {
            let (resolved, findings) = far.resolve(configuration);
            (resolved, findings, text)
        })
    })
    .await;
    let text = match read {
        Ok(Ok(next)) => return Some(next),
        Ok(Err(text)) => text,
        Err(error) => error.to_string(),
    };
    error!("Failed to load configuration data. Exception follows. {text}; the agent goes on as it was");
    None
}

async fn pause(interval: Option<Duration>) {
    match interval {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}

async fn start_monitoring(
    system: &std::collections::BTreeMap<String, String>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let Some(kind) = system.get("flume.monitoring.type") else { return };
    let page = match kind.to_ascii_lowercase().as_str() {
        "http" => Page::Json,
        "prometheus" => Page::Prometheus,
        _ => {
            let known = "of Flume's types this version has http and prometheus";
            return warn!("Error starting monitoring. Monitoring might not be available. {known}, not {kind}");
        }
    };
    let port = system.get("flume.monitoring.port").map_or(Some(MONITORING_PORT), |text| text.trim().parse().ok());
    let Some(port) = port else {
        let value = system.get("flume.monitoring.port").map_or("", String::as_str);
        return error!(
            "flume.monitoring.port = \"{value}\": expected a port between 0 and 65535; there are no metrics over HTTP"
        );
    };
    match MetricsServer::bind(port, page, metrics).await {
        Ok(server) => {
            if let Ok(address) = server.local_addr() {
                info!("Metrics at http://localhost:{}/metrics", address.port());
            }
            tokio::spawn(server.run(stop));
        }
        Err(error) => error!("Error starting Jetty. JSON Metrics may not be available. Port {port}: {error}"),
    }
}
