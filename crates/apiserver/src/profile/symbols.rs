//! The names of this program's functions, from its own file, if they were left in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of names and of their table that are read.
const BYTES_MAX: u64 = 256 << 20;
const HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const SYMBOL_TABLE: u64 = 2;
const FUNCTION: u8 = 2;
const LOADED: u64 = 1;
const EXECUTABLE: u64 = 1;
const PAGE: u64 = 4096;

/// Where the program's code lies in memory, and in its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) limit: u64,
    pub(crate) offset: u64,
    pub(crate) file: String,
}

/// Functions by address.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    pub(crate) mapping: Mapping,
    /// Address, length, and where the name begins.
    functions: Vec<(u64, u64, usize)>,
    names: Vec<u8>,
}

impl Symbols {
    /// Those of the program that runs; none if it was stripped or cannot be read.
    pub(crate) fn own() -> Symbols {
        let mapping = own_mapping().unwrap_or_default();
        let read = File::open("/proc/self/exe").and_then(|file| Symbols::read(&file, &mapping));
        let mut symbols = read.unwrap_or_default();
        symbols.mapping = mapping;
        symbols
    }

    fn read(file: &File, mapping: &Mapping) -> io::Result<Symbols> {
        let header = bytes(file, 0, HEADER_BYTES as u64)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let segments = table(file, number(&header, 32, 8), number(&header, 54, 4))?;
        let code = segments.iter().find(|own| {
            number(own, 0, 4) == LOADED
                && number(own, 4, 4) & EXECUTABLE > 0
                && number(own, 8, 8) / PAGE == mapping.offset / PAGE
        });
        let code = code.ok_or(io::ErrorKind::NotFound)?;
        let shift = number(code, 8, 8) - mapping.offset.min(number(code, 8, 8));
        let moved = mapping.start.wrapping_sub(number(code, 16, 8) - shift);
        let sections = table(file, number(&header, 40, 8), number(&header, 58, 4))?;
        let own = sections
            .iter()
            .find(|own| number(own, 4, 4) == SYMBOL_TABLE);
        let own = own.ok_or(io::ErrorKind::NotFound)?;
        let names = usize::try_from(number(own, 40, 4)).unwrap_or(usize::MAX);
        let names = sections.get(names).ok_or(io::ErrorKind::InvalidData)?;
        let content = |section: &[u8]| bytes(file, number(section, 24, 8), number(section, 32, 8));
        let (symbols, names) = (content(own)?, content(names)?);
        let functions = symbols.chunks_exact(SYMBOL_BYTES).filter(|symbol| {
            symbol.get(4).is_some_and(|info| info & 0xf == FUNCTION) && number(symbol, 8, 8) > 0
        });
        let function = |symbol: &[u8]| {
            let address = number(symbol, 8, 8).wrapping_add(moved);
            let name = usize::try_from(number(symbol, 0, 4)).unwrap_or(usize::MAX);
            (address, number(symbol, 16, 8), name)
        };
        let mut functions: Vec<_> = functions.map(function).collect();
        functions.sort_unstable();
        Ok(Symbols {
            mapping: Mapping::default(),
            functions,
            names,
        })
    }

    /// The function around an instruction, as the linker calls it.
    pub(crate) fn find(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|(own, ..)| *own <= address);
        let (start, length, name) = self.functions.get(after.checked_sub(1)?)?;
        if address - start >= (*length).max(1) {
            return None;
        }
        let name = self.names.get(*name..)?;
        let end = name.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(name.get(..end)?).ok()
    }
}

/// The lines of `/proc/self/maps` have address range, rights, offset, device, inode and path.
fn own_mapping() -> io::Result<Mapping> {
    let file = std::fs::read_link("/proc/self/exe")?;
    let file = file.to_string_lossy().into_owned();
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let parse = |text: &str| u64::from_str_radix(text, 16).ok();
    let found = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, limit) = words.next()?.split_once('-')?;
        let executable = words.next()?.contains('x');
        let offset = parse(words.next()?)?;
        let path = words.nth(2)?;
        (executable && file.starts_with(path)).then_some(Mapping {
            start: parse(start)?,
            limit: parse(limit)?,
            offset,
            file: file.clone(),
        })
    });
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Rows of a table; their length and count stand beside each other in the header.
fn table(file: &File, place: u64, shape: u64) -> io::Result<Vec<Vec<u8>>> {
    let (length, count) = (shape & 0xffff, shape >> 16);
    (0..count)
        .map(|index| bytes(file, place.saturating_add(index * length), length))
        .collect()
}

fn bytes(file: &File, place: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut content = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut content, place)?;
    Ok(content)
}

/// A number of so many bytes, the lowest first; 0 where there is none.
fn number(bytes: &[u8], place: usize, length: usize) -> u64 {
    let own = bytes.get(place..place + length).unwrap_or_default();
    own.iter()
        .rev()
        .fold(0, |all, byte| all << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn here() -> u64 {
        here as *const () as u64
    }

    #[test]
    fn this_function_is_found() {
        let symbols = Symbols::own();
        let own = &symbols.mapping;
        assert!((own.start..own.limit).contains(&here()), "{own:?}");
        let name = symbols.find(here() + 1).unwrap();
        assert!(name.contains("here"), "{name}");
        assert_eq!(symbols.find(1), None);
    }
}
