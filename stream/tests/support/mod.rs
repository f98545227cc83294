//! What all scenarios share: jobs as processes. Agents, brokers and waiting are those of the agent's scenarios.

#[path = "../../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "it serves the agent's scenarios, too")]
mod agents;
mod browser;
mod job;
mod servers;
mod sinks;
mod words;

pub use agents::*;
pub use browser::Browser;
pub use job::{Server, TestJob, country_data, example, example_program, query};
pub use servers::RealServer;
pub use sinks::{batch, sink, write_new};
pub use words::{agent_example, example_folder, feed, sentences, with_totals};
