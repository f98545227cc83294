//! Lines of a web server's access log: IP, time, request, status and referer between tabs.

use fastrand::Rng;

use super::{Maker, Moment, one_of};

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Site {
    /// A shop with products: `/product/14610854.html`
    Shop,
    /// A school with classes: `/class/112.html`, and search words with blanks and in Chinese
    Class,
}

/// What a site's lines are made of.
struct Parts {
    ip: &'static [&'static str],
    urls: &'static [&'static str],
    searches: &'static [&'static str],
    words: &'static [&'static str],
    /// How many visitors come from a search, of a hundred.
    from_search: u8,
}

const SHOP: Parts = Parts {
    ip: &["43", "167", "43", "132", "232", "124", "10", "29", "143", "30", "46", "55", "63", "72", "87", "98"],
    urls: &[
        "product/13817625.html",
        "product/12910052.html",
        "product/14056023.html",
        "product/14610854.html",
        "product/14056024.html",
        "product/13817626.html",
        "category/samsung-phones/505988.html",
        "services/geek-squad-services/bltb5f906bfb57d7744.html",
        "search?search=games.html",
    ],
    searches: &["https://www.bing.com/search?q=", "https://www.google.com/search?sxsrf="],
    words: &["bestbuy", "videogame", "ps4", "xbox", "switch"],
    from_search: 20,
};

const CLASS: Parts = Parts {
    ip: &["1", "6", "9", "23", "32", "34", "45", "54", "67", "76", "82", "88", "123"],
    urls: &[
        "class/112.html",
        "class/128.html",
        "class/130.html",
        "class/131.html",
        "class/141.html",
        "class/145.html",
        "class/146.html",
        "learn/821",
        "course/list",
    ],
    searches: &[
        "http://www.baidu.com/s?wd=",
        "https://www.sogou.com/web?query=",
        "http://www.sogou.com/web?query=",
        "http://cn.bing.com/search?q=",
        "https://search.yahoo.com/search?p=",
    ],
    words: &["Spark SQL实战", "Hadoop基础", "Storm实战", "Spark Streaming实战", "大数据面试", "hadoop"],
    from_search: 20,
};

const STATUSES: &[&str] = &["200", "404", "500"];

const USER_AGENTS: &[&str] = &[
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "curl/8.8.0",
];

/// A site's visitors.
#[derive(Debug)]
pub struct AccessLog {
    site: Site,
    user_agents: bool,
}

impl AccessLog {
    /// The log of a site; with a sixth field if it is to have user agents.
    pub fn new(site: Site, user_agents: bool) -> Self {
        Self { site, user_agents }
    }
}

impl Maker for AccessLog {
    fn line(&mut self, rng: &mut Rng, moment: &Moment, out: &mut Vec<u8>) {
        let parts = match self.site {
            Site::Shop => &SHOP,
            Site::Class => &CLASS,
        };
        // Four places of the list, none twice.
        let mut places = [0; 4];
        for index in 0..4 {
            places[index] = loop {
                let place = rng.usize(..parts.ip.len());
                if !places[..index].contains(&place) {
                    break place;
                }
            };
        }
        for (index, place) in places.into_iter().enumerate() {
            if index > 0 {
                out.push(b'.');
            }
            out.extend_from_slice(parts.ip[place].as_bytes());
        }
        let mut text = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        text(&["\t", &moment.text, "\t\"GET /", one_of(rng, parts.urls), " HTTP/1.1\"\t", one_of(rng, STATUSES), "\t"]);
        if rng.u8(..100) < parts.from_search {
            text(&[one_of(rng, parts.searches), one_of(rng, parts.words)]);
        } else {
            text(&["-"]);
        }
        if self.user_agents {
            text(&["\t", one_of(rng, USER_AGENTS)]);
        }
    }
}
