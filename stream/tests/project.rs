//! The access log of a shop, all the way: a log that grows, an agent that follows it, a topic, a job, and HBase.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{
    Kafka, Launch, RealServer, TestJob, directory, eventually, example, example_folder, java_peers, stderr,
};

type Counts = BTreeMap<String, i64>;

/// Lines that nobody would write today: those of an older generator, and some that are no clicks.
const ODD: &str = "\
43.87.98.63\t2020-38-05/27/20 09:38:29\t\"GET \\product/nintendo-switch-console-with-neon-red-blue-joy-con/13817625 HTTP/1.1\"\t500\thttps://www.bing.com/search?q=xbox
10.29.167.132\t2020-38-05/27/20 09:38:29\t\"GET \\search?search=games HTTP/1.1\"\t500\thttps://www.bing.com/search?q=ps4
29.43.167.43\t2020-38-05/27/20 09:38:29\t\"GET \\product/playstation-4-pro-1tb-console/12910052 HTTP/1.1\"\t404\t-

43.29.63.1\t2020-05-31 00:00:00\t\"GET /product/13817625.html HTTP/1.1\"\t404\t-
43.29.63.2\t2020-05-31 00:00:01\t\"GET /product/name/13817625 HTTP/1.1\"\t200\t-
43.29.63.3\t2020-05-31 00:00:02\t\"GET /product/13817625.html HTTP/1.1\"\t200\thttps://www.google.com
43.29.63.4\t2020-05-31 00:00:03\t\"GET /product/13817625.html HTTP/1.1\"\tOK\t-
43.29.63.5\t2020-05-31 00:00:04\t\"GET /product/14610854.html HTTP/1.1\"
";

/// What there is to count in a log: clicks by day and product, and by day, referring host and product.
fn clicks(log: &str) -> [Counts; 2] {
    let (mut products, mut searches) = (Counts::new(), Counts::new());
    for line in log.lines() {
        let [_, time, request, status, referer] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        let product = request.split(' ').nth(1).and_then(|url| url.strip_prefix("/product/")?.strip_suffix(".html"));
        let (Some(product), 19, Ok(_)) = (product, time.len(), status.parse::<u16>()) else { continue };
        let day = time[..10].replace('-', "");
        *products.entry(format!("{day}_{product}")).or_default() += 1;
        let referer = referer.replace("//", "/");
        if let [_, host, page, ..] = referer.split('/').collect::<Vec<_>>()[..]
            && !page.is_empty()
        {
            *searches.entry(format!("{day}_{host}{product}")).or_default() += 1;
        }
    }
    [products, searches]
}

/// The counters in a table of HBase.
fn counters(hbase: &RealServer, table: &str) -> Option<Counts> {
    let answer = hbase.try_command(&["get", table, "*"])?;
    let answer: serde_json::Value = serde_json::from_str(&answer).ok()?;
    let text = |value: &serde_json::Value| STANDARD.decode(value.as_str().expect("text")).expect("it is base64");
    let counters = answer["Row"].as_array()?.iter().map(|row| {
        let cells = row["Cell"].as_array().expect("a row has cells");
        assert_eq!(cells.len(), 1, "{row}");
        assert_eq!(text(&cells[0]["column"]), b"info:click_count");
        let count = text(&cells[0]["$"]).try_into().expect("a count has eight bytes");
        (String::from_utf8(text(&row["key"])).expect("it is text"), i64::from_be_bytes(count))
    });
    Some(counters.collect())
}

fn generate(log: &Path, seed: &str, count: &str) {
    let arguments = ["generate", "access-log", "--rate", "max", "--seed", seed, "--count", count, "-o"];
    let output = TestJob::command(&[&arguments[..], &[&log.display().to_string()]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn clicks_get_from_the_log_into_hbase() {
    let Some(kafka) = Kafka::shared() else { return };
    let Some(_turn) = java_peers(&[]) else { return };
    let hbase = RealServer::hbase();
    for table in ["product_clickcount", "product_search_clickcount"] {
        hbase.command(&["create", table, "info"]);
    }
    let (home, topic) = (directory(), kafka.topic(1, &[]));
    let log = home.path().join("access.log");
    generate(&log, "1", "3000");
    let conf = example_folder().join("log_memory_kafka.conf");
    let agent = Launch::new().args(["--conf-file".as_ref(), conf.as_os_str()]);
    let agent = agent.env("ACCESS_LOG", log.as_os_str()).env("KAFKA", kafka.servers());
    let agent = agent.config(&format!("a1.sinks.k1.kafka.topic = {topic}\n"));

    let changes = [("localhost:9092", kafka.servers()), ("\"10s\"", "\"200ms\""), ("streamingtopic", &topic)];
    let gateway = format!("http://127.0.0.1:{}", hbase.port);
    let counted = [&changes[..], &[("http://localhost:8080", &gateway)]].concat();
    let text = format!("max-rows = 500\n{}", example("product-clicks-hbase.toml", &counted));
    let job = TestJob::start(&text);
    let from_start = [&changes[..], &[("type = \"kafka\"", "type = \"kafka\"\nstart = \"earliest\"")]].concat();
    let other = TestJob::start(&example("access-log.toml", &from_start));

    let wait_for = |job: &TestJob| {
        let expected = clicks(&fs::read_to_string(&log).expect("it is there"));
        let tables = ["product_clickcount", "product_search_clickcount"];
        for (table, expected) in tables.into_iter().zip(expected) {
            let is_there = || (counters(&hbase, table).as_ref() == Some(&expected)).then_some(());
            let found = eventually(is_there).is_some();
            assert!(found, "{table}: {:?}, not {expected:?}\n{}\n{}", counters(&hbase, table), job.log(), agent.log());
            let rows: Vec<[String; 2]> = expected.iter().map(|(id, count)| [id.clone(), count.to_string()]).collect();
            let rows: Vec<[&str; 2]> = rows.iter().map(|[id, count]| [id.as_str(), count.as_str()]).collect();
            let rows: Vec<&[&str]> = rows.iter().map(<[&str; 2]>::as_slice).collect();
            let counts = format!("select id, click_count from {table}");
            job.wait_for_rows("product-clicks-hbase", &counts, &rows);
        }
    };
    wait_for(&job);
    // The log goes on, and the job is killed meanwhile.
    generate(&log, "2", "2000");
    let mut end = fs::File::options().append(true).open(&log).expect("it is there");
    end.write_all(ODD.as_bytes()).expect("there is room");
    let job = (0..3).fold(job, |job, _| {
        std::thread::sleep(std::time::Duration::from_millis(fastrand::u64(100..600)));
        job.kill_and_restart(&text)
    });
    wait_for(&job);

    let lines = fs::read_to_string(&log).expect("it is there").lines().count();
    let counted = || other.out().lines().filter_map(|line| line.parse::<usize>().ok()).sum::<usize>();
    // Those that do not fit are no rows: three without a time, one without a field, one without fields, one without a
    // status.
    let all = eventually(|| (counted() == lines - 6).then_some(()));
    assert!(all.is_some(), "{} of {lines}\n{}", counted(), other.log());
    let first = fs::read_to_string(&log).expect("it is there");
    let first = first.lines().find(|line| line.contains("\"GET /product/")).expect("there is a click");
    let [ip, time, request, status, referer] = first.split('\t').collect::<Vec<_>>()[..] else { panic!("{first}") };
    let digits: String = time.chars().filter(char::is_ascii_digit).collect();
    let product: String = request.chars().filter(|c| c.is_ascii_digit()).take(8).collect();
    other.wait_for_out(&format!("\nClickLog({ip},{digits},{product},{status},{referer})\n"));
}
