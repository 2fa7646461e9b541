//! Exec, attach, terminals and forwarded ports.

use std::time::Duration;

use node_api::{ExecRequest, RuntimeError, RuntimeService, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::{Host, log_of};

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn commands_run_to_their_end() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let mut config = host.shell("while :; do sleep 1; done");
    config.envs = vec![("COLOUR".to_owned(), "blue".to_owned())];
    let id = host.start(&pod, config).await;
    let engine = host.engine();
    let script = "echo out $COLOUR; echo err >&2; cat /proc/1/comm; exit 4";
    let result = engine
        .exec_sync(&id, words(&["sh", "-c", script]), None)
        .await
        .unwrap();
    assert_eq!(result.exit_code, 4);
    assert_eq!(String::from_utf8_lossy(&result.stdout), "out blue\nsh\n");
    assert_eq!(String::from_utf8_lossy(&result.stderr), "err\n");
    let slow = engine
        .exec_sync(
            &id,
            words(&["sleep", "60"]),
            Some(Duration::from_millis(200)),
        )
        .await;
    assert!(matches!(slow, Err(RuntimeError::DeadlineExceeded(_))));
    // What timed out is gone, not only asked to go.
    let rest = engine
        .exec_sync(&id, words(&["sh", "-c", "ps | grep -c 'sleep 6[0]'"]), None)
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&rest.stdout), "0\n");
    // What a program leaves behind holds its output open, beyond the time it has itself.
    let script = "sleep 30 & exit 3";
    let second = Some(Duration::from_secs(1));
    let left = engine
        .exec_sync(&id, words(&["sh", "-c", script]), second)
        .await;
    match left {
        Ok(result) => assert_eq!(result.exit_code, 3),
        // A busy machine may take longer to begin.
        Err(fault) => assert!(
            matches!(fault, RuntimeError::DeadlineExceeded(_)),
            "{fault}"
        ),
    }
    let fault = engine
        .exec_sync(&id, words(&["nonsense"]), None)
        .await
        .unwrap_err();
    assert_eq!(
        fault.to_string(),
        "exec: \"nonsense\": executable file not found in $PATH"
    );
    let much = engine
        .exec_sync(
            &id,
            words(&["dd", "if=/dev/zero", "bs=1M", "count=20"]),
            None,
        )
        .await
        .unwrap();
    assert_eq!(much.stdout.len(), 16 << 20, "cut, not stuck");
    engine.stop_container(&id, Duration::ZERO).await.unwrap();
    let fault = engine
        .exec_sync(&id, words(&["echo"]), None)
        .await
        .unwrap_err();
    assert!(matches!(fault, RuntimeError::FailedPrecondition(_)));
    host.close().await;
}

#[tokio::test]
async fn streams_of_an_exec() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let id = host
        .start(&pod, host.shell("while :; do sleep 1; done"))
        .await;
    let request = ExecRequest {
        container_id: id.clone(),
        command: words(&["cat"]),
        stdin: true,
        stdout: true,
        ..Default::default()
    };
    let mut session = host.engine().exec(request.clone()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"there and back").await.unwrap();
    drop(stdin);
    let mut text = String::new();
    session
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(text, "there and back");
    assert_eq!(session.exit.await.unwrap().unwrap(), 0);

    let terminal = ExecRequest {
        command: words(&[
            "sh",
            "-c",
            "tty >/dev/null; read line; stty size; echo got $line; exit 5",
        ]),
        tty: true,
        ..request
    };
    let mut session = host.engine().exec(terminal).await.unwrap();
    let resize = session.resize.take().unwrap();
    resize
        .send(TerminalSize {
            width: 97,
            height: 31,
        })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    let mut text = String::new();
    session
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert!(
        text.contains("31 97") && text.contains("got typed"),
        "{text}"
    );
    assert_eq!(session.exit.await.unwrap().unwrap(), 5);
    host.close().await;
}

#[tokio::test]
async fn attaching_to_a_container() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let mut config = host.shell("read a; echo first $a; read b; echo second $b >&2; cat; exit 6");
    config.stdin = true;
    config.stdin_once = true;
    let id = host.engine().create_container(&pod, config).await.unwrap();
    host.engine().start_container(&id).await.unwrap();
    let request = ExecRequest {
        container_id: id.clone(),
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let mut session = host.engine().attach(request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\nthe rest\n").await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    session
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .await
        .unwrap();
    session
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .await
        .unwrap();
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("first one\nthe rest\n", "second two\n")
    );
    assert_eq!(session.exit.await.unwrap().unwrap(), 6);
    let status = host.ended(&id).await;
    assert!(log_of(&status.log_path).contains("stdout F the rest"));
    host.close().await;
}

#[tokio::test]
async fn a_container_with_a_terminal() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let mut config = host.shell("ls -l /dev/console; read a; stty size; echo $TERM $a");
    config.tty = true;
    config.stdin = true;
    let id = host.start(&pod, config).await;
    let request = ExecRequest {
        container_id: id.clone(),
        tty: true,
        stdin: true,
        stdout: true,
        ..Default::default()
    };
    let mut session = host.engine().attach(request).await.unwrap();
    session
        .resize
        .take()
        .unwrap()
        .send(TerminalSize {
            width: 80,
            height: 24,
        })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    session
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"hello\n")
        .await
        .unwrap();
    let mut text = String::new();
    session
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert!(
        text.contains("24 80") && text.contains("xterm hello"),
        "{text}"
    );
    assert_eq!(session.exit.await.unwrap().unwrap(), 0);
    host.close().await;
}

#[tokio::test]
async fn ports_are_those_of_the_pod() {
    let host = Host::new().await;
    let pod = host.pod().await;
    // No network plugin raised the loopback; the container does it here.
    let mut config = host.shell("ip link set lo up 2>/dev/null || ifconfig lo 127.0.0.1 up; echo pong | nc -l -p 7777 & wait");
    config.security.privileged = true;
    let id = host.start(&pod, config).await;
    let lo = host
        .engine()
        .exec_sync(
            &id,
            words(&["/bin/busybox", "ifconfig", "lo", "127.0.0.1", "up"]),
            None,
        )
        .await
        .unwrap();
    assert_eq!(lo.exit_code, 0, "{lo:?}");
    let mut answered = None;
    for _ in 0..50 {
        match host.engine().port_forward(&pod, 7777).await {
            Ok(stream) => {
                answered = Some(stream);
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    let mut text = String::new();
    answered
        .expect("a connection")
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(text, "pong\n");
    assert!(matches!(
        host.engine().port_forward(&pod, 9).await,
        Err(RuntimeError::Unavailable(_))
    ));
    host.close().await;
}

#[tokio::test]
async fn a_log_that_was_moved() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let script =
        "echo before; trap 'echo after; exit 0' USR1; echo ready; while :; do sleep 0.05; done";
    let mut config = host.shell(script);
    config.stop_signal = Some("SIGUSR1".to_owned());
    let id = host.start(&pod, config).await;
    let path = host.engine().container_status(&id).await.unwrap().log_path;
    while !log_of(&path).contains("ready") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let moved = path.with_extension("1");
    std::fs::rename(&path, &moved).unwrap();
    host.engine().reopen_container_log(&id).await.unwrap();
    host.engine()
        .stop_container(&id, Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(log_of(&moved), "stdout F before\nstdout F ready");
    assert_eq!(log_of(&path), "stdout F after");
    host.close().await;
}
