//! Orders of a stock exchange: time, number, client, stock, shares, price, and `B` for buy or `S` for sell, between
//! commas.

use std::io::Write as _;

use fastrand::Rng;

use super::{Maker, Moment, one_of};

const STOCKS: &[&str] = &[
    "EPE", "NFLX", "VALE", "SRPT", "BP", "MNKD", "FB", "NEM", "PHG", "CTRE", "AU", "SDLP", "Z", "EGO", "ITUB", "ABEV",
    "AEG", "AEO", "AGNC", "ALU", "AMD", "ARNA", "ATML", "BAC", "BBD", "BBRY", "CHK", "CLF", "CNX", "COP", "CSCO", "CX",
    "DAL", "EBAY", "EMC", "ENDP", "F", "FCX", "FOX", "FTR", "GE", "GFI", "GGB", "GM", "GOLD", "HBAN", "HPE", "HPQ",
    "INTC", "JCP", "JPM", "KGC", "KMI", "KO", "LVS", "MRO", "MS", "MSFT", "MU", "NOK", "NRF", "ORCL", "PBR", "PFE",
    "QCOM", "RAD", "RF", "S", "SAN", "SBUX", "SIRI", "SWN", "T", "TWTR", "VRX", "VZ", "WFC", "WLL", "XOM", "YHOO",
];

/// Orders, numbered from 1.
#[derive(Debug, Default)]
pub struct Orders {
    last: u64,
}

impl Maker for Orders {
    fn line(&mut self, rng: &mut Rng, moment: &Moment, out: &mut Vec<u8>) {
        self.last += 1;
        let (time, id, client) = (&moment.text, self.last, rng.u8(1..=100));
        let (stock, shares, price) = (one_of(rng, STOCKS), rng.u16(1..=1000), rng.u16(100..=10_000));
        let kind = if rng.bool() { 'B' } else { 'S' };
        let (whole, cents) = (price / 100, price % 100);
        write!(out, "{time},{id},{client},{stock},{shares},{whole}.{cents:02},{kind}")
            .expect("memory takes everything");
    }
}
