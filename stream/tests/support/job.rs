//! A job as a process, and a server of lines.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tempfile::TempDir;

use super::{directory, eventually, interop, peer};

const PROGRAM: &str = env!("CARGO_BIN_EXE_flume-rs-stream");

/// A job that runs. It is killed when it is dropped.
pub struct TestJob {
    child: Child,
    out: Arc<Mutex<String>>,
    log: Arc<Mutex<String>>,
    home: Arc<TempDir>,
}

fn follow(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let to = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut text = to.lock().unwrap_or_else(PoisonError::into_inner);
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

fn read(text: &Mutex<String>) -> String {
    text.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl TestJob {
    /// Starts a job of this text in a folder of its own.
    pub fn start(text: &str) -> Self {
        Self::start_in(Arc::new(directory()), text, &[])
    }

    /// The same, with further arguments.
    pub fn start_with(text: &str, arguments: &[&str]) -> Self {
        Self::start_in(Arc::new(directory()), text, arguments)
    }

    /// Starts a job in a folder that may hold a checkpoint.
    pub fn start_in(home: Arc<TempDir>, text: &str, arguments: &[&str]) -> Self {
        let path = home.path().join("job.toml");
        fs::write(&path, text).expect("the folder can be written to");
        Self::launch_in(home, &[&["run", &path.display().to_string()], arguments].concat())
    }

    /// Starts any command.
    pub fn launch(arguments: &[&str]) -> Self {
        Self::launch_in(Arc::new(directory()), arguments)
    }

    /// Starts any command in a folder, which is its folder for temporary files, too.
    fn launch_in(home: Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut command = Self::program(arguments);
        command.current_dir(home.path()).env("TMPDIR", home.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let out = follow(child.stdout.take().expect("it is piped"));
        let log = follow(child.stderr.take().expect("it is piped"));
        Self { child, out, log, home }
    }

    /// Kills it as `kill -9` does and starts it again in the same folder.
    pub fn kill_and_restart(mut self, text: &str) -> Self {
        let home = Arc::clone(&self.home);
        self.kill();
        Self::start_in(home, text, &[])
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        let _gone = self.child.wait();
    }

    /// Its folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What it has printed.
    pub fn out(&self) -> String {
        read(&self.out)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Waits until what it has printed holds this.
    pub fn wait_for_out(&self, part: &str) {
        let found = eventually(|| self.out().contains(part).then_some(()));
        assert!(found.is_some(), "{part:?} was not printed:\n{}\nlog:\n{}", self.out(), self.log());
    }

    /// Waits until everything that was written before is committed: until two more batches are printed.
    pub fn wait_for_commit(&self) {
        let batches = || self.out().matches("Time: ").count();
        let before = batches();
        assert!(eventually(|| (batches() > before + 1).then_some(())).is_some(), "no batch:\n{}", self.log());
    }

    /// Waits until the log has a line with this, and gives what stands behind it.
    pub fn wait_for_log(&self, part: &str) -> String {
        let found = eventually(|| {
            let log = self.log();
            let line = log.lines().find_map(|line| line.split_once(part))?;
            Some(line.1.to_owned())
        });
        found.unwrap_or_else(|| panic!("{part:?} was not logged:\n{}", self.log()))
    }

    /// Rows of its embedded database, the values as text; nothing when the SQL fails, as before the table is there.
    pub fn query(&self, checkpoint: &str, sql: &str) -> Option<Vec<Vec<String>>> {
        query(&self.home.path().join(checkpoint).join("job.db"), sql)
    }

    /// Waits until a query of the embedded database gives these rows, in any order.
    pub fn wait_for_rows(&self, checkpoint: &str, sql: &str, expected: &[&[&str]]) {
        let mut expected: Vec<Vec<String>> =
            expected.iter().map(|row| row.iter().map(|value| (*value).to_owned()).collect()).collect();
        expected.sort();
        let sorted = || {
            let mut rows = self.query(checkpoint, sql)?;
            rows.sort();
            Some(rows)
        };
        let found = eventually(|| sorted().filter(|rows| *rows == expected));
        assert!(found.is_some(), "{sql}: {:?}, not {expected:?}\nlog:\n{}", sorted(), self.log());
    }

    /// Waits until the table of [`with_totals`](super::with_totals) has exactly these counts.
    pub fn wait_for_totals(&self, checkpoint: &str, words: &BTreeMap<String, usize>) {
        let rows: Vec<[String; 2]> = words.iter().map(|(word, count)| [word.clone(), count.to_string()]).collect();
        let rows: Vec<[&str; 2]> = rows.iter().map(|[word, count]| [word.as_str(), count.as_str()]).collect();
        let rows: Vec<&[&str]> = rows.iter().map(<[&str; 2]>::as_slice).collect();
        self.wait_for_rows(checkpoint, "select word, n from totals", &rows);
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = eventually(|| self.child.try_wait().ok().flatten());
        ended.unwrap_or_else(|| panic!("it does not end:\n{}\nlog:\n{}", self.out(), self.log()))
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("it has one");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// The program with any command.
    pub fn program(arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the program until it ends: any command.
    pub fn command(arguments: &[&str]) -> Output {
        Self::program(arguments).output().expect("the program starts")
    }
}

impl Drop for TestJob {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
        }
    }
}

/// An example's job with other words in some places, each of which it must have.
pub fn example(name: &str, changes: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/stream").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} has no {from:?}");
        text.replace(from, to)
    })
}

/// An example in Rust.
pub fn example_program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("tests know their program");
    let program = tests.ancestors().nth(2).map(|folder| folder.join("examples").join(name));
    program.filter(|program| program.is_file()).expect("it is built: `cargo build --examples`")
}

/// A database of addresses and countries; nothing when it cannot be had.
pub fn country_data() -> Option<String> {
    if !peer("npm") {
        return None;
    }
    let found = Command::new(interop("country-data.sh")).output().expect("the script starts");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    Some(String::from_utf8_lossy(&found.stdout).trim().to_owned())
}

/// Rows of a SQLite database, the values as text.
pub fn query(database: &Path, sql: &str) -> Option<Vec<Vec<String>>> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(PathBuf::from(database), flags).ok()?;
    let mut select = database.prepare(sql).ok()?;
    let columns = select.column_count();
    let rows = select.query_map([], |row| {
        (0..columns)
            .map(|column| {
                Ok(match row.get_ref(column)? {
                    rusqlite::types::ValueRef::Null => "null".to_owned(),
                    rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                    rusqlite::types::ValueRef::Real(number) => number.to_string(),
                    rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    rusqlite::types::ValueRef::Blob(bytes) => format!("{bytes:?}"),
                })
            })
            .collect()
    });
    rows.ok()?.collect::<Result<_, _>>().ok()
}

/// A server that sends lines, as `nc -lk` does.
pub struct Server {
    listener: TcpListener,
    client: Option<TcpStream>,
}

impl Server {
    /// A server on a free port.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        Self { listener, client: None }
    }

    /// Where it listens: `host:port`.
    pub fn address(&self) -> String {
        self.listener.local_addr().expect("it is bound").to_string()
    }

    /// Waits for a client, and forgets the one before.
    pub fn accept(&mut self) {
        self.client = None;
        self.client = Some(self.listener.accept().expect("a client comes").0);
    }

    /// Sends text to the client.
    pub fn send(&mut self, text: &str) {
        let client = self.client.as_mut().expect("there is a client");
        client.write_all(text.as_bytes()).expect("it listens");
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.client = None;
    }
}
