//! Shutdown as logind announces it: a real `dbus-daemon`, and a stand-in for logind behind it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use systemd::logind::{Watch, WatchError};
use systemd::{Connection, Kind, Message, Value};

const LOGIND: &str = "org.freedesktop.login1.Manager";

/// A bus of this test alone.
struct Bus {
    daemon: Child,
    folder: tempfile::TempDir,
}

impl Bus {
    /// `None` where there is no `dbus-daemon`.
    fn start() -> Option<Bus> {
        let folder = tempfile::tempdir().unwrap();
        let (socket, config) = (folder.path().join("bus"), folder.path().join("config"));
        let text = format!(
            "<busconfig><type>system</type><listen>unix:path={}</listen><policy context=\"default\">\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/><allow user=\"*\"/>\
             </policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--config-file={}", config.display()))
            .stdout(Stdio::piped())
            .spawn();
        let mut daemon = match daemon {
            Err(error) => {
                println!("skipped: dbus-daemon: {error}");
                return None;
            }
            Ok(daemon) => daemon,
        };
        // It tells its address when it listens.
        let mut line = String::new();
        let said = daemon.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:"), "{line}");
        Some(Bus { daemon, folder })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bus")
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("logind.conf.d")
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

/// What the stand-in was asked.
#[derive(Debug, PartialEq)]
enum Asked {
    Reload,
    Inhibit(Vec<String>),
    /// The lock was given back.
    Released,
}

/// Answers for logind, and for systemd when it is told to have logind reload. `reloads`: whether
/// logind then does what the file says.
fn stand_in(bus: &Bus, reloads: bool, tell: mpsc::Sender<Asked>) -> impl Fn() + use<> {
    let mut connection = Connection::bus(&bus.socket()).unwrap();
    for name in ["org.freedesktop.login1", "org.freedesktop.systemd1"] {
        let words = vec![Value::text(name), Value::U32(0)];
        connection.ask_bus("RequestName", words).unwrap();
    }
    let stop = connection.breaker().unwrap();
    let file = bus.configuration().join("99-kubelet.conf");
    std::thread::spawn(move || {
        let mut longest = Duration::from_secs(5);
        while let Ok(Some(call)) = connection.next_message(None) {
            if call.kind == Kind::Call {
                answer(&mut connection, &call, &mut longest, &file, reloads, &tell);
            }
        }
    });
    stop
}

fn answer(
    connection: &mut Connection,
    call: &Message,
    longest: &mut Duration,
    file: &Path,
    reloads: bool,
    tell: &mpsc::Sender<Asked>,
) {
    let reply = match call.member.as_str() {
        "Get" => {
            let usec = u64::try_from(longest.as_micros()).unwrap();
            call.reply(vec![Value::Variant(Box::new(Value::U64(usec)))])
        }
        "KillUnit" => {
            assert_eq!(call.body[0].as_text(), Some("systemd-logind.service"));
            assert_eq!(call.body[2], Value::I32(1));
            if reloads {
                let text = std::fs::read_to_string(file).unwrap();
                let seconds = text.split("InhibitDelayMaxSec=").nth(1).unwrap();
                *longest = Duration::from_secs(seconds.trim().parse().unwrap());
            }
            tell.send(Asked::Reload).unwrap();
            call.reply(Vec::new())
        }
        "Inhibit" => {
            let words = call
                .body
                .iter()
                .map(|word| word.as_text().unwrap().to_owned());
            tell.send(Asked::Inhibit(words.collect())).unwrap();
            let (ours, theirs) = nix::unistd::pipe().unwrap();
            let mut reply = call.reply(vec![Value::Handle(0)]);
            reply.fds.push(theirs);
            connection.send(&reply).unwrap();
            drop(reply);
            let begins = vec![Value::Bool(true)];
            let path = "/org/freedesktop/login1";
            for (member, body) in [
                ("SessionNew", vec![Value::text("1")]),
                ("PrepareForShutdown", begins),
            ] {
                let signal = Message::signal(path, LOGIND, member, body);
                connection.send(&signal).unwrap();
            }
            // The other end is closed when whoever took the lock gives it back.
            assert_eq!(std::fs::File::from(ours).read(&mut [0]).unwrap(), 0);
            tell.send(Asked::Released).unwrap();
            return;
        }
        other => panic!("{other}"),
    };
    connection.send(&reply).unwrap();
}

#[test]
fn logind_waits_until_the_lock_is_given_back() {
    let Some(bus) = Bus::start() else { return };
    let (tell, asked) = mpsc::channel();
    let stop = stand_in(&bus, true, tell);
    let wanted = Duration::from_secs(30);
    let (mut watch, lock) = Watch::open(&bus.socket(), &bus.configuration(), wanted).unwrap();
    let text = std::fs::read_to_string(bus.configuration().join("99-kubelet.conf")).unwrap();
    assert!(text.ends_with("[Login]\nInhibitDelayMaxSec=30\n"), "{text}");
    assert_eq!(asked.recv().unwrap(), Asked::Reload);
    let words = [
        "shutdown",
        "kubelet",
        "Kubelet needs time to handle node shutdown",
        "delay",
    ];
    let words = words.map(str::to_owned).to_vec();
    assert_eq!(asked.recv().unwrap(), Asked::Inhibit(words));
    assert!(watch.next_word().unwrap());
    assert!(asked.try_recv().is_err(), "the lock is held");
    drop(lock);
    assert_eq!(asked.recv().unwrap(), Asked::Released);
    stop();
}

#[test]
fn a_delay_that_cannot_be_raised_is_named() {
    let Some(bus) = Bus::start() else { return };
    let (tell, _asked) = mpsc::channel();
    let stop = stand_in(&bus, false, tell);
    let wanted = Duration::from_secs(30);
    let refused = Watch::open(&bus.socket(), &bus.configuration(), wanted);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, WatchError::TooShort { .. }), "{refused}");
    let text = refused.to_string();
    assert!(
        text.ends_with("(5s) is less than requested ShutdownGracePeriod"),
        "{text}"
    );
    stop();
}

#[test]
fn whoever_waits_can_be_woken() {
    let Some(bus) = Bus::start() else { return };
    let (tell, _asked) = mpsc::channel();
    let stop = stand_in(&bus, true, tell);
    let mut connection = Connection::bus(&bus.socket()).unwrap();
    let wake = connection.breaker().unwrap();
    // The bus greets with a signal, which may be there only now.
    let waiting = std::thread::spawn(move || {
        loop {
            if let Err(error) = connection.next_message(None) {
                return error;
            }
        }
    });
    wake();
    let woken = waiting.join().unwrap();
    assert!(matches!(woken, systemd::Error::Io(_)), "{woken}");
    let missing = Watch::open(Path::new("/none"), &bus.configuration(), Duration::ZERO);
    assert!(matches!(missing.unwrap_err(), WatchError::Bus(_)));
    stop();
}
