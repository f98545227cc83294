//! Who uses a channel: the process that holds its lock, and the agent that this is, by its command line.

use std::fmt;

use crate::channel::file::Holder;

/// The process that uses a channel.
pub struct User {
    /// Its number, when it can be seen.
    pub process: Option<i32>,
    /// The agent that it runs, when it is one and lets itself be looked at.
    pub agent: Option<String>,
}

impl User {
    /// Whoever holds the lock.
    pub fn new(holder: Holder) -> Self {
        let process = match holder {
            Holder::Process(process) => Some(process),
            Holder::Unseen => None,
        };
        Self { process, agent: process.and_then(agent_of) }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.agent, self.process) {
            (Some(agent), Some(process)) => write!(f, "agent {agent}, process {process}"),
            (_, Some(process)) => write!(f, "process {process}"),
            _ => f.write_str("a process that cannot be seen from here"),
        }
    }
}

fn agent_of(process: i32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    name_in(&words.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// What follows `--name` on an agent's command line, of this program or of Flume.
fn name_in(words: &[&str]) -> Option<String> {
    words.iter().find(|word| matches!(**word, "agent" | "node") || word.ends_with(".node.Application"))?;
    words.iter().enumerate().find_map(|(at, word)| {
        let value = match word.split_once('=') {
            Some(("-n" | "-name" | "--name", value)) => value,
            None if matches!(*word, "-n" | "-name" | "--name") => words.get(at + 1)?,
            _ => return None,
        };
        Some(value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_name_is_on_its_command_line() {
        let name = |line: &str| name_in(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(name("flume-rs agent -f x --name a1 -Dk=v").as_deref(), Some("a1"));
        assert_eq!(name("java -cp y org.apache.flume.node.Application -n a2 -f x").as_deref(), Some("a2"));
        assert_eq!(name("flume-rs agent --name=a3").as_deref(), Some("a3"));
        assert_eq!(name("flume-rs agent"), None);
        assert_eq!(name("flume-rs channel repair -n a1 --channel c1"), None);
    }
}
