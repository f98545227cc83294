//! Scenarios: jobs as processes, as users run them, with the real systems around them.

mod access_log;
mod demo;
mod generate;
mod job_file;
mod kafka;
mod page;
mod state;
mod support;
mod windows;
mod word_count;
