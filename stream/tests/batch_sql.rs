//! SQL and Rust on the rows of each batch: examples as users run them.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use datafusion::error::DataFusionError;
use datafusion::prelude::{col, lit};
use flume_rs_stream::engine::Engine;
use flume_rs_stream::job::Job;
use flume_rs_stream::sink::Mode;
use tokio_util::sync::CancellationToken;

use crate::support::{Server, TestJob, directory, eventually, example, example_program, write};

fn changed(file: &str, server: &Server) -> String {
    example(file, &[("\"5s\"", "\"50ms\""), ("localhost:6789", &server.address())])
}

#[test]
fn those_on_the_black_list_are_left_out() {
    let mut server = Server::new();
    let job = TestJob::start(&changed("black-list.toml", &server));
    server.accept();
    server.send("20180808,zs\n20180808,ls\n20180808,ww\n20180808\n20180808,Zs\n");
    job.wait_for_out("\n20180808,ww\n");
    job.wait_for_out("\n20180808,Zs\n");
    job.wait_for_out("| 20180808 |");
    assert!(job.out().contains("it has 1 fields, not 2"), "{}", job.out());
    assert!(!job.out().contains("20180808,zs") && !job.out().contains("20180808,ls"), "{}", job.out());
}

#[test]
fn sql_on_each_batch_is_shown_as_a_table() {
    let mut server = Server::new();
    let job = TestJob::start(&changed("sql-per-batch.toml", &server));
    server.accept();
    server.send("b a a\n");
    job.wait_for_out("+------+-------+\n| word | total |\n+------+-------+\n| a    | 2     |\n| b    | 1     |\n+------+-------+\n\n");
}

#[test]
fn the_example_in_rust_prints_bare_rows() {
    let mut server = Server::new();
    let home = directory();
    let job = write(home.path(), "job.toml", changed("sql-per-batch.toml", &server));
    let out = std::fs::File::create(home.path().join("out")).expect("the folder can be written to");
    let mut example =
        Command::new(example_program("for_each_batch")).arg(job).arg("words").stdin(Stdio::null()).stdout(out).spawn();
    server.accept();
    server.send("hello world\n");
    let printed = || std::fs::read_to_string(home.path().join("out")).unwrap_or_default();
    let found = eventually(|| (printed() == "(hello)\n(world)\n").then_some(()));
    let example = example.as_mut().expect("the program starts");
    example.kill().expect("it runs");
    example.wait().expect("it has ended");
    assert!(found.is_some(), "{:?}", printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_gets_each_batch_as_a_frame_until_it_takes_it() {
    let mut server = Server::new();
    let text = format!(
        "batch = \"50ms\"\n[source.lines]\ntype = \"socket\"\nconnect = \"{}\"\n\
         [table.counts]\nsql = \"select value, count(*) as n from lines group by value\"\n",
        server.address()
    );
    let mut job = Job::parse("job.toml".as_ref(), text).expect("it is a job");
    let calls: Arc<Mutex<Vec<(u64, usize)>>> = Arc::default();
    let (stop, seen, end) = (CancellationToken::new(), Arc::clone(&calls), CancellationToken::new());
    let done = end.clone();
    job.for_each_batch("counts", Mode::Changed, move |batch, rows| {
        let (seen, done) = (Arc::clone(&seen), done.clone());
        async move {
            let frequent = rows.filter(col("n").gt(lit(1)))?.count().await?;
            let mut seen = seen.lock().expect("nobody has panicked");
            seen.push((batch.number, frequent));
            match seen.iter().filter(|(_, frequent)| *frequent > 0).count() {
                0 => Ok(()),
                1 => Err(DataFusionError::Execution("not yet".to_owned())),
                _ => {
                    done.cancel();
                    Ok(())
                }
            }
        }
    });
    let engine = Engine::new(job, false).await.expect("it can be planned");
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { engine.run(&stop).await }
    });
    tokio::task::block_in_place(|| {
        server.accept();
        server.send("a\nb\na\n");
    });
    tokio::time::timeout(crate::support::DEADLINE, end.cancelled()).await.expect("it is called again");
    stop.cancel();
    running.await.expect("it does not panic").expect("it ends well");
    let calls = calls.lock().expect("nobody has panicked");
    let frequent: Vec<&(u64, usize)> = calls.iter().filter(|(_, frequent)| *frequent > 0).collect();
    assert_eq!(frequent.len(), 2, "{calls:?}");
    assert_eq!(frequent[0], frequent[1], "the same batch comes again");
}
