//! Examples as users run them, whose sources are servers of lines, folders and topics.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::{
    Kafka, Server, TestJob, directory, eventually, example, example_program, files, free_port, stdout, write,
};

#[test]
fn a_source_in_rust_counts_each_line_once_over_two_connections() {
    let mut server = Server::new();
    let home = directory();
    let out = fs::File::create(home.path().join("out")).expect("the folder can be written to");
    let mut program = Command::new(example_program("own_source"));
    let program = program.arg(server.address()).stdin(Stdio::null()).stdout(out).spawn();
    server.accept();
    server.send("hello world\nhello\n");
    server.close();
    server.accept();
    server.send("hello\nbye\n");
    let printed = || fs::read_to_string(home.path().join("out")).unwrap_or_default();
    let found = eventually(|| printed().contains("\n(hello,3)\n(bye,1)\n(world,1)\n").then_some(()));
    let mut program = program.expect("the program starts");
    program.kill().expect("it runs");
    program.wait().expect("it has ended");
    assert!(found.is_some(), "{:?}", printed());
}

#[test]
fn words_of_a_socket_are_counted_by_batch() {
    let mut server = Server::new();
    let changes = [("\"5s\"", "\"50ms\""), ("localhost:9999", &server.address())];
    let job = TestJob::start(&example("word-count-socket.toml", &changes));
    server.accept();
    server.send("hello  world\nhello\n");
    job.wait_for_out("---\n(hello,2)\n(world,1)\n\n");
    server.send("hello\n");
    job.wait_for_out("---\n(hello,1)\n\n");
}

#[test]
fn a_stateful_count_goes_on() {
    let mut server = Server::new();
    let text = example("stateful-count.toml", &[("\"5s\"", "\"50ms\""), ("localhost:9999", &server.address())]);
    let job = TestJob::start(&text);
    server.accept();
    server.send("a a b\n");
    job.wait_for_out("(a,2)\n(b,1)\n\n");
    job.wait_for_commit();
    let job = job.kill_and_restart(&text);
    server.accept();
    server.send("b c\n");
    job.wait_for_out("(a,2)\n(b,2)\n(c,1)\n\n");
}

#[test]
fn windows_of_the_examples_fill_and_empty() {
    let mut server = Server::new();
    let address = server.address();
    let changes = [("\"20s\"", "\"400ms\""), ("\"10s\"", "\"200ms\""), ("localhost:9999", &address)];
    let job = TestJob::start(&example("windowed-count.toml", &changes));
    server.accept();
    server.send("a a b\n");
    job.wait_for_out("---\n(a,2)\n(b,1)\n\n");
    let is_empty = || job.out().ends_with("---\n\n").then_some(());
    assert!(eventually(is_empty).is_some(), "{}", job.out());
    drop(job);

    let mut server = Server::new();
    let address = server.address();
    let changes =
        [("\"30s\"", "\"600ms\""), ("\"10s\"", "\"200ms\""), ("\"5s\"", "\"100ms\""), ("localhost:9999", &address)];
    let job = TestJob::start(&example("windowed-merge.toml", &changes));
    server.accept();
    server.send("a a b\n");
    for shown in ["---\n(a,2)\n(b,1)\n\n", "---\n(1,5)\n\n", "---\n(a a b,1)\n\n", "---\na a b\n\n"] {
        job.wait_for_out(shown);
    }
}

#[test]
fn minutes_by_the_clicks_own_time_are_closed() {
    let mut server = Server::new();
    let changes = [("batch = \"1s\"", "batch = \"50ms\""), ("localhost:9999", &server.address())];
    let job = TestJob::start(&example("event-time.toml", &changes));
    server.accept();
    server.send("2024-05-30 12:00:05,/cart\n2024-05-30 12:01:31,/cart\n");
    job.wait_for_out("(/cart,2024-05-30T12:00:00,2024-05-30T12:01:00,1)\n");
    server.send("2024-05-30 12:00:07,/late\n");
    job.wait_for_rows("checkpoints/event-time", "select page from late_clicks", &[&["/late"]]);
}

/// Seven orders, and two lines that are none.
const ORDERS: &str = "\
2016-03-22 20:25:28,1,80,EPE,710,51.00,B
2016-03-22 20:25:28,2,70,NFLX,158,8.00,B
2016-03-22 20:25:28,3,53,VALE,284,5.00,B
2016-03-22 20:25:28,4,14,SRPT,183,34.00,B
this is no order
2016-03-22 20:25:28,5,62,BP,241,36.00,S
2016-03-22 20:25:28,6,52,MNKD,296,28.00,S
2016-03-22 12:25:28,7,70,NFLX,100,99.50,S
2016-03-22 20:25:28,8,9,AU,1,1.00,X
";

/// What is in all files whose names begin so, in the order of their batches.
fn batches(folder: &Path, prefix: &str) -> Vec<String> {
    let name = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let found = files(folder).into_iter().filter(|path| name(path));
    found.map(|path| fs::read_to_string(path).expect("it can be read")).collect()
}

#[test]
fn buys_sells_and_top_clients_are_in_files() {
    let home = Arc::new(directory());
    let folder = home.path().join("orders");
    fs::create_dir(&folder).expect("a folder");
    let text = example(
        "orders.toml",
        &[
            ("\"/tmp/orders\"", "\"orders\""),
            ("/tmp/orders-out", "out"),
            ("/tmp/flume-stream/orders", "state"),
            ("\"latest\"", "\"earliest\""),
        ],
    );
    let run = || {
        let mut job = TestJob::start_in(Arc::clone(&home), &text, &["--once"]);
        assert!(job.wait().success(), "{}", job.log());
        job.out()
    };
    write(&folder, "part-1", ORDERS);
    let out = run();
    assert!(out.contains(": this is no order\n") && out.contains("neither B nor S: 8\n"), "{out}");
    let results = home.path().join("out");
    assert_eq!(batches(&results, "output-"), ["(false,3)\n(true,4)\n"]);
    let metrics = |prefix| {
        let mut last: Vec<String> = batches(&results, prefix).pop().expect("one").lines().map(str::to_owned).collect();
        last.sort();
        last
    };
    let expected = ["(BUYS,List(4))", "(SELLS,List(3))", "(TOP5CLIENTS,List(80, 70, 62, 52, 14))"];
    assert_eq!(metrics("metrics-"), expected);
    write(&folder, "part-2", "2016-03-22 20:25:29,10,53,VALE,1000,100.00,B\n");
    run();
    assert_eq!(batches(&results, "output-"), ["(false,3)\n(true,4)\n", "(true,1)\n"]);
    assert_eq!(metrics("metrics-"), ["(BUYS,List(1))", "(TOP5CLIENTS,List(53, 80, 70, 62, 52))"]);
}

#[test]
fn metrics_of_orders_go_from_topic_to_topic() {
    let Some(kafka) = Kafka::shared() else { return };
    let (from, to) = (kafka.topic(1, &[]), kafka.topic(1, &[]));
    let text = example(
        "orders-kafka.toml",
        &[
            ("localhost:9092", kafka.servers()),
            ("topics = \"orders\"", &format!("topics = \"{from}\"\nstart = \"earliest\"")),
            ("topic = \"metrics\"", &format!("topic = \"{to}\"")),
            ("/tmp/flume-stream/orders-kafka", "state"),
            ("\"5s\"", "\"200ms\""),
            ("\"1h\"", "\"3s\""),
        ],
    );
    kafka.produce(&from, None, ORDERS.lines());
    let shown = "[sink.screen]\ntype = \"print\"\nfrom = \"metrics\"\n";
    let mut job = TestJob::start(&format!("{text}\n{shown}"));
    // The hour, here of three seconds, ends, and the clients stay.
    let is_over = || {
        let out = job.out();
        let (_, after) = out.split_once("(TOP5STOCKS,EPE, MNKD, VALE, NFLX, BP)\n")?;
        after.contains("(TOP5STOCKS,)\n").then_some(())
    };
    assert!(eventually(is_over).is_some(), "{}\n{}", job.out(), job.log());
    assert!(job.terminate().success());
    let rows = || job.out().lines().filter(|line| line.starts_with('(')).count();
    let messages = kafka.read(&to, rows());
    let equal = eventually(|| (rows() == messages.len()).then_some(()));
    assert!(equal.is_some(), "each row is a message: {}\n{messages:?}", job.out());
    let of = |key: &str| -> Vec<String> {
        let of_key = messages.iter().filter(|message| message.key.as_deref() == Some(key));
        of_key.map(|message| message.text()).collect()
    };
    assert_eq!(of("BUYS"), ["BUYS, List(4)"], "{}", job.log());
    assert_eq!(of("SELLS"), ["SELLS, List(3)"]);
    assert!(of("TOP5CLIENTS").ends_with(&["TOP5CLIENTS, List(80, 70, 62, 52, 14)".to_owned()]), "{messages:?}");
    let stocks = of("TOP5STOCKS");
    assert!(stocks.contains(&"TOP5STOCKS, List(EPE, MNKD, VALE, NFLX, BP)".to_owned()), "{stocks:?}");
    assert!(stocks.ends_with(&["TOP5STOCKS, List()".to_owned()]), "{stocks:?}");
}

/// The example, and tables of what it prints.
fn reviews(address: &str) -> String {
    let faster = [
        ("\"20s\"", "\"400ms\""),
        ("\"10s\"", "\"200ms\""),
        ("localhost:9999", address),
        ("/tmp/flume-stream/reviews", "state"),
    ];
    let kept = |name: &str, from: &str, key: &str| {
        format!("[sink.{name}]\ntype = \"sqlite\"\nfrom = \"{from}\"\ntable = \"{name}\"\n{key}\n")
    };
    [
        example("reviews.toml", &faster),
        kept("batches_kept", "batch", ""),
        kept("total_kept", "total", "key = [\"word\"]"),
        kept("windows_kept", "recent", ""),
        kept("now_kept", "recent", "key = [\"word\"]\nmode = \"all\""),
    ]
    .concat()
}

#[test]
fn words_of_reviews_are_counted_by_batch_for_ever_and_in_windows() {
    let mut server = Server::new();
    let job = TestJob::start(&reviews(&server.address()));
    server.accept();
    server.send(
        "{\"reviewText\": \"Great,\\tgreat\\nsound\", \"overall\": 5.0}\n{\"reviewText\": \"great\"}\nno review\n",
    );
    let batches = "select word, n from batches_kept";
    job.wait_for_rows("state", batches, &[&["Great,", "1"], &["great", "2"], &["sound", "1"]]);
    job.wait_for_out(": no review\n");
    server.send("{\"reviewText\": \"great\"}\n");
    job.wait_for_rows("state", batches, &[&["Great,", "1"], &["great", "2"], &["sound", "1"], &["great", "1"]]);
    job.wait_for_rows("state", "select * from total_kept", &[&["Great,", "1"], &["great", "3"], &["sound", "1"]]);
    job.wait_for_rows(
        "state",
        "select min(n) > 0, max(n) in (2, 3) from windows_kept where word = 'great'",
        &[&["1", "1"]],
    );
    job.wait_for_rows("state", "select * from now_kept", &[]);
    job.wait_for_out("---\n(great,3)\n(Great,,1)\n(sound,1)\n\n");
}

#[test]
fn reviews_of_the_generator_are_all_counted() {
    let arguments = ["generate", "reviews", "--seed", "1", "--count", "300", "--rate", "max"];
    let lines = stdout(&TestJob::command(&arguments));
    let words = lines.lines().map(|line| {
        let review: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        review["reviewText"].as_str().expect("it has a text").split_whitespace().count()
    });
    let words = words.sum::<usize>().to_string();
    let address = format!("127.0.0.1:{}", free_port());
    let mut generator = TestJob::launch(&[&arguments[..], &["-o", &format!("tcp-listen://{address}")]].concat());
    let job = TestJob::start(&reviews(&address));
    assert!(generator.wait().success(), "{}", generator.log());
    job.wait_for_rows("state", "select sum(n) from total_kept", &[&[&words]]);
    job.wait_for_rows("state", "select sum(n) from batches_kept", &[&[&words]]);
}

#[test]
fn rows_of_two_sources_are_put_together_and_joined() {
    let (mut orders, mut payments) = (Server::new(), Server::new());
    let changes =
        [("\"5s\"", "\"300ms\""), ("localhost:6789", &orders.address()), ("localhost:6790", &payments.address())];
    let job = TestJob::start(&example("two-streams.toml", &changes));
    orders.accept();
    payments.accept();
    // What is sent at the same time is seldom in two batches.
    let apart = (1..=10).map_while(|id| {
        orders.send(&format!("{id},book\n"));
        payments.send(&format!("{id},12.50\n"));
        job.wait_for_out(&format!("\n(order,{id})\n"));
        job.wait_for_out(&format!("(payment,{id})\n"));
        job.wait_for_out(&format!("({id},book,"));
        (!job.out().contains(&format!("({id},book,12.50)\n"))).then_some(())
    });
    assert!(apart.count() < 10, "{}", job.out());
    orders.send("100,pen\n");
    job.wait_for_out("\n(order,100)\n\n");
    job.wait_for_out("\n(100,pen,null)\n\n");
}
