//! The access log of a shop: clicks by day and product, and by day, referring host and product.

use std::process::Command;

use crate::support::{Server, TestJob, example, interop, peer};

/// The example, which reads from a socket instead of Kafka.
fn job(server: &Server) -> String {
    let kafka = "type = \"kafka\"\nservers = \"localhost:9092\"\ntopics = [\"streamingtopic\"]\nstart = \"earliest\"\n";
    let socket = format!("type = \"socket\"\nconnect = \"{}\"\n", server.address());
    example("product-clicks.toml", &[(kafka, &socket), ("batch = \"10s\"", "batch = \"100ms\"")])
}

/// Lines as the generator writes them, and some that an older one wrote, which do not fit.
const LINES: &str = "\
43.29.63.167\t2020-05-30 15:50:25\t\"GET /product/14610854.html HTTP/1.1\"\t500\thttps://www.bing.com/search?q=ps4
43.29.63.1\t2020-05-30 15:50:26\t\"GET /product/14610854.html HTTP/1.1\"\t200\thttps://www.google.com/search?sxsrf=ps4
43.29.63.2\t2020-05-30 15:50:27\t\"GET /product/14610854.html HTTP/1.1\"\t200\t-
43.29.63.3\t2020-05-30 23:59:59\t\"GET /product/14610854.html HTTP/1.1\"\t200\t-
43.29.63.4\t2020-05-31 00:00:00\t\"GET /product/13817625.html HTTP/1.1\"\t404\thttps://www.google.com/
43.29.63.5\t2020-05-31 00:00:01\t\"GET /category/samsung-phones/505988.html HTTP/1.1\"\t200\t-
43.29.63.6\t2020-05-31 00:00:02\t\"GET /search?search=games.html HTTP/1.1\"\t200\t-
43.29.63.7\t2020-05-31 00:00:03\t\"GET /product/name/13817625 HTTP/1.1\"\t200\t-
43.87.98.63\t2020-38-05/27/20 09:38:29\t\"GET \\product/nintendo-switch-console/13817625 HTTP/1.1\"\t500\thttps://www.bing.com/search?q=xbox
10.29.167.132\t2020-38-05/27/20 09:38:29\t\"GET \\search?search=games HTTP/1.1\"\t500\thttps://www.bing.com/search?q=ps4

43.29.63.8\t2020-05-31 00:00:04\t\"GET /product/1.html HTTP/1.1\"\tOK\t-
";

#[test]
fn clicks_are_counted_by_day_product_and_referring_host() {
    let mut server = Server::new();
    let job = TestJob::start(&job(&server));
    server.accept();
    server.send(LINES);
    let products = "select day, product, click_count from product_clicks";
    let expected: &[&[&str]] = &[&["20200530", "14610854", "4"], &["20200531", "13817625", "1"]];
    job.wait_for_rows("product-clicks", products, expected);
    let ids = "select id from product_clicks";
    job.wait_for_rows("product-clicks", ids, &[&["20200530_14610854"], &["20200531_13817625"]]);
    job.wait_for_rows("product-clicks", "select * from day_clicks", &[&["20200530", "4"], &["20200531", "1"]]);
    let searches = "select id, click_count from product_search_clicks";
    let hosts: &[&[&str]] = &[&["20200530www.bing.com14610854", "1"], &["20200530www.google.com14610854", "1"]];
    job.wait_for_rows("product-clicks", searches, hosts);
    job.wait_for_out("(14610854,4)\n(13817625,1)\n");
    let odd = "select reason like 'no product in /product/name/13817625', count(*) from odd group by 1";
    job.wait_for_rows("product-clicks", odd, &[&["0", "4"], &["1", "1"]]);
    server.send("1.2.3.4\t2020-05-31 12:00:00\t\"GET /product/13817625.html HTTP/1.1\"\t200\t-\n");
    let expected: &[&[&str]] = &[&["20200530", "14610854", "4"], &["20200531", "13817625", "2"]];
    job.wait_for_rows("product-clicks", products, expected);
}

#[test]
fn countries_come_from_a_database_of_addresses() {
    if !peer("npm") {
        return;
    }
    let found = Command::new(interop("country-data.sh")).output().expect("the script starts");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let mut server = Server::new();
    let job = TestJob::start(&format!(
        r#"
batch = "arrival"
checkpoint = "kept"
country-database = "{}"
[source.addresses]
type = "socket"
connect = "{}"
[table.countries]
sql = "select coalesce(country(value), 'unknown') as country, count(*) as n from addresses group by country"
[sink.kept]
type = "sqlite"
from = "countries"
table = "countries"
key = ["country"]
"#,
        String::from_utf8_lossy(&found.stdout).trim(),
        server.address()
    ));
    server.accept();
    // Of a French network operator, a German one, a private network, and no address at all.
    server.send("80.10.0.1\n80.11.0.1\n79.192.0.1\n10.0.0.1\nnobody\n");
    job.wait_for_rows("kept", "select * from countries", &[&["FR", "2"], &["DE", "1"], &["unknown", "2"]]);
}
