//! Giving memory back.
#![allow(unsafe_code)]

use std::io;

/// Lets go of the pages of this program's own code and constants; they come back from the page
/// cache when they are needed. For a process that sleeps nearly always, that is most of it.
pub fn release_program_pages() -> io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    for (start, end) in code_ranges(&std::fs::read_to_string("/proc/self/maps")?, &program) {
        // SAFETY: the range is a private mapping of a file that was never written to: code, or the
        // constants at the file's start. Dropping its pages changes nothing anybody can read.
        let result =
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ranges of the program's file that are mapped executable, or read-only from its very start.
/// Other read-only ranges were written once, when the program was relocated.
fn code_ranges(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let range = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (permissions, offset) = (fields.next()?, fields.next()?);
        let path = fields.nth(2)?;
        let at_start = offset.bytes().all(|digit| digit == b'0');
        let is_code = permissions == "r-xp" || (permissions == "r--p" && at_start);
        let number = |text| usize::from_str_radix(text, 16).ok();
        (is_code && program.ends_with(path)).then_some((number(start)?, number(end)?))
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written() {
        let maps = "\
00400000-00500000 r--p 00000000 fe:00 12 /bin/prog
00500000-00900000 r-xp 00100000 fe:00 12 /bin/prog
00900000-00910000 r--p 00500000 fe:00 12 /bin/prog
00910000-00920000 rw-p 00510000 fe:00 12 /bin/prog
01000000-01100000 rw-p 00000000 00:00 0 [heap]
7f000000-7f001000 r-xp 00000000 00:00 0 [vdso]
";
        let found = code_ranges(maps, "/bin/prog");
        assert_eq!(found, [(0x40_0000, 0x50_0000), (0x50_0000, 0x90_0000)]);
    }

    #[test]
    fn a_program_survives_it() {
        release_program_pages().unwrap();
        assert_eq!(
            format!("{:?}", vec!["still", "here"]),
            "[\"still\", \"here\"]"
        );
    }
}
