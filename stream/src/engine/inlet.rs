//! A source at work. One that fails is opened anew, and the others go on meanwhile.

use std::panic::resume_unwind;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::wait::Wait;
use crate::source::{Cut, Position, Source, SourceError};

/// A source of the job.
pub struct Inlet {
    /// None while it is opened anew.
    tried: Option<Tried>,
    opening: Option<AbortOnDropHandle<Tried>>,
}

/// A source, and how it goes with it.
struct Tried {
    /// For the log.
    who: String,
    source: Box<dyn Source>,
    wait: Wait,
}

impl Tried {
    fn complain(&mut self, why: &SourceError) {
        self.wait.complain(&format!("{}: {why}", self.who));
    }

    /// Opens the source, and tries until it works. Nothing when the job is stopped meanwhile.
    async fn open(&mut self, from: Option<&Position>, stop: &CancellationToken) -> Option<()> {
        while let Err(why) = stop.run_until_cancelled(self.source.open(from)).await? {
            self.complain(&why);
            self.wait.pause(stop).await?;
        }
        Some(())
    }
}

impl Inlet {
    /// A source that is not open yet.
    pub fn new(name: &str, source: Box<dyn Source>) -> Self {
        let tried = Tried { who: format!("source {name}"), source, wait: Wait::default() };
        Self { tried: Some(tried), opening: None }
    }

    /// Opens it, and tries until it works. Nothing when the job is stopped meanwhile.
    pub async fn open(&mut self, from: Option<&Position>, stop: &CancellationToken) -> Option<()> {
        self.opened().await.open(from, stop).await
    }

    /// Waits until a cut may give something. May be given up at any time.
    pub async fn ready(&mut self) {
        self.opened().await.source.ready().await;
    }

    /// What it has. One that is not open has nothing for now; one that fails is opened where the last batch ended.
    pub async fn cut(&mut self, max_records: usize, from: Option<&Position>, stop: &CancellationToken) -> Cut {
        let Some(tried) = self.opened().now_or_never() else { return Cut::default() };
        match tried.source.cut(max_records).await {
            Ok(cut) => {
                tried.wait.over(&tried.who);
                cut
            }
            Err(why) => {
                tried.complain(&why);
                self.open_anew(from.cloned(), stop.clone());
                Cut::default()
            }
        }
    }

    /// The records between two positions; tries until it works. Nothing when the job is stopped meanwhile.
    pub async fn again(&mut self, from: Option<&Position>, to: &Position, stop: &CancellationToken) -> Option<Cut> {
        let tried = self.opened().await;
        loop {
            match stop.run_until_cancelled(tried.source.again(from, to)).await? {
                Ok(cut) => return Some(cut),
                Err(why) => tried.complain(&why),
            }
            tried.wait.pause(stop).await?;
            tried.open(from, stop).await?;
        }
    }

    /// All that was cut is committed.
    pub async fn done(&mut self, position: Option<&Position>) {
        if let Some(tried) = &mut self.tried
            && let Err(why) = tried.source.done(position).await
        {
            warn!("{}: {why}", tried.who);
        }
    }

    /// Whether nothing will come any more.
    pub fn is_exhausted(&self) -> bool {
        self.tried.as_ref().is_some_and(|tried| tried.source.is_exhausted())
    }

    /// Rests until the task is over, which is to be stopped if it is opened anew.
    pub async fn close(&mut self) {
        self.opened().await.source.close().await;
    }

    fn open_anew(&mut self, from: Option<Position>, stop: CancellationToken) {
        let Some(mut tried) = self.tried.take() else { return };
        self.opening = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            if tried.wait.pause(&stop).await.is_some() {
                tried.open(from.as_ref(), &stop).await;
            }
            tried
        })));
    }

    /// The source once it is not opened anew any more. May be given up at any time.
    async fn opened(&mut self) -> &mut Tried {
        if let Some(opening) = &mut self.opening {
            self.tried = Some(opening.await.unwrap_or_else(|error| resume_unwind(error.into_panic())));
            self.opening = None;
        }
        self.tried.as_mut().expect("it is here unless it is opened anew")
    }
}
