//! `flume-rs-stream generate`.

use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::progress;
use crate::generate::{AccessLog, Generator, Maker, Orders, Output, Pace, Rate, Reviews, Site, Target, Words};

#[derive(Debug, Args)]
pub struct Generate {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Lines of a web server's access log
    AccessLog {
        /// Whose log it is
        #[arg(long, value_enum, default_value = "shop")]
        kind: Site,
        /// With the visitor's user agent as a sixth field
        #[arg(long)]
        user_agents: bool,
        #[command(flatten)]
        how: How,
    },
    /// Orders of a stock exchange, as CSV
    Orders {
        #[command(flatten)]
        how: How,
    },
    /// Reviews of products, as JSON lines
    Reviews {
        /// Only the text of each review
        #[arg(long)]
        text: bool,
        #[command(flatten)]
        how: How,
    },
    /// Lines of words, served as by `nc -lk 9999` unless `-o` says otherwise
    Socket {
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Args)]
struct How {
    /// Lines a second, as 1000 or 0.25; or `max`
    #[arg(long, default_value = "100")]
    rate: Rate,
    /// The same lines every time; their times then begin at a fixed moment
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End after so many lines
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// A file, to which lines are added; tcp://HOST:PORT connects; tcp-listen://HOST:PORT serves one client after the
    /// other; - is the standard output, which is the default of all but `socket`
    #[arg(short, long, value_name = "WHERE")]
    output: Option<Target>,
}

impl Generate {
    pub async fn run(self) -> ExitCode {
        let (maker, how, usual): (Box<dyn Maker>, _, _) = match self.what {
            What::AccessLog { kind, user_agents, how } => {
                (Box::new(AccessLog::new(kind, user_agents)), how, Target::Standard)
            }
            What::Orders { how } => (Box::new(Orders::default()), how, Target::Standard),
            What::Reviews { text, how } => (Box::new(Reviews { text_only: text }), how, Target::Standard),
            What::Socket { how } => (Box::new(Words), how, Target::Listen("localhost:9999".to_owned())),
        };
        let target = how.output.clone().unwrap_or(usual);
        match how.work(maker, &target).await {
            Ok(()) => ExitCode::SUCCESS,
            // Who reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                super::complain(format_args!("{target}: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}

impl How {
    async fn work(&self, maker: Box<dyn Maker>, target: &Target) -> io::Result<()> {
        let mut generator = Generator::new(maker, self.seed, self.rate);
        let mut output = Output::open(target).await?;
        output.ready().await?;
        let bar = progress::lines(self.count, target);
        let mut pace = Pace::new(self.rate);
        let (mut left, mut lines) = (self.count.unwrap_or(u64::MAX), Vec::new());
        while left > 0 {
            let due = pace.due().await.min(left);
            lines.clear();
            generator.push(due, &mut lines);
            output.write(&lines).await?;
            left -= due;
            bar.inc(due);
        }
        bar.finish();
        output.close().await
    }
}
