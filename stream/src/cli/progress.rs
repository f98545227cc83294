//! A progress line, on a terminal.

use std::fmt;
use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::generate::Target;

/// A line that counts lines; a bar when their number is known. It stands on standard error, unless lines are shown
/// there anyway.
pub fn lines(count: Option<u64>, target: &Target) -> ProgressBar {
    let shown = io::stderr().is_terminal() && !(*target == Target::Standard && io::stdout().is_terminal());
    let draw = if shown { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(count, draw);
    let template = match count {
        Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {rate} {eta}",
        None => "{msg} {spinner} {human_pos} lines {rate}",
    };
    // The templates are right, and the default serves as well.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
        // It writes to memory.
        write!(to, "{:.0}/s", state.per_sec()).ok();
    }));
    bar.with_message(target.to_string())
}
