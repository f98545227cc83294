//! `channel export`: the events of a channel, without any loss, in a form that other programs read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde::Serialize;

use super::{CommandError, JavaArgs, PlaceArgs, counted, damage_line, progress};
use crate::channel::file::{Image, Piece};
use crate::event::{Batch, EventRef};
use crate::serializer::{EventSerializer, avro_container};

/// So many bytes of bodies, and events, are written at once.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_EVENTS: usize = 10_000;

/// Options of `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// An avro container with Flume's schema of events, or JSON lines with "headers" and either "body", a text, or
    /// "base64", for a body that is none
    #[arg(long, value_enum, default_value_t = Format::Avro)]
    format: Format,
    /// The file to write, which must not exist; - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Events that were delivered and are still there, too
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Avro,
    Json,
}

/// Exports. The exit status is 1 when there was damage, and not all events could be read.
pub fn run(args: &ExportArgs, java: &JavaArgs) -> Result<ExitCode, CommandError> {
    let mut place = args.place.find(java)?;
    let image = place.read()?;
    if !place.has_checkpoint {
        eprintln!("flume-rs: no checkpoint was found; what the segments say is taken as it is");
    }
    let serializer = match args.format {
        Format::Avro => avro_container(),
        Format::Json => Box::new(JsonLines),
    };
    if args.output != Path::new("-") {
        return to_file(args, &image, serializer);
    }
    let out = io::stdout().lock();
    if args.format == Format::Avro && out.is_terminal() {
        let advice = "an avro container is not for a terminal: expected --output FILE, or --format json";
        return Err(CommandError::Said(advice.to_owned()));
    }
    Export { image: &image, all: args.all, serializer, out, path: Path::new("standard output"), exported: 0 }.run()
}

/// Writes a file that is there only when it is whole.
fn to_file(args: &ExportArgs, image: &Image, serializer: Box<dyn EventSerializer>) -> Result<ExitCode, CommandError> {
    let path = &args.output;
    if path.exists() {
        return Err(CommandError::Said(format!("{} exists already; nothing was written", path.display())));
    }
    let mut part: OsString = path.clone().into();
    part.push(".part");
    let part = PathBuf::from(part);
    let out = File::create(&part).map_err(CommandError::file(&part))?;
    let outcome = Export { image, all: args.all, serializer, out: &out, path: &part, exported: 0 }.run();
    if outcome.is_err() {
        // The first error is the one to hear of.
        fs::remove_file(&part).ok();
        return outcome;
    }
    out.sync_all().and_then(|()| fs::rename(&part, path)).map_err(CommandError::file(path))?;
    outcome
}

struct Export<'a, W> {
    image: &'a Image,
    all: bool,
    serializer: Box<dyn EventSerializer>,
    out: W,
    path: &'a Path,
    exported: u64,
}

impl<W: Write> Export<'_, W> {
    fn run(mut self) -> Result<ExitCode, CommandError> {
        let bar = progress::bar(Some(self.image.walk(self.all).total()), "exporting".to_owned());
        let outcome = self.write_all(&bar);
        bar.finish_and_clear();
        let damaged = match outcome {
            // A reader that has seen enough is no failure.
            Err(CommandError::File { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            outcome => outcome?,
        };
        eprintln!("{} exported", counted(self.exported, "event"));
        Ok(if damaged { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Writes everything; returns whether there was damage.
    fn write_all(&mut self, bar: &ProgressBar) -> Result<bool, CommandError> {
        let mut damaged = !self.image.missing().is_empty();
        for missing in self.image.missing() {
            bar.suspend(|| eprintln!("{}: missing", missing.path.display()));
        }
        let mut bytes = Vec::new();
        self.serializer.begin(&mut bytes)?;
        let mut batch = Batch::new();
        let mut walk = self.image.walk(self.all);
        while let Some((piece, read)) = walk.next()? {
            bar.inc(read);
            match piece {
                Piece::Put { batch: found, .. } if self.all => batch.append(found),
                Piece::Put { first, batch: found } => batch.append(self.image.undelivered(first, found)),
                Piece::Done => {}
                Piece::Damage(damage) => {
                    damaged |= !damage.torn;
                    bar.suspend(|| eprint!("{}", damage_line(&damage)));
                }
            }
            if batch.len() >= BATCH_EVENTS || batch.body_bytes() >= BATCH_BYTES {
                self.write(std::mem::take(&mut batch), &mut bytes)?;
            }
        }
        self.write(batch, &mut bytes)?;
        self.out.flush().map_err(CommandError::file(self.path))?;
        Ok(damaged)
    }

    fn write(&mut self, batch: Batch, bytes: &mut Vec<u8>) -> Result<(), CommandError> {
        self.serializer.write(&batch, bytes)?;
        self.out.write_all(bytes).map_err(CommandError::file(self.path))?;
        bytes.clear();
        self.exported += batch.len() as u64;
        Ok(())
    }
}

/// One event a line.
struct JsonLines;

#[derive(Serialize)]
struct Line<'a> {
    headers: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Body<'a> {
    Body(&'a str),
    Base64(String),
}

impl<'a> From<EventRef<'a>> for Line<'a> {
    fn from(event: EventRef<'a>) -> Self {
        let body = match std::str::from_utf8(event.body()) {
            Ok(text) => Body::Body(text),
            Err(_) => Body::Base64(BASE64_STANDARD.encode(event.body())),
        };
        Self { headers: event.headers().iter().collect(), body }
    }
}

impl EventSerializer for JsonLines {
    fn write(&mut self, batch: &Batch, out: &mut Vec<u8>) -> io::Result<()> {
        for event in batch.iter() {
            serde_json::to_writer(&mut *out, &Line::from(event))?;
            out.push(b'\n');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn a_body_that_is_no_text_is_told_from_one_that_is() {
        let batch = Batch::from_iter([Event::new("a\n\"ü").with("k", "v"), Event::new(vec![0xFF, 0]), Event::new("")]);
        let mut out = Vec::new();
        JsonLines.write(&batch, &mut out).expect("memory");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "{\"headers\":{\"k\":\"v\"},\"body\":\"a\\n\\\"ü\"}\n{\"headers\":{},\"base64\":\"/wA=\"}\n{\"headers\":{},\"body\":\"\"}\n"
        );
    }
}
