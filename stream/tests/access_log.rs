//! The access log of a shop: clicks by day and product, and by day, referring host and product.

use crate::support::{Server, TestJob, country_data, example, free_port};

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
    let hosts: &[&[&str]] = &[&["20200530_www.bing.com14610854", "1"], &["20200530_www.google.com14610854", "1"]];
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
    let Some(database) = country_data() else { return };
    let mut server = Server::new();
    let job = TestJob::start(&format!(
        r#"
batch = "arrival"
checkpoint = "kept"
country-database = "{database}"
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
        server.address()
    ));
    server.accept();
    // Of a French network operator, a German one, a private network, and no address at all.
    server.send("80.10.0.1\n80.11.0.1\n79.192.0.1\n10.0.0.1\nnobody\n");
    job.wait_for_rows("kept", "select * from countries", &[&["FR", "2"], &["DE", "1"], &["unknown", "2"]]);
}

#[test]
fn visitors_have_browsers_and_countries() {
    let Some(database) = country_data() else { return };
    let address = format!("127.0.0.1:{}", free_port());
    let target = format!("tcp-listen://{address}");
    let arguments = ["--user-agents", "--seed", "1", "--count", "2000", "--rate", "max", "-o", &target];
    let mut generator = TestJob::launch(&[&["generate", "access-log"], &arguments[..]].concat());
    let changes = [
        ("\"1s\"", "\"100ms\""),
        ("localhost:9999", address.as_str()),
        ("/tmp/flume-stream/visitors", "state"),
        ("/tmp/package/geo-whois-asn-country-ipv4.mmdb", &database),
    ];
    let job = TestJob::start(&example("visitors.toml", &changes));
    assert!(generator.wait().success(), "{}", generator.log());
    job.wait_for_rows("state", "select sum(visits) from agents", &[&["2000"]]);
    let browsers = "select distinct browser from agents where browser <> 'unknown'";
    job.wait_for_rows("state", browsers, &[&["Chrome"], &["Firefox"], &["Googlebot"], &["HTTP Library"], &["Safari"]]);
    let devices = "select distinct device from agents where system like 'Windows%' or browser = 'Googlebot'";
    job.wait_for_rows("state", devices, &[&["crawler"], &["pc"]]);
    job.wait_for_rows("state", "select sum(visits) from countries", &[&["2000"]]);
    // Private addresses are of no country, and most others are of the United States.
    let most = "select country from countries order by visits desc limit 1";
    job.wait_for_rows("state", most, &[&["US"]]);
    job.wait_for_rows("state", "select visits > 0 from countries where country = 'unknown'", &[&["1"]]);
}
