//! The line layouts.

use std::fmt::{self, Write as _};
use std::thread;

use jiff::Zoned;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Which layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// log4j's `%d (%t) [%p - %l] %m%n`.
    Console,
    /// log4j's `%d{dd MMM yyyy HH:mm:ss,SSS} %-5p [%t] (%C.%M:%L) %x - %m%n`.
    File,
    /// One JSON object a line.
    Json,
}

/// Formats events for the log.
pub struct Layout(pub Line);

#[derive(Default)]
struct Parts {
    message: String,
    thread: Option<String>,
    others: String,
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "thread" {
            self.thread = Some(value.to_owned());
        } else {
            self.record_debug(field, &format_args!("{value}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        match field.name() {
            "message" => write!(self.message, "{value:?}").ok(),
            name => write!(self.others, " {name}={value:?}").ok(),
        };
    }
}

/// Class, method, file and line, as far as a target or module has them.
struct Place {
    /// As `%l`: `class.method(File:line)`.
    long: String,
    /// As `%C.%M:%L`.
    short: String,
}

impl Place {
    fn of(metadata: &Metadata<'_>) -> Self {
        // Targets that stand for a place in Flume are printed as they are.
        if let Some((method, rest)) = metadata.target().split_once('(') {
            let line = rest.trim_end_matches(')').rsplit(':').next().unwrap_or_default();
            return Self { long: metadata.target().to_owned(), short: format!("{method}:{line}") };
        }
        let module = metadata.module_path().unwrap_or(metadata.target()).replace("::", ".");
        let file = metadata.file().and_then(|file| file.rsplit('/').next()).unwrap_or("?");
        let line = metadata.line().unwrap_or(0);
        Self { long: format!("{module}({file}:{line})"), short: format!("{module}:{line}") }
    }
}

impl<S, N> FormatEvent<S, N> for Layout
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let Parts { mut message, thread, others } = parts;
        message.push_str(&others);
        let current = thread::current();
        let thread = thread.as_deref().or(current.name()).unwrap_or("main");
        let level = event.metadata().level();
        let now = Zoned::now();
        let place = Place::of(event.metadata());
        match self.0 {
            Line::Console => {
                writeln!(
                    writer,
                    "{},{:03} ({thread}) [{level} - {}] {message}",
                    now.strftime("%Y-%m-%d %H:%M:%S"),
                    now.millisecond(),
                    place.long
                )
            }
            Line::File => {
                let time = now.strftime("%d %b %Y %H:%M:%S");
                writeln!(writer, "{time},{:03} {level:<5} [{thread}] ({})  - {message}", now.millisecond(), place.short)
            }
            Line::Json => {
                let object = json!({
                    "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
                    "level": level.as_str(),
                    "thread": thread,
                    "logger": place.short,
                    "message": message,
                });
                writeln!(writer, "{object}")
            }
        }
    }
}
