//! The end of contexts: docker's command line leaves out what fills up the last file of an archive that
//! it has added the Dockerfile to.

use std::io::{self, BufRead, BufReader, Read};

/// The rest of a block, and the two empty ones that end an archive.
const TAIL: u64 = 3 * 512;
/// How packed archives begin: gzip, bzip2, xz, zstd. Nothing may follow those.
const PACKED: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7z", b"\x28\xb5\x2f\xfd"];

/// The same archive with an end.
pub(super) fn completed(reader: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut reader = BufReader::new(reader);
    let start = reader.fill_buf()?;
    match PACKED.iter().any(|magic| start.starts_with(magic)) {
        true => Ok(Box::new(reader)),
        false => Ok(Box::new(reader.chain(io::repeat(0).take(TAIL)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_without_an_end_get_one() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        archive
            .append_data(&mut header, "a", &b"hello"[..])
            .unwrap();
        let mut bytes = archive.into_inner().unwrap();
        bytes.truncate(512 + 5);
        let mut read = tar::Archive::new(completed(io::Cursor::new(bytes)).unwrap());
        assert_eq!(read.entries().unwrap().map(Result::unwrap).count(), 1);
        let packed = io::Cursor::new(b"\x1f\x8bxyz".to_vec());
        assert_eq!(
            io::copy(&mut completed(packed).unwrap(), &mut io::sink()).unwrap(),
            5
        );
    }
}
