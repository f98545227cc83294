//! The little of DER that is needed to look into keys and certificates.

pub const SEQUENCE: u8 = 0x30;
pub const INTEGER: u8 = 0x02;
pub const OID: u8 = 0x06;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;

/// Takes the first element off the input and gives its content, when it is whole and has this tag. Otherwise the input
/// stays as it is.
pub fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&[found, first], mut rest) = input.split_first_chunk()?;
    let length = match first {
        ..=0x7F => usize::from(first),
        0x81..=0x84 => {
            let (octets, after) = rest.split_at_checked(usize::from(first & 0x7F))?;
            rest = after;
            octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet))
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    (found == tag).then(|| {
        *input = after;
        content
    })
}

/// An element with this tag and content.
pub fn put(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut element = vec![tag];
    match significant {
        [] => element.push(0),
        [short @ 0..=0x7F] => element.push(*short),
        long => {
            element.push(0x80 | long.len() as u8);
            element.extend(long);
        }
    }
    element.extend(content);
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_whole_elements_only() {
        let mut input: &[u8] = &[SEQUENCE, 2, 1, 2, OID, 0x81, 1, 7];
        assert_eq!(take(&mut input, SEQUENCE), Some(&[1, 2][..]));
        assert_eq!(take(&mut input, INTEGER), None);
        assert_eq!(take(&mut input, OID), Some(&[7][..]));
        assert_eq!(take(&mut input, OID), None);
        for wrong in
            [&[SEQUENCE][..], &[SEQUENCE, 1], &[SEQUENCE, 0x80, 0, 0], &[SEQUENCE, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]]
        {
            assert_eq!(take(&mut { wrong }, SEQUENCE), None, "{wrong:?}");
        }
    }

    #[test]
    fn takes_what_was_put() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let element = put(OCTET_STRING, &vec![7; length]);
            let mut input = element.as_slice();
            assert_eq!(take(&mut input, OCTET_STRING).map(<[u8]>::len), Some(length));
            assert!(input.is_empty());
        }
    }
}
