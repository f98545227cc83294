//! `flume-rs-stream run`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::engine::{Engine, EngineError};
use crate::job::Job;
use crate::spark;

/// What runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// This process
    Embedded,
    /// A Spark that is there already
    Spark,
}

#[derive(Debug, Args)]
struct SparkArgs {
    /// Which Spark: `local[*]`, which is the default, `spark://HOST:7077`, `yarn`
    #[arg(long, value_name = "URL")]
    master: Option<String>,
    /// The program that submits jobs [default: spark-submit of SPARK_HOME or of the path]
    #[arg(long, value_name = "PROGRAM")]
    spark_submit: Option<PathBuf>,
    /// A further argument for it, as --spark-arg=--packages=GROUP:ARTIFACT:VERSION
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    spark_arg: Vec<String>,
}

impl SparkArgs {
    /// The first of them that was given.
    fn given(&self) -> Option<&'static str> {
        let given = [
            ("--master", self.master.is_some()),
            ("--spark-submit", self.spark_submit.is_some()),
            ("--spark-arg", !self.spark_arg.is_empty()),
        ];
        given.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }
}

#[derive(Debug, Args)]
pub struct Run {
    /// The job file
    job: PathBuf,
    /// Work on everything that is there, and end
    #[arg(long)]
    once: bool,
    /// What runs the job
    #[arg(long, value_enum, default_value = "embedded")]
    engine: EngineKind,
    #[command(flatten)]
    spark: SparkArgs,
    /// The folder that keeps the state, instead of the job file's
    #[arg(long, value_name = "FOLDER")]
    checkpoint: Option<PathBuf>,
    /// Where the page is, instead of the job file's; with port 0 the system chooses one, and the log says which
    #[arg(long, value_name = "HOST:PORT", value_parser = super::address)]
    ui: Option<String>,
}

impl Run {
    pub async fn run(self) -> ExitCode {
        if self.engine == EngineKind::Embedded
            && let Some(name) = self.spark.given()
        {
            super::refuse(&format!("{name} is for Spark: add --engine spark"));
        }
        super::outcome(self.work().await)
    }

    async fn work(self) -> Result<(), EngineError> {
        let mut job = Job::read(&self.job).map_err(EngineError::Job)?;
        if let Some(folder) = self.checkpoint {
            job.checkpoint = Some(folder);
        }
        job.ui = self.ui.or(job.ui);
        // The first signal lets the batch in hand come to its end, the second does not.
        let (stop, now) = (CancellationToken::new(), CancellationToken::new());
        stop_on_signals(&stop, now.clone());
        tokio::spawn(async move {
            now.cancelled().await;
            std::process::exit(1);
        });
        match self.engine {
            EngineKind::Embedded => Engine::new(job, self.once).await?.run(&stop).await,
            EngineKind::Spark => {
                let plan = spark::plan(&job, self.once).await.map_err(EngineError::Job)?;
                plan.notes.iter().for_each(|note| warn!("{note}"));
                let SparkArgs { master, spark_submit, spark_arg } = self.spark;
                let master = master.unwrap_or_else(|| "local[*]".to_owned());
                let submit = spark_submit.unwrap_or_else(spark::default_submit);
                let options = spark::Options { master, submit, arguments: spark_arg };
                let status = spark::run(&plan, &options, &stop).await.map_err(EngineError::Spark)?;
                // A stop that was asked for is no failure.
                if status.success() || stop.is_cancelled() { Ok(()) } else { Err(EngineError::SparkEnded(status)) }
            }
        }
    }
}

/// The first signal stops; the second means now.
pub fn stop_on_signals(stop: &CancellationToken, now: CancellationToken) {
    let stop = stop.clone();
    // Not in the task, which may begin after the job has.
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return;
    };
    tokio::spawn(async move {
        for token in [stop, now] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            token.cancel();
        }
    });
}
