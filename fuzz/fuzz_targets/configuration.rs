//! Any bytes as a configuration: read, substituted, wired and resolved without a panic.
#![no_main]

use flume_rs::agent::resolve;
use flume_rs::config::{Globals, Lookups, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    // The one thing in a configuration that runs a program.
    if text.windows(8).any(|word| word == b"external") || text.windows(8).any(|word| word == b"External") {
        return;
    }
    let mut configuration = load(&[("fuzz".to_owned(), text.to_vec())], &Lookups::default());
    let globals = Globals { heap_bytes: 1 << 30, ..Globals::default() };
    for plan in configuration.agents.values() {
        resolve(plan, &globals, &mut configuration.findings);
    }
    for finding in &configuration.findings {
        finding.log_line();
    }
});
