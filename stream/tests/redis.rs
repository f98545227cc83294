//! Redis: hashes and keys with the totals so far.

use std::net::TcpListener;

use crate::support::{RealServer, Server, TestJob};

#[test]
fn totals_in_a_hash_and_in_keys() {
    let Some(redis) = RealServer::redis() else { return };
    let mut lines = Server::new();
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let job = TestJob::start(&format!(
        r#"
batch = "50ms"
[source.clicks]
type = "socket"
connect = "{}"
format = "delimited"
delimiter = ","
columns = ["day text", "product int"]
[table.counts]
sql = "select day, product, count(*) as n, max(product) as most from clicks group by day, product"
[sink.hash]
type = "redis"
url = "{url}"
from = "counts"
hash = "clicks"
key = ["day", "product"]
value = "n"
[sink.keys]
type = "redis"
url = "{url}"
from = "counts"
key-prefix = "click/"
key = ["day", "product"]
separator = "/"
"#,
        lines.address()
    ));
    lines.accept();
    lines.send("mon,7\nmon,7\ntue,8\n");
    let why = job.wait_for_log("sink hash: ");
    assert!(why.contains(&format!("redis 127.0.0.1:{}", redis.port)), "{why}");
    redis.start();
    job.wait_for_log("sink hash: it works again");
    let eventually = |command: &[&str], expected: &str| {
        let found = crate::support::eventually(|| (redis.command(command) == expected).then_some(()));
        assert!(found.is_some(), "{command:?}: {}, not {expected}\n{}", redis.command(command), job.log());
    };
    eventually(&["cli", "get", "click/tue/8"], "{\"n\":1,\"most\":8}\n");
    assert_eq!(redis.command(&["cli", "hget", "clicks", "mon:7"]), "2\n");
    assert_eq!(redis.command(&["cli", "hget", "clicks", "tue:8"]), "1\n");
    lines.send("mon,7\n");
    eventually(&["cli", "hget", "clicks", "mon:7"], "3\n");
    eventually(&["cli", "get", "click/mon/7"], "{\"n\":3,\"most\":7}\n");
}

#[test]
fn a_batch_that_keeps_a_stopped_job_from_its_end_is_named() {
    // It takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let port = silent.local_addr().expect("it is bound").port();
    let mut job = TestJob::start(&format!(
        "batch = \"50ms\"\n[source.rows]\ntype = \"rate\"\n\
         [sink.kept]\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"\nfrom = \"rows\"\nkey = [\"value\"]\nhash = \"h\"\n"
    ));
    let _connection = silent.accept().expect("the sink connects");
    assert!(job.terminate().success());
    job.wait_for_log("the job ends when batch 1 is done; a second signal ends it at once");
}
