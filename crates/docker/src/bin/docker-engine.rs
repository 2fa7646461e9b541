//! The engine with docker's front and nothing else, for tests: `docker-engine <folder> <socket>
//! <cgroup root> [folder with subuid and subgid]`; with the last one the ids of containers are remapped. It
//! writes a line when it serves, and ends with its standard input.

use std::io::{Read, Write};
use std::path::PathBuf;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let code = match args.split_first() {
        Some((verb, rest)) if verb == "supervise" => runtime::supervisor::main(rest),
        _ => run(&args),
    };
    std::process::exit(code);
}

fn run(args: &[String]) -> i32 {
    let (folder, socket, cgroup, etc) = match args {
        [folder, socket, cgroup] => (folder, socket, cgroup, None),
        [folder, socket, cgroup, etc] => (folder, socket, cgroup, Some(etc)),
        _ => {
            eprintln!("usage: docker-engine <folder> <socket> <cgroup root> [etc]");
            return 2;
        }
    };
    let served = tokio::runtime::Runtime::new()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            let etc = etc.map(String::as_str);
            runtime.block_on(serve(folder.into(), socket.into(), cgroup, etc))
        });
    match served {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

async fn serve(
    folder: PathBuf,
    socket: PathBuf,
    cgroup: &str,
    etc: Option<&str>,
) -> Result<(), String> {
    let crew = base::Crew::new();
    let words = |error: &dyn std::error::Error| error.to_string();
    network::bring_up_loopback()
        .await
        .map_err(|error| words(&error))?;
    let network = network::open(network::Config::new(folder.join("network")))
        .await
        .map_err(|error| words(&error))?;
    let switch = docker::Switch::new(network);
    let config = runtime::Config::below(&folder, cgroup);
    let engine = runtime::open(config, switch.clone(), &crew)
        .await
        .map_err(|error| words(&error))?;
    let config = docker::Config {
        socket,
        folder: folder.join("docker"),
        remap: match etc {
            Some(etc) => {
                docker::Remap::find("default", etc.as_ref()).map_err(|error| words(&error))?
            }
            None => None,
        },
    };
    docker::serve(engine, switch, config, &crew)
        .await
        .map_err(|error| words(&error))?;
    let told = std::io::stdout().write_all(b"serving\n");
    told.map_err(|error| words(&error))?;
    let stop = crew.stop();
    std::thread::spawn(move || {
        // Nothing comes but the end.
        let _ = std::io::stdin().read(&mut [0]);
        stop.raise();
    });
    crew.finished().await.map_err(|error| words(&error))
}
