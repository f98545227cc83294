//! What a `flume-ng` command line has for Java: `-Dkey=value`, `-X…` and agents, anywhere on it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use crate::config::Globals;

/// Options for Java.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JavaArgs {
    /// System properties, by `-Dkey=value`.
    pub system: BTreeMap<String, String>,
    /// The heap of `-Xmx`, in bytes.
    pub heap: Option<u64>,
    /// Options that have no effect without a Java.
    pub ignored: Vec<String>,
}

/// Long options that Flume's parser also takes with a single dash.
const LONG: [&str; 28] = [
    "name",
    "conf",
    "conf-file",
    "conf-uri",
    "user",
    "conf-user",
    "pwd",
    "conf-password",
    "auth-provider",
    "prov",
    "conf-provider",
    "poll-interval",
    "backup-directory",
    "no-reload-conf",
    "zkConnString",
    "zkBasePath",
    "help",
    "classpath",
    "dryrun",
    "plugins-path",
    "strict",
    "format",
    "rpcProps",
    "host",
    "port",
    "filename",
    "dirname",
    "headerFile",
];

/// Takes the options for Java out of a command line, and spells the others as they are spelt today.
pub fn split(args: impl IntoIterator<Item = OsString>) -> (JavaArgs, Vec<OsString>) {
    let mut java = JavaArgs::default();
    let mut rest = Vec::new();
    for arg in args {
        match arg.to_str() {
            Some(text) if !rest.is_empty() && java.take(text) => {}
            Some(text) => rest.push(respell(text).map_or(arg.clone(), OsString::from)),
            None => rest.push(arg),
        }
    }
    (java, rest)
}

fn respell(text: &str) -> Option<String> {
    let name = text.strip_prefix('-')?.split('=').next()?;
    LONG.contains(&name).then(|| format!("-{text}"))
}

impl JavaArgs {
    fn take(&mut self, text: &str) -> bool {
        if let Some(property) = text.strip_prefix("-D").filter(|property| !property.is_empty()) {
            let (key, value) = property.split_once('=').unwrap_or((property, ""));
            self.system.insert(key.to_owned(), value.to_owned());
        } else if let Some(heap) = text.strip_prefix("-Xmx") {
            self.heap = bytes(heap);
            self.ignored.push(text.to_owned());
        } else if ["-X", "-agentlib:", "-agentpath:", "-javaagent:", "--add-opens="].iter().any(|p| text.starts_with(p))
        {
            self.ignored.push(text.to_owned());
        } else {
            return false;
        }
        true
    }

    /// The heap that Java would have, from which Flume derives the default `byteCapacity`: `-Xmx`, or else Java's own
    /// rule, a quarter of the memory.
    fn heap_bytes(&self) -> u64 {
        self.heap.unwrap_or_else(|| memory_bytes() / 4)
    }

    /// What holds for all components.
    pub fn globals(&self) -> Globals {
        Globals { heap_bytes: self.heap_bytes(), system: self.system.clone() }
    }
}

/// Java's sizes: `512m`, `4g`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The machine's memory, or the control group's if that is less.
fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
    });
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    let machine = machine.unwrap_or(1 << 30);
    group.map_or(machine, |group| group.min(machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_and_after_the_command() {
        let line = "flume-rs -Da.b=1=2 agent -n a1 -Xmx2g -conf-file x -agentlib:jdwp -Dempty";
        let (java, rest) = split(line.split(' ').map(OsString::from));
        assert_eq!(java.system["a.b"], "1=2");
        assert_eq!(java.system["empty"], "");
        assert_eq!(java.globals().heap_bytes, 2 << 30);
        assert_eq!(java.ignored, ["-Xmx2g", "-agentlib:jdwp"]);
        assert_eq!(rest, ["flume-rs", "agent", "-n", "a1", "--conf-file", "x"].map(OsString::from));
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("20m"), Some(20 << 20));
        assert_eq!(bytes("1024"), Some(1024));
        assert_eq!(bytes("x"), None);
        assert_eq!(bytes("99999999999g"), None);
    }
}
