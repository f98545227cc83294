//! AES in counter mode: a key stream that bytes are combined with, to hide them and to show them again.

use std::fmt;

use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, InnerIvInit, StreamCipher, StreamCipherSeek, consts::U16};
use aes::cipher::{KeyInit, StreamCipherCoreWrapper};
use aes::{Aes128, Aes192, Aes256};
use ctr::{CtrCore, flavors};

/// Where a key stream begins.
pub type Counter = [u8; 16];

/// An AES key of 128, 192 or 256 bits.
#[derive(Clone)]
pub struct Key {
    bytes: Vec<u8>,
    schedule: Schedule,
}

#[derive(Clone)]
enum Schedule {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Key {
    /// The key of these bytes; `None` when they are not 16, 24 or 32.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let schedule = match bytes.len() {
            16 => Schedule::Aes128(Aes128::new_from_slice(bytes).ok()?),
            24 => Schedule::Aes192(Aes192::new_from_slice(bytes).ok()?),
            32 => Schedule::Aes256(Aes256::new_from_slice(bytes).ok()?),
            _ => return None,
        };
        Some(Self { bytes: bytes.to_vec(), schedule })
    }

    /// Combines bytes with the stream that begins at `counter`, from its byte `offset` on.
    pub fn apply(&self, counter: &Counter, offset: u64, bytes: &mut [u8]) {
        match &self.schedule {
            Schedule::Aes128(aes) => apply(aes.clone(), counter, offset, bytes),
            Schedule::Aes192(aes) => apply(aes.clone(), counter, offset, bytes),
            Schedule::Aes256(aes) => apply(aes.clone(), counter, offset, bytes),
        }
    }
}

fn apply<A>(aes: A, counter: &Counter, offset: u64, bytes: &mut [u8])
where
    A: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let core: CtrCore<A, flavors::Ctr128BE> = CtrCore::inner_iv_init(aes, counter.into());
    let mut stream = StreamCipherCoreWrapper::from_core(core);
    stream.seek(offset);
    stream.apply_keystream(bytes);
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

/// Without what must not be seen.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key of {} bits", self.bytes.len() * 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTER: Counter = [0xFE; 16];

    #[test]
    fn the_stream_is_that_of_the_standard() {
        // The first block of NIST SP 800-38A, F.5.1.
        let key = [0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c];
        let counter = [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
        let mut text = [0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a];
        Key::new(&key).expect("16 bytes").apply(&counter, 0, &mut text);
        assert_eq!(text[..4], [0x87, 0x4d, 0x61, 0x91]);
    }

    #[test]
    fn every_part_of_the_stream_can_be_had_alone() {
        for bits in [16, 24, 32] {
            let key = Key::new(&vec![7; bits]).expect("a length of AES");
            let mut whole = [0; 100];
            key.apply(&COUNTER, 0, &mut whole);
            let mut part = [0; 30];
            key.apply(&COUNTER, 33, &mut part);
            assert_eq!(part[..], whole[33..63], "{bits}");
            assert!(!format!("{key:?}").contains('7'));
        }
        assert!(Key::new(&[0; 8]).is_none());
    }
}
