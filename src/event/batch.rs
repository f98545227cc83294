//! The batch: the unit in which events move, and the owner of their bytes.

use bytes::Bytes;
use smol_str::SmolStr;

use super::{Event, Headers};

/// Bodies that are written anew are gathered in buffers of about this size.
const REWRITTEN_BYTES: usize = 1 << 20;

/// Names a buffer of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(u32);

/// Names a set of headers of a batch; any number of events may share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersId(u32);

/// For events without headers.
pub const NO_HEADERS: HeadersId = HeadersId(u32::MAX);

/// Fewer bytes are not worth an allocation.
const WORTH_SHRINKING: usize = 1 << 10;

static EMPTY: Headers = Headers::new();

/// Where one event lies: a range of a buffer, and the number of its set of headers.
#[derive(Clone, Copy, Debug)]
struct Span {
    buffer: u32,
    start: u32,
    len: u32,
    headers: HeadersId,
}

/// A sequence of events that share buffers.
///
/// Bodies are ranges of the buffers that came from a socket or a file, so an event costs 16 bytes and neither an
/// allocation nor a reference count. Sets of headers stand in a table of their own; a header that an interceptor
/// sets on every event costs once a set, not once an event.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    buffers: Vec<Bytes>,
    /// The events are those from `head` on; those before it have been split off.
    spans: Vec<Span>,
    head: usize,
    headers: Vec<Headers>,
    body_bytes: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `events`.
    pub fn with_capacity(events: usize) -> Self {
        Self { spans: Vec::with_capacity(events), ..Self::default() }
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.spans.len() - self.head
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn live(&self) -> &[Span] {
        &self.spans[self.head..]
    }

    /// The sum of the lengths of all bodies.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Adds a buffer, in which events can then be marked with [`push_span`](Self::push_span).
    ///
    /// # Panics
    /// When the buffer has 4 GiB or more: sources read in far smaller pieces.
    pub fn push_buffer(&mut self, buffer: Bytes) -> BufferId {
        assert!(u32::try_from(buffer.len()).is_ok(), "a buffer of a batch is smaller than 4 GiB");
        self.buffers.push(buffer);
        BufferId(self.buffers.len() as u32 - 1)
    }

    /// Adds a set of headers for events to share.
    pub fn push_headers(&mut self, headers: Headers) -> HeadersId {
        if headers.is_empty() {
            return NO_HEADERS;
        }
        self.headers.push(headers);
        HeadersId(self.headers.len() as u32 - 1)
    }

    /// Adds the event whose body is `start..end` of a buffer.
    ///
    /// # Panics
    /// When the range lies outside the buffer.
    pub fn push_span(&mut self, buffer: BufferId, start: usize, end: usize, headers: HeadersId) {
        assert!(start <= end && end <= self.buffers[buffer.0 as usize].len(), "the body lies in its buffer");
        self.spans.push(Span { buffer: buffer.0, start: start as u32, len: (end - start) as u32, headers });
        self.body_bytes += end - start;
    }

    /// The table of sets of headers, which events refer to by [`header_set`](EventRef::header_set).
    pub fn header_sets(&self) -> &[Headers] {
        &self.headers
    }

    /// Adds an owned event.
    pub fn push(&mut self, event: Event) {
        let len = event.body.len();
        let buffer = self.push_buffer(event.body);
        let headers = self.push_headers(event.headers);
        self.push_span(buffer, 0, len, headers);
    }

    /// The event at `index`.
    ///
    /// # Panics
    /// When there is none.
    pub fn get(&self, index: usize) -> EventRef<'_> {
        EventRef { batch: self, span: self.live()[index] }
    }

    /// All events in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = EventRef<'_>> {
        self.live().iter().map(|span| EventRef { batch: self, span: *span })
    }

    /// The lengths of all bodies, in order.
    pub fn body_lengths(&self) -> impl ExactSizeIterator<Item = usize> {
        self.live().iter().map(|span| span.len as usize)
    }

    /// Takes the first `count` events (all, when there are fewer) off the front.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Self {
        if count >= self.len() {
            return std::mem::take(self);
        }
        let front = self.front(count);
        self.advance(count);
        front
    }

    /// A copy of the first `count` events: their places are copied, their bytes shared.
    #[must_use]
    pub fn front(&self, count: usize) -> Self {
        self.gather(&self.live()[..count.min(self.len())])
    }

    /// Drops the first `count` events.
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.len());
        self.body_bytes -= self.live()[..count].iter().map(|span| span.len as usize).sum::<usize>();
        self.head += count;
        // Room and buffers of events that are gone are given back once they are the larger part.
        if self.head >= self.len() {
            *self = self.gather(self.live());
        }
    }

    /// Just these events, with only the buffers and headers that they use.
    fn gather(&self, spans: &[Span]) -> Self {
        let body_bytes = spans.iter().map(|span| span.len as usize).sum();
        if spans.is_empty() {
            return Self::default();
        }
        if self.buffers.len() == 1 && self.headers.len() <= 1 {
            let (buffers, headers) = (self.buffers.clone(), self.headers.clone());
            return Self { buffers, spans: spans.to_vec(), head: 0, headers, body_bytes };
        }
        const UNUSED: u32 = u32::MAX;
        let mut gathered = Self { spans: Vec::with_capacity(spans.len()), body_bytes, ..Self::default() };
        let mut new_buffers = vec![UNUSED; self.buffers.len()];
        let mut new_headers = vec![UNUSED; self.headers.len()];
        for span in spans {
            let buffer = &mut new_buffers[span.buffer as usize];
            if *buffer == UNUSED {
                *buffer = gathered.buffers.len() as u32;
                gathered.buffers.push(self.buffers[span.buffer as usize].clone());
            }
            let mut headers = span.headers;
            if headers != NO_HEADERS {
                let id = headers.0 as usize;
                let new = &mut new_headers[id];
                if *new == UNUSED {
                    *new = gathered.headers.len() as u32;
                    gathered.headers.push(self.headers[id].clone());
                }
                headers = HeadersId(*new);
            }
            gathered.spans.push(Span { buffer: *buffer, headers, ..*span });
        }
        gathered
    }

    /// Copies all bodies into one buffer of just their size, if they are little of what their buffers hold: what waits in a
    /// channel is counted by its bodies, and must not take much more memory than that.
    pub fn shrink(&mut self) {
        let held: usize = self.buffers.iter().map(Bytes::len).sum();
        if held > WORTH_SHRINKING && self.body_bytes < held / 4 {
            self.repack();
        }
    }

    /// Copies all bodies into one buffer of just their size. Worth it when the events use little of theirs.
    pub fn repack(&mut self) {
        let mut packed = Vec::with_capacity(self.body_bytes);
        let mut spans = Vec::with_capacity(self.len());
        for (event, span) in self.iter().zip(self.live()) {
            spans.push(Span { buffer: 0, start: packed.len() as u32, ..*span });
            packed.extend_from_slice(event.body());
        }
        self.spans = spans;
        self.head = 0;
        self.buffers = vec![packed.into()];
    }

    /// Adds the events of another batch at the end.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let buffers = self.buffers.len() as u32;
        // A chain of batches whose events all have the same headers keeps one set of them.
        let same = match (self.headers.as_slice(), other.headers.as_slice()) {
            ([.., last], [only]) if last == only => Some(HeadersId(self.headers.len() as u32 - 1)),
            _ => None,
        };
        let headers = self.headers.len() as u32;
        self.spans.extend(other.live().iter().map(|span| Span {
            buffer: span.buffer + buffers,
            headers: match (span.headers, same) {
                (NO_HEADERS, _) => NO_HEADERS,
                (_, Some(same)) => same,
                (HeadersId(own), None) => HeadersId(own + headers),
            },
            ..*span
        }));
        self.buffers.extend(other.buffers);
        if same.is_none() {
            self.headers.extend(other.headers);
        }
        self.body_bytes += other.body_bytes;
        // Splitting and joining over and over must not pile up buffers that no event uses.
        self.tidy();
    }

    /// The events that `wanted` says yes to, in their order: their places are copied, their bytes shared.
    #[must_use]
    pub fn filter(&self, mut wanted: impl FnMut(EventRef<'_>) -> bool) -> Self {
        let wanted = |span: &Span| wanted(EventRef { batch: self, span: *span });
        let spans: Vec<Span> = self.live().iter().copied().filter(wanted).collect();
        self.gather(&spans)
    }

    /// Drops the events that `keep` says no to.
    pub fn retain(&mut self, mut keep: impl FnMut(EventRef<'_>) -> bool) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.drain(..std::mem::take(&mut self.head));
        let before = spans.len();
        spans.retain(|span| keep(EventRef { batch: self, span: *span }));
        self.spans = spans;
        if self.len() < before {
            self.body_bytes = self.body_lengths().sum();
            self.tidy();
        }
    }

    /// Gives events headers of their own: those that `headers` says, and the present ones where it says nothing. Events
    /// one after the other that get the same ones share them.
    pub fn replace_headers(&mut self, mut headers: impl FnMut(EventRef<'_>) -> Option<Headers>) {
        let mut spans = std::mem::take(&mut self.spans);
        for span in &mut spans[self.head..] {
            let Some(new) = headers(EventRef { batch: self, span: *span }) else { continue };
            span.headers = match self.headers.last() {
                Some(last) if *last == new => HeadersId(self.headers.len() as u32 - 1),
                _ => self.push_headers(new),
            };
        }
        self.spans = spans;
        self.tidy();
    }

    /// Gives events new bodies: what `body` appends to its buffer, where it says yes, and the present ones where it says no.
    ///
    /// # Panics
    /// When a body gets 4 GiB or more.
    pub fn replace_bodies(&mut self, mut body: impl FnMut(EventRef<'_>, &mut Vec<u8>) -> bool) {
        let mut spans = std::mem::take(&mut self.spans);
        let mut written = Vec::new();
        let mut unplaced: Vec<usize> = Vec::new();
        for at in self.head..spans.len() {
            let start = written.len();
            if !body(EventRef { batch: self, span: spans[at] }, &mut written) {
                written.truncate(start);
                continue;
            }
            let len = written.len() - start;
            self.body_bytes = self.body_bytes - spans[at].len as usize + len;
            spans[at] = Span { start: start as u32, len: u32::try_from(len).expect("a body under 4 GiB"), ..spans[at] };
            unplaced.push(at);
            if written.len() >= REWRITTEN_BYTES {
                self.place(&mut spans, &mut unplaced, &mut written);
            }
        }
        self.place(&mut spans, &mut unplaced, &mut written);
        self.spans = spans;
        self.tidy();
    }

    /// Makes a buffer of the bodies written, which these spans lie in.
    fn place(&mut self, spans: &mut [Span], unplaced: &mut Vec<usize>, written: &mut Vec<u8>) {
        if unplaced.is_empty() {
            return;
        }
        let BufferId(buffer) = self.push_buffer(std::mem::take(written).into());
        for at in unplaced.drain(..) {
            spans[at].buffer = buffer;
        }
    }

    /// Lets go of buffers and headers that no event uses, once they can be the larger part.
    fn tidy(&mut self) {
        if self.buffers.len() > self.len() || self.headers.len() > self.len() {
            *self = self.gather(self.live());
        }
    }

    /// Changes the headers of every event: `change` is called once for each set of headers, however many events
    /// share it.
    pub fn edit_headers(&mut self, mut change: impl FnMut(&mut Headers)) {
        for headers in &mut self.headers {
            change(headers);
        }
        if self.live().iter().any(|span| span.headers == NO_HEADERS) {
            let mut headers = Headers::new();
            change(&mut headers);
            let id = self.push_headers(headers);
            if id != NO_HEADERS {
                for span in self.spans.iter_mut().filter(|span| span.headers == NO_HEADERS) {
                    span.headers = id;
                }
            }
        }
    }

    /// Sets one header on every event; with `keep_existing`, only on those that lack it.
    pub fn set_header(&mut self, key: &SmolStr, value: &SmolStr, keep_existing: bool) {
        self.edit_headers(|headers| {
            if !(keep_existing && headers.get(key).is_some()) {
                headers.set(key.clone(), value.clone());
            }
        });
    }
}

impl FromIterator<Event> for Batch {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        let mut batch = Self::new();
        for event in events {
            batch.push(event);
        }
        batch
    }
}

/// Two batches are equal when their events are, whatever buffers hold them.
impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(a, b)| a.body() == b.body() && a.headers() == b.headers())
    }
}

impl Eq for Batch {}

/// A view of one event in its batch.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    batch: &'a Batch,
    span: Span,
}

impl<'a> EventRef<'a> {
    /// The body.
    pub fn body(&self) -> &'a [u8] {
        let start = self.span.start as usize;
        &self.batch.buffers[self.span.buffer as usize][start..start + self.span.len as usize]
    }

    /// The body as a slice that shares the batch's buffer.
    pub fn body_bytes(&self) -> Bytes {
        let start = self.span.start as usize;
        self.batch.buffers[self.span.buffer as usize].slice(start..start + self.span.len as usize)
    }

    /// The headers.
    pub fn headers(&self) -> &'a Headers {
        match self.span.headers {
            NO_HEADERS => &EMPTY,
            HeadersId(id) => &self.batch.headers[id as usize],
        }
    }

    /// The place of its headers in the batch's [`header_sets`](Batch::header_sets); `None` for an event without.
    pub fn header_set(&self) -> Option<usize> {
        (self.span.headers != NO_HEADERS).then_some(self.span.headers.0 as usize)
    }

    /// An owned copy.
    pub fn to_event(&self) -> Event {
        Event { headers: self.headers().clone(), body: self.body_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bodies(batch: &Batch) -> Vec<&[u8]> {
        batch.iter().map(|event| event.body()).collect()
    }

    #[test]
    fn spans_share_a_buffer() {
        let mut batch = Batch::new();
        let buffer = batch.push_buffer(Bytes::from_static(b"one\ntwo\n"));
        batch.push_span(buffer, 0, 3, NO_HEADERS);
        batch.push_span(buffer, 4, 7, NO_HEADERS);
        assert_eq!(bodies(&batch), [b"one", b"two"]);
        assert_eq!(batch.body_bytes(), 6);
    }

    #[test]
    #[should_panic(expected = "the body lies in its buffer")]
    fn a_span_outside_its_buffer_is_refused() {
        let mut batch = Batch::new();
        let buffer = batch.push_buffer(Bytes::from_static(b"one"));
        batch.push_span(buffer, 2, 4, NO_HEADERS);
    }

    #[test]
    fn one_edit_serves_events_with_and_without_headers() {
        let mut batch = Batch::from_iter([Event::new("a"), Event::new("b").with("k", "own"), Event::new("c")]);
        batch.set_header(&"k".into(), &"all".into(), true);
        let values: Vec<_> = batch.iter().map(|e| e.headers().get("k")).collect();
        assert_eq!(values, [Some("all"), Some("own"), Some("all")]);
        assert_eq!(batch.headers.len(), 2);
        batch.set_header(&"k".into(), &"new".into(), false);
        assert!(batch.iter().all(|e| e.headers().get("k") == Some("new")));
    }

    #[test]
    fn joining_batches_with_the_same_headers_keeps_one_set() {
        let mut batch = Batch::new();
        for body in ["a", "b", "c"] {
            batch.append(Batch::from_iter([Event::new(body).with("host", "h1")]));
        }
        assert_eq!(batch.headers.len(), 1);
        assert!(batch.iter().all(|e| e.headers().get("host") == Some("h1")));
    }

    #[test]
    fn what_no_event_uses_is_let_go() {
        let mut batch: Batch = (0..10).map(|i| Event::new(format!("{i}")).with("n", &i.to_string())).collect();
        batch.advance(1);
        batch.retain(|event| event.body() == b"3" || event.body() == b"7");
        assert_eq!(bodies(&batch), [b"3", b"7"]);
        assert_eq!((batch.buffers.len(), batch.headers.len(), batch.body_bytes()), (2, 2, 2));
        batch.retain(|_| false);
        assert_eq!((batch.is_empty(), batch.buffers.len(), batch.body_bytes()), (true, 0, 0));
    }

    #[test]
    fn neighbours_with_the_same_new_headers_share_them() {
        let mut batch: Batch = ["a1", "a2", "b1", "-"].into_iter().map(Event::new).collect();
        batch.replace_headers(|event| {
            let level = str::from_utf8(&event.body()[..1]).expect("text");
            (level != "-").then(|| Headers::from_iter([("level", level)]))
        });
        assert_eq!(
            batch.iter().map(|event| event.headers().get("level")).collect::<Vec<_>>(),
            [Some("a"), Some("a"), Some("b"), None]
        );
        assert_eq!(batch.headers.len(), 2);
    }

    #[test]
    fn new_bodies_of_any_size_beside_old_ones() {
        let mut batch = Batch::from_iter([Event::new("gone"), Event::new("x"), Event::new("kept"), Event::new("y")]);
        batch.advance(1);
        batch.replace_bodies(|event, out| {
            out.resize(out.len() + REWRITTEN_BYTES, event.body()[0]);
            event.body() != b"kept"
        });
        assert_eq!(batch.body_lengths().collect::<Vec<_>>(), [REWRITTEN_BYTES, 4, REWRITTEN_BYTES]);
        assert_eq!((batch.get(0).body()[9], batch.get(1).body(), batch.get(2).body()[9]), (b'x', &b"kept"[..], b'y'));
        assert_eq!(batch.body_bytes(), 4 + 2 * REWRITTEN_BYTES);
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let header = ("[a-c]", "[x-z]{0,30}");
        let event = (prop::collection::vec(header, 0..3), prop::collection::vec(any::<u8>(), 0..20));
        let event =
            event.prop_map(|(headers, body)| Event { headers: headers.into_iter().collect(), body: body.into() });
        prop::collection::vec(event, 0..20)
    }

    #[test]
    fn splitting_and_joining_over_and_over_piles_nothing_up() {
        let mut batch: Batch = (0..20).map(|i| Event::new(format!("{i}")).with("n", &i.to_string())).collect();
        let whole = batch.clone();
        for round in 0..200 {
            let mut front = batch.split_to(1 + round % 19);
            front.append(batch);
            batch = front;
            assert!(batch.buffers.len() <= 40 && batch.headers.len() <= 40, "{} buffers", batch.buffers.len());
        }
        assert_eq!(batch, whole);
    }

    #[test]
    fn repacking_keeps_the_events() {
        let mut batch = Batch::from_iter([Event::new("one"), Event::new(""), Event::new("two").with("k", "v")]);
        let whole = batch.clone();
        batch.repack();
        assert_eq!(batch, whole);
        assert_eq!(batch.buffers.len(), 1);
        assert_eq!(batch.buffers[0].len(), 6);
    }

    #[test]
    fn events_that_are_little_of_their_buffer_let_it_go() {
        for (body, kept) in [(1..6, 5), (0..10_000, 20_000)] {
            let mut batch = Batch::new();
            let buffer = batch.push_buffer(vec![b'x'; 20_000].into());
            batch.push_span(buffer, body.start, body.end, NO_HEADERS);
            let whole = batch.clone();
            batch.shrink();
            assert_eq!(batch, whole);
            assert_eq!(batch.buffers[0].len(), kept);
        }
    }

    proptest! {
        #[test]
        fn filters_keep_the_order_and_what_is_not_touched(events in events(), cut in 0usize..4) {
            let mut batch: Batch = events.iter().cloned().collect();
            batch.advance(cut);
            let even = |body: &[u8]| body.len().is_multiple_of(2);
            let expected: Batch = events.iter().skip(cut).filter(|event| even(&event.body)).cloned().collect();
            prop_assert_eq!(&batch.filter(|event| even(event.body())), &expected);
            batch.retain(|event| even(event.body()));
            prop_assert_eq!(&batch, &expected);
            prop_assert_eq!(batch.body_bytes(), batch.body_lengths().sum::<usize>());
            batch.replace_bodies(|event, out| {
                out.extend(event.body().iter().rev());
                event.body().len() > 4
            });
            batch.replace_headers(|event| Some(event.headers().clone()));
            let turned = expected.iter().map(|event| {
                let mut event = event.to_event();
                if event.body.len() > 4 {
                    event.body = event.body.iter().rev().copied().collect();
                }
                event
            });
            prop_assert_eq!(batch, turned.collect::<Batch>());
        }

        #[test]
        fn split_and_append_keep_every_event_in_order(events in events(), cuts in prop::collection::vec(0usize..8, 0..6)) {
            let whole: Batch = events.iter().cloned().collect();
            let mut rest = whole.clone();
            let mut joined = Batch::new();
            for cut in cuts {
                let front = rest.split_to(cut);
                prop_assert_eq!(front.body_bytes(), front.body_lengths().sum::<usize>());
                joined.append(front);
            }
            joined.append(rest);
            prop_assert_eq!(&joined, &whole);
            prop_assert_eq!(joined.body_bytes(), whole.body_bytes());
            prop_assert_eq!(joined.iter().map(|e| e.to_event()).collect::<Vec<_>>(), events);
        }
    }
}
