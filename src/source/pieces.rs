//! Large pieces of files, for events that are ranges of them.

use std::fs::File;
use std::io;

use bytes::Bytes;

/// Reads are of this size; larger only for an event that is.
pub const READ_BYTES: usize = 1 << 20;

/// Reads so many bytes, or up to the end of the file.
pub fn read_at(file: &File, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(bytes);
    while buffer.len() < bytes {
        let place = at + buffer.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), place) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(bytes);
    Ok(buffer)
}

/// Makes the first `used` bytes a buffer to share. Few of many are copied, so that events in a channel hold little more
/// memory than they have bytes.
pub fn share(buffer: Vec<u8>, used: usize) -> Bytes {
    if used < buffer.len() / 2 {
        return Bytes::copy_from_slice(&buffer[..used]);
    }
    Bytes::from(buffer)
}
