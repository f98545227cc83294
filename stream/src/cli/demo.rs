//! `flume-rs-stream demo`.

use std::io;
use std::process::ExitCode;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::run::stop_on_signals;
use crate::demo::{Demo, DemoError, Way};
use crate::engine::EngineError;
use crate::generate::Rate;

/// Where the page is when nothing else is said and nobody else is there.
const PAGE: &str = "127.0.0.1:4040";
const ANY_PAGE: &str = "127.0.0.1:0";

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Lines a second that are made up
    #[arg(long, default_value = "200")]
    rate: Rate,
    /// Where the page is; 127.0.0.1:4040 unless that is taken
    #[arg(long, value_name = "HOST:PORT", value_parser = super::address)]
    ui: Option<String>,
    /// Go through a topic of this Kafka, instead of straight from the agent to the job
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// The topic
    #[arg(long, requires = "kafka", default_value = "streamingtopic")]
    topic: String,
}

impl DemoArgs {
    pub async fn run(self) -> ExitCode {
        super::outcome(self.work().await)
    }

    async fn prepare(&self) -> Result<Demo, DemoError> {
        let way = match &self.kafka {
            Some(servers) => Way::Kafka { servers: servers.clone(), topic: self.topic.clone() },
            None => Way::Direct,
        };
        let page = self.ui.as_deref().unwrap_or(PAGE);
        match Demo::new(&way, self.rate, page.to_owned()).await {
            Err(DemoError::Job(EngineError::Page(_, error)))
                if self.ui.is_none() && error.kind() == io::ErrorKind::AddrInUse =>
            {
                Demo::new(&way, self.rate, ANY_PAGE.to_owned()).await
            }
            prepared => prepared,
        }
    }

    async fn work(self) -> Result<(), DemoError> {
        let (stop, now) = (CancellationToken::new(), CancellationToken::new());
        stop_on_signals(&stop, now.clone());
        let demo = self.prepare().await?;
        let over = self.kafka.as_ref().map(|kafka| format!(" -> {} of {kafka}", self.topic)).unwrap_or_default();
        let page = demo.page().unwrap_or_default();
        super::say(
            format!(
                "access log in {} -> agent{over} -> job -> page\n{page} shows what is counted; Ctrl-C ends\n",
                demo.folder().display()
            )
            .as_bytes(),
        );
        demo.run(&stop, &now).await
    }
}
