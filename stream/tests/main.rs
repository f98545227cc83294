//! Scenarios: jobs as processes, as users run them, with the real systems around them.

mod access_log;
mod job_file;
mod state;
mod support;
mod windows;
mod word_count;
