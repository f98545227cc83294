//! Real databases, which the kit's scripts start.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::{directory, eventually, free_port, interop, peer};

/// A server with its data in a folder of its own. It ends when it is dropped.
pub struct RealServer {
    script: &'static str,
    environment: Vec<(&'static str, String)>,
    home: TempDir,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl RealServer {
    fn new(script: &'static str, port: &'static str) -> Self {
        let number = free_port();
        Self { script, environment: vec![(port, number.to_string())], home: directory(), port: number }
    }

    /// MariaDB, with the database `flume` and the user `flume`, password `flume`; nothing when it cannot be had.
    pub fn mariadb() -> Option<Self> {
        peer("mariadbd").then(|| Self::new("mariadb.sh", "MARIADB_PORT").started())
    }

    /// PostgreSQL, with the database `flume` and the user `flume`.
    pub fn postgres() -> Option<Self> {
        peer("psql").then(|| Self::new("postgres.sh", "POSTGRES_PORT").started())
    }

    /// Redis, which does not run yet.
    pub fn redis() -> Option<Self> {
        peer("redis-server").then(|| Self::new("redis.sh", "REDIS_PORT"))
    }

    /// HBase with its REST gateway.
    pub fn hbase() -> Self {
        let mut server = Self::new("hbase.sh", "HBASE_REST_PORT");
        for port in ["HBASE_ZK_PORT", "HBASE_MASTER_PORT", "HBASE_RS_PORT"] {
            server.environment.push((port, free_port().to_string()));
        }
        server.environment.push(("HBASE_GATEWAYS", "rest".to_owned()));
        server.started()
    }

    fn started(self) -> Self {
        self.start();
        self
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(interop(Path::new("servers").join(self.script).to_str().expect("it is text")));
        command.args(arguments).env("SERVER_DIR", self.home.path()).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).output().expect("the script starts")
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {text}{log}", self.script);
        text
    }

    /// Starts it and waits until it can be used.
    pub fn start(&self) {
        self.run(&["start"]);
    }

    /// Ends it and keeps its data.
    pub fn stop(&self) {
        self.run(&["stop"]);
    }

    /// The script's own command.
    pub fn command(&self, arguments: &[&str]) -> String {
        self.run(arguments)
    }

    /// The same; nothing when it fails.
    pub fn try_command(&self, arguments: &[&str]) -> Option<String> {
        let output = self.output(arguments);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The rows of a database's answer: values parted by tabs, each row on a line.
    pub fn sql(&self, sql: &str) -> String {
        self.run(&self.query(sql))
    }

    fn query<'a>(&self, sql: &'a str) -> [&'a str; 5] {
        match self.script {
            "mariadb.sh" => ["sql", "-N", "-B", "-e", sql],
            // Besides the rows it may say what it has done, which nobody wants to know.
            _ => ["sql", "-qAt", "-F\t", "-c", sql],
        }
    }

    /// Waits until a query has this answer.
    pub fn wait_for_rows(&self, sql: &str, expected: &str, log: impl Fn() -> String) {
        let ask = || String::from_utf8_lossy(&self.output(&self.query(sql)).stdout).into_owned();
        let found = eventually(|| (ask() == expected).then_some(()));
        assert!(found.is_some(), "{sql}: {:?}, not {expected:?}\nlog:\n{}", ask(), log());
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        self.output(&["stop"]);
    }
}
