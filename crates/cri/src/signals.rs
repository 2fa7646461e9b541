//! Signals as CRI counts them: an order of its own, by name and not by number.

use meta::naming::SIGNALS;

/// CRI's numbers of the first real-time signal, of those counted from there, of the first one
/// counted from the other end, and of the very last.
const RTMIN: i32 = 35;
const RTMIN_PLUS_FIRST: i32 = 36;
const RTMIN_PLUS_LAST: i32 = 50;
const RTMAX_MINUS_FIRST: i32 = 51;
const RTMAX: i32 = 65;

/// What the engine calls a signal; `None` for the runtime's own choice.
pub(crate) fn name(number: i32) -> Option<String> {
    match number {
        RTMIN => Some("SIGRTMIN".to_owned()),
        RTMAX => Some("SIGRTMAX".to_owned()),
        RTMIN_PLUS_FIRST..=RTMIN_PLUS_LAST => Some(format!("SIGRTMIN+{}", number - RTMIN)),
        RTMAX_MINUS_FIRST..RTMAX => Some(format!("SIGRTMAX-{}", RTMAX - number)),
        number => {
            let index = usize::try_from(number.checked_sub(1)?).ok()?;
            // Three are old names of others, which is what the kernel knows them by.
            SIGNALS.get(index).map(|name| match *name {
                "SIGCLD" => "SIGCHLD".to_owned(),
                "SIGIOT" => "SIGABRT".to_owned(),
                "SIGPOLL" => "SIGIO".to_owned(),
                name => name.to_owned(),
            })
        }
    }
}

/// CRI's number of a signal by its name; 0 where it has none.
pub(crate) fn of_name(signal: &str) -> i32 {
    let mut numbers = 1..=RTMAX;
    let found = numbers.find(|number| name(*number).as_deref() == Some(signal));
    found.unwrap_or(0)
}

/// Linux' number of a signal by that of CRI; 0 where it has none.
pub(crate) fn of_cri(number_of_cri: i32) -> i32 {
    const LINUX_LAST: i32 = 64;
    let mut numbers = 1..=LINUX_LAST;
    let found = numbers.find(|signal| number(*signal) == number_of_cri);
    found.unwrap_or(0)
}

/// CRI's number of a signal of Linux; 0 where it has none.
pub(crate) fn number(signal: i32) -> i32 {
    const LINUX_RTMIN: i32 = 34;
    const LINUX_RTMAX: i32 = 64;
    const BY_LINUX_NUMBER: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    match signal {
        LINUX_RTMIN..50 => RTMIN + (signal - LINUX_RTMIN),
        50..=LINUX_RTMAX => RTMAX - (LINUX_RTMAX - signal),
        _ => {
            let name = usize::try_from(signal - 1)
                .ok()
                .and_then(|index| BY_LINUX_NUMBER.get(index));
            let index = SIGNALS.iter().position(|known| Some(known) == name);
            index.map_or(0, |index| index as i32 + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_both_sides() {
        for (cri, said, linux) in [
            (23, "SIGTERM", 15),
            (29, "SIGUSR1", 10),
            (35, "SIGRTMIN", 34),
            (38, "SIGRTMIN+3", 37),
            (51, "SIGRTMAX-14", 50),
            (65, "SIGRTMAX", 64),
        ] {
            assert_eq!(name(cri).as_deref(), Some(said));
            assert_eq!(number(linux), cri, "{said}");
            assert_eq!((of_name(said), of_cri(cri)), (cri, linux), "{said}");
        }
        assert_eq!(name(0), None);
        assert_eq!(name(5).as_deref(), Some("SIGCHLD"));
        assert_eq!(
            (name(66), name(-1), number(0), number(99)),
            (None, None, 0, 0)
        );
    }
}
