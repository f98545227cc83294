//! Words counted from a socket: by batch, and for ever.

use std::sync::Arc;

use crate::support::{Server, TestJob, directory};

fn job(server: &Server, table: &str) -> String {
    format!(
        r#"
batch = "50ms"
checkpoint = "state"
[source.lines]
type = "socket"
connect = "{}"
[view.words]
sql = "select unnest(string_to_array(value, ' ')) as word from lines"
{table}
[sink.screen]
type = "print"
sql = "select * from counts order by word"
[sink.kept]
type = "sqlite"
from = "counts"
table = "counts"
key = ["word"]
"#,
        server.address()
    )
}

const RUNNING: &str = "[table.counts]\nsql = \"select word, count(*) as n from words group by word\"";
const BY_BATCH: &str = "[view.counts]\nsql = \"select word, count(*) as n from words group by word\"";

#[test]
fn words_of_a_batch_are_printed_under_its_time() {
    let mut server = Server::new();
    let job = TestJob::start(&job(&server, BY_BATCH));
    server.accept();
    server.send("hello world\nhello\n");
    job.wait_for_out("(hello,2)\n(world,1)\n\n");
    let out = job.out();
    let rule = "-".repeat(43);
    let frame = format!("{rule}\nTime: ");
    assert!(out.starts_with(&frame), "{out}");
    server.send("hello\n");
    job.wait_for_out(" ms\n-------------------------------------------\n(hello,1)\n\n");
}

#[test]
fn counts_go_on_after_a_kill_and_a_lost_connection() {
    let mut server = Server::new();
    let text = job(&server, RUNNING);
    let job = TestJob::start(&text);
    server.accept();
    server.send("a a b\n");
    job.wait_for_rows("state", "select * from counts", &[&["a", "2"], &["b", "1"]]);
    server.close();
    server.accept();
    server.send("b c\r\n");
    job.wait_for_rows("state", "select * from counts", &[&["a", "2"], &["b", "2"], &["c", "1"]]);
    let job = job.kill_and_restart(&text);
    server.accept();
    server.send("a");
    server.close();
    job.wait_for_rows("state", "select * from counts", &[&["a", "3"], &["b", "2"], &["c", "1"]]);
    job.wait_for_out("(a,3)\n(b,2)\n(c,1)\n");
}

#[test]
fn words_of_two_united_sources_are_counted_together() {
    let (mut one, mut other) = (Server::new(), Server::new());
    let united = format!(
        "{RUNNING}\n[source.others]\ntype = \"socket\"\nconnect = \"{}\"\n\
         [view.both]\nsql = \"select value from lines union all select value from others\"",
        other.address()
    );
    let text = job(&one, &united).replace("as word from lines", "as word from both");
    let job = TestJob::start(&text);
    one.accept();
    other.accept();
    one.send("a b\n");
    other.send("a c\n");
    job.wait_for_rows("state", "select * from counts", &[&["a", "2"], &["b", "1"], &["c", "1"]]);
}

#[test]
fn a_checkpoint_of_another_job_is_refused() {
    let server = Server::new();
    let home = Arc::new(directory());
    let mut one = TestJob::start_in(Arc::clone(&home), &job(&server, RUNNING), &[]);
    one.wait_for_out("Time: ");
    assert!(one.terminate().success());
    let mut other = TestJob::start_in(home, &job(&server, BY_BATCH), &[]);
    assert!(!other.wait().success());
    other.wait_for_log("belongs to another job");
}
