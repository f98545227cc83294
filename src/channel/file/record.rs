//! Records: what a segment is made of.
//!
//! All numbers are little-endian; a varint has seven bits a byte, the lowest first. A record is a header of 32 bytes
//! and a payload:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 4 | `F1 75 6D 65` |
//! | 4 | 1 | version: 1, or 2 where the payload begins with [notes] |
//! | 5 | 1 | kind: 1 a put, 2 done, 3 a key |
//! | 6 | 1 | 1 when the payload is encrypted, else 0 |
//! | 7 | 1 | 0 |
//! | 8 | 4 | length of the payload |
//! | 12 | 4 | events |
//! | 16 | 8 | sequence number of the first event |
//! | 24 | 4 | CRC-32 of the payload |
//! | 28 | 4 | CRC-32 of the segment's number and the record's offset in it (8 bytes each), then bytes 0 to 27 |
//!
//! The second checksum makes a header valid in its place only: after damage, the next record is found by looking for
//! one, and a body that holds a copy of a record is not taken for one.
//!
//! A put is one transaction: a varint of the number of sets of headers; each set as a varint of its pairs and for each
//! pair key and value, a varint of the length before either; for each event a varint, 0 without headers or else the
//! number of its set from 1, and a varint of the length of its body; then all bodies. It counts once it is durable.
//!
//! Done says which events must not be delivered (again): they were, or their put was given up. Its payload is pairs of
//! sequence numbers, 8 bytes each, the first of a range and the one behind its last. Its own number is 0.
//!
//! A key says how the puts of its segment are encrypted ([`Seal`]). The checksum of a payload is that of the encrypted one.
//!
//! The notes of a put say how far its source has come with it; they are not encrypted. Those of a record of what is done
//! take notes back whose puts were given up, or repeat what was noted before the segment.

use bytes::{Buf as _, Bytes};
use smol_str::SmolStr;

use super::encryption::Seal;
use super::notes;
use crate::channel::Note;
use crate::event::{Batch, Headers, NO_HEADERS};

/// Bytes of a record's header.
pub const HEADER: usize = 32;
/// How a record begins.
pub const MAGIC: [u8; 4] = [0xF1, 0x75, 0x6D, 0x65];
/// The most bytes of a payload. A batch with more is refused.
pub const MAX_PAYLOAD: usize = 1 << 30;

const VERSION: u8 = 1;
const VERSION_WITH_NOTES: u8 = 2;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Events came in.
    Put = 1,
    /// Events are done with.
    Done = 2,
    /// What the segment is encrypted with.
    Key = 3,
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it says.
    pub kind: Kind,
    /// Whether the payload is encrypted.
    pub encrypted: bool,
    /// Whether the payload begins with notes.
    pub noted: bool,
    /// Bytes behind the header.
    pub payload: usize,
    /// Events in it.
    pub events: u32,
    /// The first event's number.
    pub first: u64,
    payload_crc: u32,
}

fn place_crc(segment: u64, offset: u64, header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(header);
    hasher.finalize()
}

impl Header {
    /// Reads the header at this place; `None` when there is none.
    pub fn parse(bytes: &[u8], segment: u64, offset: u64) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        if bytes[..4] != MAGIC || place_crc(segment, offset, &bytes[..28]).to_le_bytes() != bytes[28..] {
            return None;
        }
        let mut fields = &bytes[4..];
        let version = fields.get_u8();
        let kind = match fields.get_u8() {
            1 => Kind::Put,
            2 => Kind::Done,
            3 => Kind::Key,
            _ => return None,
        };
        let encrypted = fields.get_u16_le() == 1;
        let payload = fields.get_u32_le() as usize;
        let (events, first, payload_crc) = (fields.get_u32_le(), fields.get_u64_le(), fields.get_u32_le());
        let noted = version == VERSION_WITH_NOTES;
        let valid = (version == VERSION || noted) && payload <= MAX_PAYLOAD;
        let valid = valid && first.checked_add(events.into()).is_some();
        valid.then_some(Self { kind, encrypted, noted, payload, events, first, payload_crc })
    }

    /// The whole record's length.
    pub fn len(&self) -> u64 {
        (HEADER + self.payload) as u64
    }

    /// The number behind the last event.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.events)
    }

    /// Whether this is the payload.
    pub fn fits(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload && crc32fast::hash(payload) == self.payload_crc
    }

    /// Takes the notes off the payload; `None` when they are none.
    pub fn take_notes(&self, payload: &mut Bytes) -> Option<Vec<Note>> {
        if self.noted { notes::decode(payload) } else { Some(Vec::new()) }
    }
}

/// A record that has its payload and gets its place when it is written.
#[derive(Clone, Debug)]
pub struct Draft {
    bytes: Vec<u8>,
    kind: Kind,
    events: u32,
    /// Where the payload's notes end.
    notes_end: usize,
    payload_crc: u32,
}

impl Draft {
    fn new(bytes: Vec<u8>, notes_end: usize, kind: Kind, events: usize) -> Self {
        let payload_crc = crc32fast::hash(&bytes[HEADER..]);
        Self { bytes, kind, events: events as u32, notes_end, payload_crc }
    }

    /// A header to be filled in, and notes; where they end.
    fn begin(mut bytes: Vec<u8>, notes: &[Note]) -> (Vec<u8>, usize) {
        bytes.resize(HEADER, 0);
        if !notes.is_empty() {
            notes::encode(notes, &mut bytes);
        }
        let end = bytes.len();
        (bytes, end)
    }

    /// The most bytes that a put of a batch with so many notes takes; `None` when it is too large for a record.
    pub fn most(batch: &Batch, notes: usize) -> Option<usize> {
        let sets = batch.header_sets();
        let headers: usize = sets.iter().flat_map(Headers::iter).map(|(key, value)| key.len() + value.len() + 6).sum();
        let notes = notes::encoded_len(notes);
        let estimate = HEADER + notes + batch.body_bytes() + 6 * batch.len() + headers + 2 * sets.len() + 5;
        (estimate <= MAX_PAYLOAD).then_some(estimate)
    }

    /// A put of a batch; `None` when it is too large for a record.
    pub fn put(batch: &Batch) -> Option<Self> {
        Self::most(batch, 0).map(|most| Self::put_within(batch, &[], most))
    }

    /// A put of a batch with notes that takes no more bytes than these.
    pub fn put_within(batch: &Batch, notes: &[Note], most: usize) -> Self {
        let sets = batch.header_sets();
        let (mut bytes, notes_end) = Self::begin(Vec::with_capacity(most), notes);
        put_varint(&mut bytes, sets.len());
        for set in sets {
            put_varint(&mut bytes, set.len());
            for text in set.iter().flat_map(|(key, value)| [key, value]) {
                put_varint(&mut bytes, text.len());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        for event in batch.iter() {
            put_varint(&mut bytes, event.header_set().map_or(0, |set| set + 1));
            put_varint(&mut bytes, event.body().len());
        }
        for event in batch.iter() {
            bytes.extend_from_slice(event.body());
        }
        Self::new(bytes, notes_end, Kind::Put, batch.len())
    }

    /// A record of ranges that are done, and of notes.
    pub fn done(ranges: impl IntoIterator<Item = (u64, u64)>, notes: &[Note]) -> Self {
        let (mut bytes, notes_end) = Self::begin(Vec::new(), notes);
        for (from, to) in ranges {
            bytes.extend_from_slice(&from.to_le_bytes());
            bytes.extend_from_slice(&to.to_le_bytes());
        }
        Self::new(bytes, notes_end, Kind::Done, 0)
    }

    /// A record that says nothing and takes so many bytes, to stand in the place of damage.
    pub fn blank(len: usize) -> Self {
        Self::new(vec![0; len.max(HEADER)], HEADER, Kind::Done, 0)
    }

    /// A record of the kind key.
    pub fn key(payload: &[u8]) -> Self {
        Self::new([&[0; HEADER], payload].concat(), HEADER, Kind::Key, 0)
    }

    /// A record that was written before, to be written elsewhere without its notes.
    pub fn again(header: &Header, payload: &[u8]) -> Self {
        Self::new([&[0; HEADER], payload].concat(), HEADER, header.kind, header.events as usize)
    }

    /// The whole record's length.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// How many events it puts.
    pub fn events(&self) -> u32 {
        self.events
    }

    /// Gives it its number and place and encrypts a put; returns the record's bytes.
    pub fn seal(&mut self, first: u64, segment: u64, offset: u64, seal: Option<&Seal>) -> &[u8] {
        let payload = (self.bytes.len() - HEADER) as u32;
        let seal = seal.filter(|_| self.kind == Kind::Put);
        if let Some(seal) = seal {
            seal.apply(offset, &mut self.bytes[self.notes_end..]);
            self.payload_crc = crc32fast::hash(&self.bytes[HEADER..]);
        }
        let version = if self.notes_end > HEADER { VERSION_WITH_NOTES } else { VERSION };
        let header = &mut self.bytes[..HEADER];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&[version, self.kind as u8, u8::from(seal.is_some()), 0]);
        header[8..12].copy_from_slice(&payload.to_le_bytes());
        header[12..16].copy_from_slice(&self.events.to_le_bytes());
        header[16..24].copy_from_slice(&first.to_le_bytes());
        header[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = place_crc(segment, offset, &header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads from the front of a payload.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Option<usize> {
        let mut number = 0u64;
        for shift in (0..35).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(number).ok();
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.varint()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

/// The events of a put; their bodies share the payload. `None` when the payload is none of a put.
pub fn decode_put(header: &Header, payload: Bytes) -> Option<Batch> {
    let mut reader = Reader(&payload);
    let mut batch = Batch::new();
    let mut sets = Vec::new();
    for _ in 0..reader.varint()? {
        let mut set = Headers::new();
        for _ in 0..reader.varint()? {
            let key = SmolStr::new(reader.text()?);
            set.set(key, reader.text()?);
        }
        sets.push(batch.push_headers(set));
    }
    let mut spans = Vec::with_capacity((header.events as usize).min(reader.0.len()));
    let mut bodies = 0usize;
    for _ in 0..header.events {
        let id = match reader.varint()? {
            0 => NO_HEADERS,
            set => *sets.get(set - 1)?,
        };
        let len = reader.varint()?;
        spans.push((id, len));
        bodies = bodies.checked_add(len)?;
    }
    if bodies != reader.0.len() {
        return None;
    }
    let mut start = payload.len() - bodies;
    let buffer = batch.push_buffer(payload);
    for (id, len) in spans {
        batch.push_span(buffer, start, start + len, id);
        start += len;
    }
    Some(batch)
}

/// The ranges of a record of what is done; `None` when the payload is none of such.
pub fn decode_done(mut payload: &[u8]) -> Option<Vec<(u64, u64)>> {
    if !payload.len().is_multiple_of(16) {
        return None;
    }
    let mut ranges = Vec::with_capacity(payload.len() / 16);
    while payload.has_remaining() {
        let (from, to) = (payload.get_u64_le(), payload.get_u64_le());
        if from > to {
            return None;
        }
        ranges.push((from, to));
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    fn sealed(batch: &Batch) -> Vec<u8> {
        Draft::put(batch).expect("small enough").seal(7, 3, 64, None).to_vec()
    }

    fn read(bytes: &[u8]) -> Option<Batch> {
        let header = Header::parse(bytes, 3, 64)?;
        let payload = bytes.get(HEADER..HEADER + header.payload)?;
        let mut rest = Bytes::copy_from_slice(payload);
        let whole = header.fits(payload) && header.take_notes(&mut rest).is_some();
        whole.then(|| decode_put(&header, rest))?
    }

    #[test]
    fn the_bytes_are_these() {
        let batch = Batch::from_iter([Event::new("ab").with("k", "v"), Event::new("c")]);
        let bytes = sealed(&batch);
        assert_eq!(
            bytes[..28],
            [&MAGIC[..], &[1, 1, 0, 0, 13, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], &bytes[24..28]].concat()
        );
        assert_eq!(bytes[HEADER..], *b"\x01\x01\x01k\x01v\x01\x02\x00\x01abc");
        let header = Header::parse(&bytes, 3, 64).expect("a header");
        assert_eq!((header.first, header.end(), header.len()), (7, 9, bytes.len() as u64));
    }

    #[test]
    fn notes_stand_before_the_events() {
        let batch = Batch::from_iter([Event::new("ab")]);
        let notes = [Note { stream: 7, next: 300 }];
        let most = Draft::most(&batch, 1).expect("small");
        let bytes = Draft::put_within(&batch, &notes, most).seal(7, 3, 64, None).to_vec();
        assert!(bytes.len() <= most);
        assert_eq!(bytes[4], 2);
        let header = Header::parse(&bytes, 3, 64).expect("a header");
        let mut payload = Bytes::copy_from_slice(&bytes[HEADER..]);
        assert!(header.fits(&payload));
        assert_eq!(header.take_notes(&mut payload), Some(notes.to_vec()));
        assert_eq!(decode_put(&header, payload), Some(batch));
    }

    #[test]
    fn a_record_is_valid_in_its_place_only() {
        let bytes = sealed(&Batch::from_iter([Event::new("a")]));
        assert!(Header::parse(&bytes, 3, 64).is_some());
        assert!(Header::parse(&bytes, 3, 65).is_none());
        assert!(Header::parse(&bytes, 4, 64).is_none());
    }

    #[test]
    fn a_record_written_elsewhere_keeps_its_events() {
        let batch = Batch::from_iter([Event::new("a").with("k", "v")]);
        let bytes = sealed(&batch);
        let header = Header::parse(&bytes, 3, 64).expect("a header");
        let mut again = Draft::again(&header, &bytes[HEADER..]);
        assert_eq!(read(again.seal(7, 3, 64, None)), Some(batch));
    }

    #[test]
    fn ranges_are_read_back() {
        let ranges = vec![(0, 5), (9, u64::MAX)];
        let bytes = Draft::done(ranges.clone(), &[]).seal(0, 3, 64, None).to_vec();
        assert_eq!(Header::parse(&bytes, 3, 64).expect("a header").kind, Kind::Done);
        assert_eq!(decode_done(&bytes[HEADER..]), Some(ranges));
        assert_eq!(decode_done(&bytes[HEADER + 1..]), None);
    }

    #[test]
    fn a_blank_record_fills_its_place_and_says_nothing() {
        for len in HEADER..HEADER + 40 {
            let bytes = Draft::blank(len).seal(0, 3, 64, None).to_vec();
            assert_eq!(bytes.len(), len);
            let header = Header::parse(&bytes, 3, 64).expect("a header");
            assert!(header.fits(&bytes[HEADER..]));
            let ranges = decode_done(&bytes[HEADER..]).unwrap_or_default();
            assert!(ranges.iter().all(|(from, to)| from == to), "{len}: {ranges:?}");
        }
    }

    fn batches() -> impl Strategy<Value = Batch> {
        let headers = prop::collection::vec((".{0,5}", ".{0,200}"), 0..3);
        let event = (headers, prop::collection::vec(any::<u8>(), 0..200));
        let event =
            event.prop_map(|(headers, body)| Event { headers: headers.into_iter().collect(), body: body.into() });
        prop::collection::vec(event, 0..20).prop_map(|events| events.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_batch_is_read_back(batch in batches(), same in any::<bool>()) {
            let mut batch = batch;
            if same {
                batch.set_header(&"all".into(), &"one".into(), false);
            }
            prop_assert_eq!(read(&sealed(&batch)), Some(batch));
        }

        #[test]
        fn a_flipped_bit_shows(batch in batches(), bit in any::<prop::sample::Index>()) {
            let mut bytes = sealed(&batch);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(read(&bytes), None);
        }

        #[test]
        fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..100), events in 0u32..50) {
            let header = Header { kind: Kind::Put, encrypted: false, noted: true, payload: payload.len(), events, first: 0, payload_crc: 0 };
            decode_put(&header, payload.clone().into());
            header.take_notes(&mut payload.clone().into());
            decode_done(&payload);
        }
    }
}
