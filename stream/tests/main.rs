//! Scenarios: jobs as processes, as users run them, with the real systems around them.

mod job_file;
mod kafka;
mod support;
mod word_count;
