//! Progress bars: on a terminal and for more than a moment's work.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar for so many bytes, or a wheel when their number is not known. It stands on standard error.
pub fn bar(size: Option<u64>, prefix: String) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(size, target);
    let template = match size {
        Some(_) => "{prefix} {wide_bar} {bytes}/{total_bytes} {msg} {eta}",
        None => "{prefix} {spinner} {bytes} {msg}",
    };
    // The templates are right, and the default serves as well.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(prefix);
    bar
}
