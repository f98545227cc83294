//! HBase: counts as its own counters are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{RealServer, Server, TestJob, eventually, java_peers};

/// A count of HBase as its clients read it; nothing without the row.
fn count(hbase: &RealServer, row: &str) -> Option<i64> {
    let answer = hbase.try_command(&["get", "product_clickcount", row])?;
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("it is JSON");
    let cell = &answer["Row"][0]["Cell"][0];
    assert_eq!(cell["column"], STANDARD.encode("info:click_count"), "{answer}");
    let value = STANDARD.decode(cell["$"].as_str().expect("there is a value")).expect("it is base64");
    Some(i64::from_be_bytes(value.try_into().expect("a count has eight bytes")))
}

#[test]
fn clicks_are_counters() {
    let Some(_turn) = java_peers(&[]) else { return };
    let hbase = RealServer::hbase();
    let mut lines = Server::new();
    let job = TestJob::start(&format!(
        r#"
batch = "100ms"
[source.clicks]
type = "socket"
connect = "{}"
format = "delimited"
delimiter = ","
columns = ["day text", "product int"]
[table.counts]
sql = "select day || '_' || product as id, count(*) as click_count from clicks group by day, product"
[sink.hbase]
type = "hbase"
url = "http://127.0.0.1:{}"
from = "counts"
table = "product_clickcount"
row = "id"
family = "info"
"#,
        lines.address(),
        hbase.port
    ));
    lines.accept();
    let clicks: String = (0..3_000).map(|product| format!("20200530,{product}\n")).collect();
    lines.send(&clicks);
    lines.send("20200530,7\n");
    let why = job.wait_for_log("sink hbase: ");
    assert!(why.contains("the table is not there; in HBase's shell: create 'product_clickcount', 'info'"), "{why}");
    hbase.command(&["create", "product_clickcount", "info"]);
    let expect = |row: &str, expected: i64| {
        let found = eventually(|| (count(&hbase, row) == Some(expected)).then_some(()));
        assert!(found.is_some(), "{row}: {:?}, not {expected}\n{}", count(&hbase, row), job.log());
    };
    expect("20200530_7", 2);
    expect("20200530_2999", 1);
    hbase.command(&["increment", "product_clickcount", "20200530_7", "info:click_count", "10"]);
    assert_eq!(count(&hbase, "20200530_7"), Some(12), "it is a counter of HBase");
    lines.send("20200530,7\n");
    expect("20200530_7", 3);
}
