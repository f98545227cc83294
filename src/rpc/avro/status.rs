//! What an avro source answers: the enum `Status`.

/// The events are in every required channel.
pub const OK: &[u8] = &[0];
/// They are not, and should come again.
pub const FAILED: &[u8] = &[2];

/// The symbol of an answer.
pub fn name(datum: &[u8]) -> &'static str {
    match datum {
        [0] => "OK",
        [2] => "FAILED",
        _ => "UNKNOWN",
    }
}
