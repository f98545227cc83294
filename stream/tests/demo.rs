//! The demonstration, from the made-up log to the page.

use serde_json::Value;

use crate::support::{Kafka, TestJob, eventually, files, http};

/// Waits until visits are shown, ends it, and sees that nothing stays behind.
fn visits_are_shown(way: &[&str]) {
    let mut demo = TestJob::launch(&[&["demo", "--ui", "127.0.0.1:0", "--rate", "500"], way].concat());
    let page = demo.wait_for_log("page: http://127.0.0.1:");
    let port = page.trim_end_matches('/').parse().expect("the log says the port");
    demo.wait_for_out(" shows what is counted; Ctrl-C ends");
    let counted = |chart: &Value| {
        let rows = chart["rows"].as_array()?;
        rows.iter().map(|row| row[1].as_f64()).sum::<Option<f64>>()
    };
    let shown = eventually(|| {
        let charts: Value = serde_json::from_str(&http(port, "GET", "/api/charts").body).ok()?;
        let products = &charts[0];
        (products["name"] == "products" && products["rows"].as_array()?.len() == 6 && counted(products)? >= 300.0)
            .then_some(charts)
    });
    let charts = shown.unwrap_or_else(|| panic!("no visits come:\n{}", demo.log()));
    assert!(charts[1]["points"].as_array().is_some_and(|points| !points.is_empty()), "{charts}");
    let job: Value = serde_json::from_str(&http(port, "GET", "/api/job").body).expect("it is JSON");
    assert_eq!(job["totals"]["rejects"], 0, "{job}");
    assert!(!files(demo.home()).is_empty(), "its files are in the folder for temporary ones");
    assert!(demo.terminate().success(), "{}", demo.log());
    assert!(files(demo.home()).is_empty(), "{:?}", files(demo.home()));
}

#[test]
fn one_command_shows_visits_and_leaves_nothing_behind() {
    visits_are_shown(&[]);
}

#[test]
fn the_way_may_lead_through_a_kafka() {
    let Some(kafka) = Kafka::shared() else { return };
    visits_are_shown(&["--kafka", kafka.servers(), "--topic", &kafka.topic(2, &[])]);
}
