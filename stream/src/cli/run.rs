//! `flume-rs-stream run`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError};
use crate::job::Job;

#[derive(Debug, Args)]
pub struct Run {
    /// The job file
    job: PathBuf,
    /// Work on everything that is there, and end
    #[arg(long)]
    once: bool,
    /// The folder that keeps the state, instead of the job file's
    #[arg(long, value_name = "FOLDER")]
    checkpoint: Option<PathBuf>,
}

impl Run {
    pub async fn run(self) -> ExitCode {
        match self.work().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    async fn work(self) -> Result<(), EngineError> {
        let mut job = Job::read(&self.job).map_err(EngineError::Job)?;
        if let Some(folder) = self.checkpoint {
            job.checkpoint = Some(folder);
        }
        let engine = Engine::new(job, self.once).await?;
        let stop = CancellationToken::new();
        stop_on_signals(&stop);
        engine.run(&stop).await
    }
}

/// The first signal lets the batch in hand come to its end, the second does not.
fn stop_on_signals(stop: &CancellationToken) {
    let stop = stop.clone();
    // Not in the task, which may begin after the job has.
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return;
    };
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(1);
            }
            stop.cancel();
        }
    });
}
