//! Text files: one for each batch, whole, under the batch's time.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use flume_rs_stream::batch::BatchInfo;

use crate::support::{Server, TestJob, batch, directory, eventually, files, sink};

fn names(folder: &Path) -> Vec<String> {
    files(folder).iter().map(|path| path.file_name().expect("it has one").to_string_lossy().into_owned()).collect()
}

#[test]
fn a_batch_with_rows_has_a_file() {
    let mut server = Server::new();
    let job = TestJob::start(&format!(
        r#"
batch = "50ms"
[source.orders]
type = "socket"
connect = "{}"
format = "delimited"
delimiter = ","
columns = ["id bigint", "kind text"]
[view.counts]
sql = "select kind = 'B' as buys, count(*) as n from orders group by kind order by buys"
[sink.screen]
type = "print"
from = "counts"
[sink.files]
type = "text"
from = "counts"
folder = "out"
prefix = "output"
suffix = "txt"
[sink.json]
type = "text"
from = "counts"
folder = "json"
style = "json"
"#,
        server.address()
    ));
    server.accept();
    job.wait_for_commit();
    server.send("1,B\n2,S\n3,B\n");
    job.wait_for_out("(false,1)\n(true,2)\n");
    job.wait_for_commit();
    let out = job.out();
    let (before, _) =
        out.split_once(" ms\n-------------------------------------------\n(false,1)").expect("it is there");
    let (_, time) = before.rsplit_once("Time: ").expect("the frame has it");
    assert_eq!(names(&job.home().join("out")), [format!("output-{time}.txt")], "empty batches have none");
    let text = fs::read_to_string(job.home().join(format!("out/output-{time}.txt"))).expect("it is there");
    assert_eq!(text, "(false,1)\n(true,2)\n");
    let json = fs::read_to_string(job.home().join(format!("json/json-{time}"))).expect("it is named by the sink");
    assert_eq!(json, "{\"buys\":false,\"n\":1}\n{\"buys\":true,\"n\":2}\n");
}

#[test]
fn an_empty_batch_has_a_file_when_asked_for() {
    let mut server = Server::new();
    let job = TestJob::start(&format!(
        "batch = \"50ms\"\n[source.lines]\ntype = \"socket\"\nconnect = \"{}\"\n\
         [sink.files]\ntype = \"text\"\nfrom = \"lines\"\nfolder = \"out\"\nempty = true\n",
        server.address()
    ));
    server.accept();
    let found = eventually(|| files(&job.home().join("out")).into_iter().next());
    assert_eq!(fs::read(found.expect("there is a file")).expect("it can be read"), b"");
}

#[tokio::test]
async fn a_batch_that_comes_again_replaces_its_file() {
    let home = directory();
    let rows = RecordBatch::try_from_iter([
        ("buys", Arc::new(BooleanArray::from(vec![true])) as ArrayRef),
        ("n", Arc::new(Int64Array::from(vec![3]))),
    ]);
    let rows = [rows.expect("they are as long")];
    for number in [batch(1), BatchInfo { again: true, ..batch(1) }, batch(2)] {
        let keys = "type = \"text\"\nfolder = \"deep/out\"\nprefix = \"a\"\nstyle = \"delimited\"\ndelimiter = \"; \"";
        let mut files = sink(home.path(), keys);
        files.open(&rows[0].schema()).await.expect("the folder can be made");
        files.write(&number, &rows).await.expect("it is written");
    }
    let folder = home.path().join("deep/out");
    assert_eq!(names(&folder), ["a-1590233401000", "a-1590233402000"], "nothing is left beside them");
    assert_eq!(fs::read_to_string(folder.join("a-1590233401000")).expect("it is there"), "true; 3\n");
}
