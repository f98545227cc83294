//! What is delivered of files that are written, renamed, truncated and deleted.

use std::io::Write as _;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::positions;
use super::*;
use crate::fs::Disk;
use crate::java_regex::JavaRegex;
use crate::source::taildir::groups::GroupConfig;

/// A directory with files, and a source that reads them, without a clock and an agent.
struct Scene {
    home: TempDir,
    config: Arc<TaildirConfig>,
    files: Files,
    now: Instant,
}

fn config(directory: &Path, pattern: &str) -> TaildirConfig {
    TaildirConfig {
        groups: vec![GroupConfig {
            directory: directory.to_owned(),
            names: Arc::new(JavaRegex::new(pattern).expect("a pattern")),
            headers: Headers::from_iter([("group", "g1")]),
        }],
        position_file: PathBuf::new(),
        byte_offset_header: false,
        skip_to_end: false,
        idle_timeout: Duration::from_secs(120),
        write_pos_interval: Duration::ZERO,
        batch_size: 3,
        max_batch_count: u64::MAX,
        backoff_sleep_increment: Duration::ZERO,
        max_backoff_sleep: Duration::ZERO,
        cache_pattern_matching: false,
        file_header: None,
        multiline: None,
        multiline_timeout: Duration::from_secs(1),
        max_line_bytes: 1 << 20,
    }
}

impl Scene {
    fn new(pattern: &str) -> Self {
        Self::with(pattern, |_| {})
    }

    fn with(pattern: &str, change: impl Fn(&mut TaildirConfig)) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(home.path().join("d")).expect("a directory");
        let mut config = config(&home.path().join("d"), pattern);
        change(&mut config);
        let config = Arc::new(config);
        let mut files = Files::new(Arc::clone(&config)).expect("the directory is there");
        let now = Instant::now();
        files.begin(&[], now);
        Self { home, config, files, now }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("d").join(name)
    }

    fn position_file(&self) -> PathBuf {
        self.home.path().join("position.json")
    }

    fn append(&self, name: &str, text: &str) {
        let file = File::options().create(true).append(true).open(self.path(name));
        file.expect("a file").write_all(text.as_bytes()).expect("it can be written");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("it can be renamed");
    }

    /// Says that a file was changed so many seconds after 1970.
    fn date(&self, name: &str, seconds: u64) {
        let file = File::options().write(true).open(self.path(name)).expect("a file");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).expect("it can be dated");
    }

    fn truncate(&self, name: &str) {
        File::options().write(true).truncate(true).open(self.path(name)).expect("a file");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).expect("it can be removed");
    }

    fn read(&mut self) -> Vec<String> {
        self.files.scan(self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(portion) = self.files.next(self.now) {
            for (batch, end) in &portion.batches {
                assert!(batch.len() <= self.config.batch_size);
                events.extend(batch.iter().map(|event| String::from_utf8_lossy(event.body()).into_owned()));
                self.files.commit(&portion, *end, 1, self.now);
            }
        }
        events
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.files.tick(self.now);
        self.drain()
    }

    fn save(&mut self) {
        let positions = self.files.positions();
        positions::save(&Disk, &self.position_file(), &positions).expect("it can be written");
    }

    fn start(&mut self) {
        self.files = Files::new(Arc::clone(&self.config)).expect("the directory is there");
        self.files.begin(&positions::load(&Disk, &self.position_file()), self.now);
    }

    fn restart(&mut self) {
        self.save();
        self.start();
    }
}

#[test]
fn appended_lines_come_once_and_in_order() {
    let mut scene = Scene::new(r".*\.log");
    scene.append("a.log", "1\n2\r\n\n4\n5\ntail");
    scene.append("a.txt", "not this\n");
    assert_eq!(scene.read(), ["1", "2", "", "4", "5"]);
    assert_eq!(scene.read(), [""; 0]);
    scene.append("a.log", " ends\n6\n");
    scene.files.look([scene.path("a.log"), scene.path("gone.log")], scene.now);
    assert_eq!(scene.drain(), ["tail ends", "6"]);
}

#[test]
fn what_is_not_committed_comes_again() {
    let mut scene = Scene::new(".*");
    scene.append("a", "1\n2\n3\n4\n");
    scene.files.scan(scene.now);
    let portion = scene.files.next(scene.now).expect("something to read");
    assert_eq!(portion.batches.len(), 2);
    scene.files.commit(&portion, portion.batches[0].1, 1, scene.now);
    assert_eq!(scene.drain(), ["4"]);
}

#[test]
fn a_renamed_file_goes_on_whether_its_name_matches_or_not() {
    for pattern in [r"app\.log", r"app\.log.*"] {
        let mut scene = Scene::new(pattern);
        scene.append("app.log", "1\n");
        assert_eq!(scene.read(), ["1"]);
        scene.append("app.log", "2\n");
        scene.rename("app.log", "app.log.1");
        scene.append("app.log", "1\n");
        assert_eq!(scene.read(), ["2", "1"], "{pattern}");
        // The writer has not noticed yet.
        scene.append("app.log.1", "3\n");
        scene.files.scan(scene.now);
        let mut events = scene.drain();
        events.extend(scene.pass(Duration::from_secs(2)));
        assert_eq!(events, ["3"], "{pattern}");
    }
}

#[test]
fn a_deleted_file_is_read_to_its_end() {
    let mut scene = Scene::new(".*");
    scene.append("a", "1\n");
    assert_eq!(scene.read(), ["1"]);
    scene.append("a", "2\n");
    scene.remove("a");
    scene.append("a", "3\n");
    assert_eq!(scene.read(), ["2", "3"]);
    scene.pass(Duration::from_secs(200));
    scene.files.scan(scene.now);
    assert_eq!(scene.files.positions().len(), 1);
}

#[test]
fn a_truncated_file_is_read_from_its_front_however_far_it_has_grown() {
    let mut scene = Scene::new(".*");
    scene.append("a", "old 1\nold 2\n");
    assert_eq!(scene.read().len(), 2);
    scene.truncate("a");
    scene.append("a", "new\n");
    assert_eq!(scene.read(), ["new"]);
    scene.truncate("a");
    scene.append("a", "new and longer than the old one\nmore\n");
    assert_eq!(scene.read(), ["new and longer than the old one", "more"]);
    // To the very length.
    let text = "NEW and longer than the old one\nmore\n";
    scene.truncate("a");
    scene.append("a", text);
    scene.date("a", 0);
    assert_eq!(scene.read(), ["NEW and longer than the old one", "more"]);
}

#[test]
fn an_unended_line_waits_until_the_file_is_idle() {
    let mut scene = Scene::new(".*");
    scene.append("a", "1\nunen");
    assert_eq!(scene.read(), ["1"]);
    assert_eq!(scene.pass(Duration::from_secs(100)), [""; 0]);
    scene.append("a", "d");
    assert_eq!(scene.read(), [""; 0]);
    assert_eq!(scene.pass(Duration::from_secs(100)), [""; 0], "it has just grown");
    assert_eq!(scene.pass(Duration::from_secs(21)), ["unend"]);
    assert!(scene.files.active.is_empty(), "the file is closed");
    scene.append("a", "ed\n");
    assert_eq!(scene.read(), ["ed"]);
}

#[test]
fn a_line_that_grows_is_not_read_again_and_again() {
    let mut scene = Scene::with(".*", |config| config.max_line_bytes = 8 << 20);
    let piece = "x".repeat(100_000);
    for _ in 0..30 {
        scene.append("a", &piece);
        assert_eq!(scene.read(), [""; 0]);
    }
    let file = scene.files.files.values().next().expect("the file");
    assert_eq!((file.pos, file.scanned), (0, 3_000_000));
    scene.append("a", "\nnext\n");
    let events = scene.read();
    assert_eq!((events[0].len(), events[1].as_str()), (3_000_000, "next"));
}

#[test]
fn too_long_a_line_is_cut() {
    let mut scene = Scene::with(".*", |config| config.max_line_bytes = 10);
    scene.append("a", "0123456789abcdefghij0123");
    assert_eq!(scene.read(), ["0123456789", "abcdefghij"]);
    scene.append("a", "4\n5\n");
    assert_eq!(scene.read(), ["01234", "5"]);
}

#[test]
fn lines_that_belong_together_come_as_one_event() {
    let mut scene = Scene::with(".*", |config| config.multiline = JavaRegex::new(r"^\d").ok());
    scene.append("a", "1 error\n  at x\n  at y\n2 fine\n");
    assert_eq!(scene.read(), ["1 error\n  at x\n  at y"]);
    scene.append("a", "  it goes on\n  and o");
    assert_eq!(scene.read(), [""; 0]);
    assert_eq!(scene.pass(Duration::from_secs(2)), ["2 fine\n  it goes on"]);
    assert!(scene.files.deadline().is_some_and(|at| at > scene.now + Duration::from_secs(10)), "nothing spins");
    assert_eq!(scene.pass(Duration::from_secs(200)), ["  and o"]);
}

#[test]
fn headers_are_flumes() {
    let mut scene = Scene::with(".*", |config| {
        config.byte_offset_header = true;
        config.file_header = Some("file".to_owned());
    });
    scene.append("a", "1\n23\n4\n5\n");
    scene.files.scan(scene.now);
    let portion = scene.files.next(scene.now).expect("something to read");
    let path = scene.path("a").display().to_string();
    let headers = portion.batches.iter().flat_map(|(batch, _)| batch.iter().map(|event| event.headers().clone()));
    let expected = |offset: &str| Headers::from_iter([("byteoffset", offset), ("group", "g1"), ("file", &path)]);
    assert_eq!(headers.collect::<Vec<_>>(), ["0", "2", "5", "7"].map(expected));
}

#[test]
fn a_file_takes_its_turn() {
    let mut scene = Scene::with(".*", |config| config.max_batch_count = 1);
    scene.append("a", "a1\na2\na3\na4\n");
    scene.date("a", 0);
    scene.append("b", "b1\n");
    assert_eq!(scene.read(), ["a1", "a2", "a3", "b1", "a4"]);
}

#[test]
fn skip_to_end_is_for_files_that_are_there_and_unknown() {
    let mut scene = Scene::with(".*", |config| config.skip_to_end = true);
    scene.append("known", "1\n");
    assert_eq!(scene.read(), ["1"]);
    scene.save();
    scene.append("known", "2\n");
    scene.append("old", "skipped\n");
    scene.start();
    scene.append("old", "3\n");
    let mut events = scene.read();
    events.sort();
    assert_eq!(events, ["2", "3"]);
    scene.append("new", "4\n");
    assert_eq!(scene.read(), ["4"]);
}

#[test]
fn flumes_position_file_is_taken_over() {
    let mut scene = Scene::new(".*");
    for name in ["a", "b", "c"] {
        scene.append(name, "1\n2\n");
    }
    let inode = |name: &str| fs::metadata(scene.path(name)).expect("a file").ino();
    let (a, b) = (scene.path("a"), scene.path("c"));
    // Flume reads a file whose name has changed from its front.
    let text = format!(
        r#"[{{"inode":{},"pos":2,"file":"{}"}},{{"inode":{},"pos":2,"file":"{}"}}]"#,
        inode("a"),
        a.display(),
        inode("b"),
        b.display()
    );
    fs::write(scene.position_file(), text).expect("a file");
    scene.start();
    let mut events = scene.drain();
    events.sort();
    assert_eq!(events, ["1", "1", "2", "2", "2"]);
}

#[test]
fn rotations_while_the_agent_is_down() {
    for pattern in ["a", "a.*"] {
        // Renamed, with the same first line in the new file.
        let mut scene = Scene::new(pattern);
        scene.append("a", "first\n2\n");
        assert_eq!(scene.read().len(), 2);
        scene.save();
        scene.append("a", "3\n");
        scene.rename("a", "a.1");
        scene.append("a", "first\n2\n4\n");
        scene.start();
        assert_eq!(scene.drain(), ["3", "first", "2", "4"], "{pattern}");
        // Deleted, and perhaps the inode used again.
        scene.save();
        scene.remove("a");
        scene.append("a", "first\n2\n4\n5\n");
        scene.start();
        assert_eq!(scene.drain(), ["first", "2", "4", "5"], "{pattern}");
        // Truncated, and grown again further than before.
        scene.save();
        scene.truncate("a");
        scene.append("a", "other\n2\n4\n5\n6\n");
        scene.start();
        assert_eq!(scene.drain(), ["other", "2", "4", "5", "6"], "{pattern}");
    }
}

#[test]
fn a_second_name_of_a_file_is_not_a_second_file() {
    let mut scene = Scene::new(".*");
    scene.append("a", "1\n");
    assert_eq!(scene.read(), ["1"]);
    fs::hard_link(scene.path("a"), scene.path("b")).expect("a link");
    assert_eq!(scene.read(), [""; 0]);
    scene.remove("a");
    scene.append("b", "2\n");
    assert_eq!(scene.read(), ["2"]);
}

#[test]
fn many_files_are_not_all_kept_open() {
    let mut scene = Scene::new(".*");
    for number in 0..MOST_OPEN + 50 {
        scene.append(&number.to_string(), "1\n");
    }
    assert_eq!(scene.read().len(), MOST_OPEN + 50);
    assert_eq!(scene.files.open, MOST_OPEN);
    for number in 0..MOST_OPEN + 50 {
        scene.append(&number.to_string(), "2\n");
    }
    assert_eq!(scene.read(), vec!["2"; MOST_OPEN + 50]);
}

/// What writers, rotation and restarts do.
#[derive(Clone, Debug)]
enum Act {
    Write(usize, usize),
    Part(usize),
    RotateByRename(usize),
    RotateByTruncation(usize),
    Delete(usize),
    Read,
    ReadOne,
    Restart,
    Pass,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0usize..2, 1usize..8).prop_map(|(file, lines)| Act::Write(file, lines)),
        2 => (0usize..2).prop_map(Act::Part),
        2 => (0usize..2).prop_map(Act::RotateByRename),
        1 => (0usize..2).prop_map(Act::RotateByTruncation),
        1 => (0usize..2).prop_map(Act::Delete),
        5 => Just(Act::Read),
        2 => Just(Act::ReadOne),
        2 => Just(Act::Restart),
        1 => Just(Act::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Every line comes exactly once, and those of a writer in order, whatever happens to its file. What is truncated
    /// or deleted has been read, as nobody could read it afterwards.
    #[test]
    fn every_line_once_and_in_order(
        acts in prop::collection::vec(act(), 1..40), all_names in any::<bool>(), same_text in any::<bool>()
    ) {
        let mut scene = Scene::new(if all_names { r"w\d\.log.*" } else { r"w\d\.log" });
        let names = ["w0.log", "w1.log"];
        let mut written = [0usize; 2];
        let mut open = [false; 2];
        let mut rotated = 0;
        let mut events: Vec<String> = Vec::new();
        let line = |file: usize, number: usize| if same_text { format!("w{file} same") } else { format!("w{file} {number:05}") };
        let text = |file: usize, number: &mut usize, open: &mut bool| {
            let whole = line(file, *number);
            *number += 1;
            let text = if *open { whole[4..].to_owned() } else { whole };
            *open = false;
            text + "\n"
        };
        for act in acts {
            match act {
                Act::Write(file, lines) => {
                    for _ in 0..lines {
                        let text = text(file, &mut written[file], &mut open[file]);
                        scene.append(names[file], &text);
                    }
                }
                Act::Part(file) if !open[file] => {
                    scene.append(names[file], &line(file, written[file])[..4]);
                    open[file] = true;
                }
                Act::RotateByRename(file) if scene.path(names[file]).exists() => {
                    if open[file] {
                        let text = text(file, &mut written[file], &mut open[file]);
                        scene.append(names[file], &text);
                    }
                    // An agent that never saw a file under a name that matches cannot know it.
                    events.extend(scene.read());
                    rotated += 1;
                    let lines = text(file, &mut written[file], &mut open[file]);
                    scene.append(names[file], &lines);
                    // Files are read in the order of their changes, of which the clock may be too coarse to tell.
                    scene.date(names[file], rotated);
                    scene.rename(names[file], &format!("{}.{rotated}", names[file]));
                }
                Act::RotateByTruncation(file) | Act::Delete(file) if scene.path(names[file]).exists() && !open[file] => {
                    events.extend(scene.read());
                    if matches!(act, Act::Delete(_)) {
                        scene.remove(names[file]);
                    } else {
                        scene.truncate(names[file]);
                        // Identical bytes again cannot be told from no change.
                        if same_text {
                            events.extend(scene.read());
                        }
                    }
                }
                Act::Read => events.extend(scene.read()),
                Act::ReadOne => {
                    scene.files.scan(scene.now);
                    if let Some(portion) = scene.files.next(scene.now) {
                        let (batch, end) = &portion.batches[0];
                        events.extend(batch.iter().map(|event| String::from_utf8_lossy(event.body()).into_owned()));
                        scene.files.commit(&portion, *end, 1, scene.now);
                    }
                }
                Act::Restart => scene.restart(),
                // An idle file's last line would end.
                Act::Pass if open == [false; 2] => events.extend(scene.pass(Duration::from_secs(50))),
                _ => {}
            }
        }
        events.extend(scene.read());
        for (file, count) in written.into_iter().enumerate() {
            let own: Vec<&String> = events.iter().filter(|event| event.starts_with(&format!("w{file}"))).collect();
            let expected: Vec<String> = (0..count).map(|number| line(file, number)).collect();
            prop_assert_eq!(own, expected.iter().collect::<Vec<_>>());
        }
    }
}
