//! Tables in MariaDB, PostgreSQL and a SQLite file: every row exactly once, whatever goes away.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
};
use flume_rs_stream::batch::BatchInfo;

use crate::support::{
    RealServer, Server, TestJob, batch, directory, eventually, example, query, sentences, sink, write, write_new,
};

const TOTALS: &str = "select word, wordcount from wordcount order by word";

/// The running word count of an example, in a table that is not yet as it must be, through a database that is down for a
/// while and a job that is killed.
fn words_are_counted_exactly(database: &RealServer, file: &str, url: (&str, &str), table: &str) {
    database.sql(table);
    let mut lines = Server::new();
    let text = example(file, &[("\"5s\"", "\"50ms\""), ("localhost:6789", &lines.address()), url]);
    let job = TestJob::start(&text);
    let wait_for = |part: &str, from: usize| {
        let found = eventually(|| job.log()[from..].contains(part).then_some(()));
        assert!(found.is_some(), "{part:?} was not logged:\n{}", job.log());
    };
    lines.accept();
    lines.send("it's a A a\n");
    let why = job.wait_for_log("sink database: ");
    assert!(why.contains(&format!("127.0.0.1:{}/flume, table wordcount: ", database.port)), "{why}");
    assert!(why.contains("is no unique key of") && why.contains("does not pass by itself"), "{why}");
    database.sql("alter table wordcount add primary key (word)");
    wait_for("sink database: it works again", 0);
    database.wait_for_rows(TOTALS, "A\t1\na\t2\nit's\t1\n", || job.log());
    for _ in 0..500 {
        lines.send("a b\n");
    }
    let before = job.log().len();
    database.stop();
    for _ in 0..500 {
        lines.send("a b\n");
    }
    wait_for(&format!("127.0.0.1:{}/flume, table wordcount: ", database.port), before);
    database.start();
    for _ in 0..500 {
        lines.send("b c\n");
    }
    wait_for("sink database: it works again", before);
    database.wait_for_rows(TOTALS, "A\t1\na\t1002\nb\t1500\nc\t500\nit's\t1\n", || job.log());
    job.wait_for_commit();
    let job = job.kill_and_restart(&text);
    lines.accept();
    lines.send("a d\n");
    database.wait_for_rows(TOTALS, "A\t1\na\t1003\nb\t1500\nc\t500\nd\t1\nit's\t1\n", || job.log());
}

#[test]
fn words_in_mariadb() {
    let Some(database) = RealServer::mariadb() else { return };
    let url = format!("mysql://flume:flume@127.0.0.1:{}/flume", database.port);
    let table = "create table wordcount (word varchar(50) collate utf8mb4_bin default null, wordcount int(10) default null) \
                 default character set utf8mb4";
    let url = ("mysql://root:123456@localhost:3306/words", url.as_str());
    words_are_counted_exactly(&database, "word-count-mysql.toml", url, table);
}

#[test]
fn words_in_postgres() {
    let Some(database) = RealServer::postgres() else { return };
    let url = format!("postgres://flume@127.0.0.1:{}/flume", database.port);
    let table = "create table wordcount (word varchar(50), wordcount int)";
    let url = ("postgres://postgres:123456@localhost:5432/words", url.as_str());
    words_are_counted_exactly(&database, "word-count-postgres.toml", url, table);
}

fn words(words: &[Option<&str>], counts: &[i64]) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("word", Arc::new(StringArray::from(words.to_vec())) as ArrayRef),
        ("n", Arc::new(Int64Array::from(counts.to_vec())) as ArrayRef),
    ])
    .expect("they are as long")
}

fn again(number: u64) -> BatchInfo {
    BatchInfo { again: true, ..batch(number) }
}

/// Batches that come again, inserts and upserts, and what goes wrong; `connect` are the keys that say where.
async fn batches_are_written_once(connect: &str, sql: impl Fn(&str) -> String) {
    let rows = words(&[Some("a"), Some("b")], &[1, 2]);
    let keys = format!("{connect}\ntable = \"plain\"\ncreate = true");
    let mut plain = sink("".as_ref(), &keys);
    plain.open(&rows.schema()).await.expect("the table is made");
    let count = || sql("select count(*) from plain");
    for (number, expected) in [(batch(1), "2\n"), (batch(1), "2\n"), (batch(2), "4\n"), (again(2), "4\n")] {
        plain.write(&number, std::slice::from_ref(&rows)).await.expect("it is written");
        assert_eq!(count(), expected, "after {number:?}");
    }
    drop(plain);
    write_new(&keys, again(2), &rows).await.expect("it is passed over after a crash, too");
    assert_eq!(count(), "4\n");
    // A job that begins anew has numbers that were there before, and another time.
    write_new(&keys, BatchInfo { time: 1, ..batch(2) }, &rows).await.expect("it is another batch");
    assert_eq!(count(), "6\n");

    let keys = format!("{connect}\ntable = \"last\"\nkey = [\"word\"]\ncreate = true");
    let twice = words(&[Some("a"), Some("A"), Some("a "), Some("a")], &[1, 2, 3, 4]);
    write_new(&keys, batch(1), &twice).await.expect("it is written");
    assert_eq!(sql("select n from last order by n"), "2\n3\n4\n", "the last of a key counts");
    let many: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
    let many: Vec<Option<&str>> = many.iter().map(|word| Some(word.as_str())).collect();
    write_new(&keys, batch(2), &words(&many, &vec![7; 20_000])).await.expect("it is written in several statements");
    assert_eq!(sql("select count(*), sum(n) from last"), "20003\t140009\n");
    let none = write_new(&keys, batch(3), &words(&[None], &[1])).await.expect_err("a key must be there");
    assert!(none.to_string().contains("does not pass by itself"), "{none}");
    assert_eq!(sql("select count(*) from last where n = 1"), "0\n");

    let keys = format!("{connect}\ntable = \"pairs\"\nkey = [\"word\", \"n\"]\ncreate = true");
    for number in [batch(1), batch(2)] {
        write_new(&keys, number, &rows).await.expect("a row may be all key");
    }
    assert_eq!(sql("select count(*) from pairs"), "2\n");

    let keys = format!("{connect}\ntable = \"absent\"");
    let absent = write_new(&keys, batch(1), &rows).await.expect_err("there is no table").to_string();
    assert!(absent.contains("table absent: the table is not there; make it, or set create = true"), "{absent}");
    sql("create table small (word varchar(3), n int)");
    let keys = format!("{connect}\ntable = \"small\"");
    let long = write_new(&keys, batch(1), &words(&[Some("abcd")], &[1])).await.expect_err("it is too long").to_string();
    assert!(long.contains("does not pass by itself"), "{long}");
    let lacks = RecordBatch::try_from_iter([("words", Arc::new(StringArray::from(vec!["a"])) as ArrayRef)]);
    let lacks = write_new(&keys, batch(1), &lacks.expect("one column")).await.expect_err("a column is missing");
    assert!(lacks.to_string().contains("it has no column words, but word, n"), "{lacks}");
    let keys = format!("{keys}\nkey = [\"word\"]");
    let loose = write_new(&keys, batch(1), &rows).await.expect_err("rows cannot be told apart").to_string();
    assert!(loose.contains("is no unique key of"), "{loose}");
}

/// A row of every kind, and one of nothing.
fn kinds() -> RecordBatch {
    let time = || TimestampMillisecondArray::from(vec![Some(1_590_233_400_123), None]);
    let price = Decimal128Array::from(vec![Some(1250), None]).with_precision_and_scale(10, 2).expect("it fits");
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
        ("yes", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("big", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("half", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        ("price", Arc::new(price)),
        ("day", Arc::new(Date32Array::from(vec![Some(18_405), None]))),
        ("at", Arc::new(time())),
        ("zoned", Arc::new(time().with_timezone("Asia/Shanghai"))),
        ("raw", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\xff\x00"), None]))),
        ("text", Arc::new(StringArray::from(vec![Some("it's `\"\\ ü"), None]))),
    ])
    .expect("they are as long")
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_in_mariadb() {
    let Some(database) = RealServer::mariadb() else { return };
    let connect = format!("type = \"mysql\"\nurl = \"mysql://flume:flume@127.0.0.1:{}/flume\"", database.port);
    batches_are_written_once(&connect, |sql| database.sql(sql)).await;
    let keys = format!("{connect}\ntable = \"kinds\"\nkey = [\"id\"]\ncreate = true");
    write_new(&keys, batch(1), &kinds()).await.expect("it is written");
    let shown = database.sql("select yes, big, half, price, day, at, zoned, hex(raw), text from kinds where id = 1");
    let expected = "1\t18446744073709551615\t0.5\t12.50\t2020-05-23\t2020-05-23 11:30:00.123\t2020-05-23 11:30:00.123\t\
                    FF00\tit's `\"\\\\ ü\n";
    assert_eq!(shown, expected);
    assert_eq!(
        database.sql("select count(*) from kinds where id = 2 and coalesce(big, half, at, raw, text) is null"),
        "1\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_in_postgres() {
    let Some(database) = RealServer::postgres() else { return };
    let connect = format!("type = \"postgres\"\nurl = \"postgres://flume@127.0.0.1:{}/flume\"", database.port);
    batches_are_written_once(&connect, |sql| database.sql(sql)).await;
    let keys = format!("{connect}\ntable = \"kinds\"\nkey = [\"id\"]\ncreate = true");
    write_new(&keys, batch(1), &kinds()).await.expect("it is written");
    let shown = database.sql(
        "set time zone 'UTC'; \
         select yes, big, half, price, day, at, zoned, encode(raw, 'hex'), text from kinds where id = 1",
    );
    let expected = "t\t18446744073709551615\t0.5\t12.50\t2020-05-23\t2020-05-23 11:30:00.123\t2020-05-23 11:30:00.123+00\t\
                    ff00\tit's `\"\\ ü\n";
    assert_eq!(shown, expected);
    let none =
        "select count(*) from kinds where id = 2 and num_nulls(yes, big, half, price, day, at, zoned, raw, text) = 9";
    assert_eq!(database.sql(none), "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_in_a_sqlite_file() {
    let home = directory();
    let rows = words(&[Some("a"), Some("b")], &[1, 2]);
    for number in [batch(1), again(1), batch(2)] {
        let mut plain = sink(home.path(), "type = \"sqlite\"\npath = \"other.db\"\ntable = \"plain\"");
        plain.open(&rows.schema()).await.expect("the table is made");
        plain.write(&number, std::slice::from_ref(&rows)).await.expect("it is written");
    }
    let found =
        query(&home.path().join("other.db"), "select word, sum(n) from plain group by word").expect("it is there");
    assert_eq!(found, [["a", "2"], ["b", "4"]]);
    let last = query(&home.path().join("other.db"), "select job, sink, batch from flume_rs_batches");
    assert_eq!(last.expect("it is there"), [["test", "rows", "2"]]);
}

/// Files whose words a job counts in a table, and whose lines it adds to another; it is killed again and again.
fn kills_change_nothing(database: &RealServer, connect: &str) {
    const FILES: usize = 20;
    let (lines, words) = sentences(12_000);
    let home = Arc::new(directory());
    let incoming = home.path().join("incoming");
    fs::create_dir(&incoming).expect("a folder");
    for (number, part) in lines.chunks(lines.len() / FILES).enumerate() {
        let beside = write(home.path(), "beside", part.join("\n"));
        fs::rename(beside, incoming.join(format!("part-{number:02}"))).expect("it can be moved");
    }
    let text = format!(
        r#"
batch = "20ms"
checkpoint = "state"
max-rows = 40
[source.lines]
type = "folder"
path = "incoming"
start = "earliest"
[view.words]
sql = "select unnest(string_to_array(value, ' ')) as word from lines"
[table.counts]
sql = "select word, count(*) as n from words group by word"
[sink.counts]
{connect}
from = "counts"
table = "counts"
key = ["word"]
create = true
[sink.lines]
{connect}
sql = "select value as line from lines"
table = "all_lines"
create = true
[sink.words]
{connect}
sql = "select character_length(word) as length from words"
table = "all_words"
"#
    );
    let mut job = TestJob::start_in(Arc::clone(&home), &text, &[]);
    let count = || database.sql("select count(*) from all_lines").trim().parse::<usize>().expect("a number");
    // A table that is missing holds the job up where the others have their batch, which is not committed here.
    for _ in 0..2 {
        job.wait_for_log("sink words: ");
        database.wait_for_rows("select count(*) from all_lines", "40\n", || job.log());
        job = job.kill_and_restart(&text);
    }
    database.sql("create table all_words (length int)");
    let mut in_the_midst = 0;
    for _ in 0..10 {
        // The moment is what this is about.
        std::thread::sleep(Duration::from_millis(fastrand::u64(200..900)));
        job = job.kill_and_restart(&text);
        in_the_midst += usize::from(count() < lines.len());
    }
    assert!(in_the_midst > 3, "most kills came too late");
    let mut expected: Vec<String> = words.iter().map(|(word, n)| format!("{word}\t{n}\n")).collect();
    expected.sort();
    let all = format!("{}\n", lines.len());
    database.wait_for_rows("select count(*) from all_lines", &all, || job.log());
    let all = format!("{}\n", words.values().sum::<usize>());
    database.wait_for_rows("select count(*) from all_words", &all, || job.log());
    let mut counts: Vec<String> =
        database.sql("select word, n from counts").lines().map(|line| format!("{line}\n")).collect();
    counts.sort();
    assert_eq!(counts, expected, "{}", job.log());
}

#[test]
fn no_count_in_mariadb_changes_however_often_the_job_is_killed() {
    let Some(database) = RealServer::mariadb() else { return };
    let url = format!("mysql://flume:flume@127.0.0.1:{}/flume", database.port);
    kills_change_nothing(&database, &format!("type = \"mysql\"\nurl = \"{url}\""));
}

#[test]
fn no_count_in_postgres_changes_however_often_the_job_is_killed() {
    let Some(database) = RealServer::postgres() else { return };
    let url = format!("postgres://flume@127.0.0.1:{}/flume", database.port);
    kills_change_nothing(&database, &format!("type = \"postgres\"\nurl = \"{url}\""));
}
