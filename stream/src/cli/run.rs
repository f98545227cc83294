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
    /// Where the page is, instead of the job file's; with port 0 the system chooses one, and the log says which
    #[arg(long, value_name = "HOST:PORT")]
    ui: Option<String>,
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
        job.ui = self.ui.or(job.ui);
        let engine = Engine::new(job, self.once).await?;
        // The first signal lets the batch in hand come to its end, the second does not.
        let (stop, now) = (CancellationToken::new(), CancellationToken::new());
        stop_on_signals(&stop, now.clone());
        tokio::spawn(async move {
            now.cancelled().await;
            std::process::exit(1);
        });
        engine.run(&stop).await
    }
}

/// The first signal stops; the second means now.
pub fn stop_on_signals(stop: &CancellationToken, now: CancellationToken) {
    let stop = stop.clone();
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
            return;
        };
        for token in [stop, now] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            token.cancel();
        }
    });
}
